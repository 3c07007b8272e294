use super::super::schema::faults_of;
use super::list::Summary;
use super::view::View;
use super::*;
use crate::observe::oom::address::Address;
use crate::observe::oom::model::{Capture, Known};
use crate::observe::oom::samples;

const SCHEMA: &str = include_str!("../../../../docs/schema/oom.schema.json");
const LIST_SCHEMA: &str = include_str!("../../../../docs/schema/oom-list.schema.json");

#[test]
fn whatever_is_printed_is_described() {
    for capture in [samples::whole(), samples::bare()] {
        let view = serde_json::to_value(View::of(&capture, "b0")).expect("a JSON form");
        let faults = faults_of(SCHEMA, &view);
        assert!(faults.is_empty(), "{faults:#?}");
        let short = serde_json::to_value(Summary::of(&capture)).expect("a JSON form");
        let faults = faults_of(LIST_SCHEMA, &short);
        assert!(faults.is_empty(), "{faults:#?}");
    }
}

#[test]
fn a_report_says_who_why_what_grew_and_what_would_have_been_enough() {
    let capture = samples::whole();
    let text = report::report(&View::of(&capture, "b0"), false, &Terminal::PLAIN);
    for part in [
        "shop (4711) was killed for want of memory: /shop used 64 MiB of 64 MiB",
        "command /usr/bin/shop --key=***",
        "memory anonymous 60 MiB",
        "usage went from 24 MiB to 62 MiB in 19.0 s: +2 MiB a second",
        "anon +40 MiB (18 MiB to 58 MiB)",
        "at least 64 MiB; try 129 MiB",
        "thread 4711 shop",
        "/usr/bin/shop+0x1123",
        "not in this capture",
        "threads.leaf",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn a_report_of_a_bare_capture_gives_reasons_and_no_zeros() {
    let capture = samples::bare();
    let text = report::report(&View::of(&capture, "other boot"), true, &Terminal::PLAIN);
    assert!(text.contains("no thread was seen at its exit"), "{text}");
    assert!(
        text.contains("cannot be said: it was no cgroup's limit that was hit"),
        "{text}"
    );
    assert!(text.contains("the node's memory ran out"), "{text}");
    assert!(!text.contains("0 B of"), "{text}");
}

#[test]
fn names_are_shown_so_that_they_cannot_act_on_the_terminal() {
    let mut capture = samples::whole();
    capture.victim.comm = "a\u{1b}[31mb".into();
    capture.threads[0].comm = "c\u{1b}[2Jd".into();
    capture.mappings[0].vma.name = "/\u{1b}]0;x".into();
    capture.victim.command = Known::Value(vec!["\u{202e}".into()]);
    let view = View::of(&capture, "b0");
    let text = report::report(&view, true, &Terminal::PLAIN);
    assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text:?}");
    let line = Summary::of(&capture).line(&Terminal::PLAIN);
    assert!(!line.contains('\u{1b}'), "{line:?}");
}

#[test]
fn the_thread_that_asked_comes_first_and_says_so() {
    let mut capture = samples::whole();
    // Each at a place of its own, and more than are shown.
    for n in 1..20_u32 {
        let mut thread = capture.threads[0].clone();
        thread.tid = 5000 + n;
        thread.kernel_stack = Known::Value(vec![Address(u64::from(n))]);
        capture.threads.push(thread);
    }
    capture.asker.tid = 5019;
    let titles = |capture: &Capture, all| {
        let text = report::report(&View::of(capture, "b0"), all, &Terminal::PLAIN);
        let titles = text.lines().filter(|line| line.starts_with("thread "));
        titles.map(str::to_owned).collect::<Vec<_>>()
    };
    let first = "thread 5019 shop, which asked for the memory";
    for all in [false, true] {
        let titles = titles(&capture, all);
        assert_eq!(titles[..2], [first, "thread 4711 shop"]);
        assert_eq!(
            titles
                .iter()
                .filter(|title| title.contains("asked"))
                .count(),
            1
        );
    }
    // Also where others stand at its place.
    capture.threads[19].kernel_stack = capture.threads[0].kernel_stack.clone();
    let folded = "thread 5019 shop, which asked for the memory, and 1 more at the same place";
    assert_eq!(titles(&capture, false)[0], folded);
}

#[test]
fn data_is_not_shown_as_code() {
    let mut capture = samples::whole();
    capture.mappings[0].vma.perms = "rw-p".into();
    capture.mappings[0].vma.file = None;
    capture.mappings[0].vma.name.clear();
    let view = View::of(&capture, "b0");
    let text = report::report(&view, false, &Terminal::PLAIN);
    assert!(
        text.contains("#0  0x555555555123  no code is mapped there"),
        "{text}"
    );
    assert!(!text.contains("code that the program made"), "{text}");
}

#[test]
fn a_kill_for_want_of_the_nodes_memory_has_no_question_marks() {
    let mut capture = samples::bare();
    let why = |capture: &Capture| {
        let text = report::report(&View::of(capture, "b0"), false, &Terminal::PLAIN);
        let line = text.lines().find(|line| line.starts_with("why"));
        line.unwrap_or_default().to_owned()
    };
    capture.kill.asked_bytes = Known::Value(4096);
    assert_eq!(
        why(&capture),
        "why      the node's memory ran out, and 4 KiB more was asked for"
    );
    let mut before = samples::whole().before;
    if let Known::Value(before) = &mut before {
        before.limit = Known::Value(2 << 30);
    }
    capture.before = before;
    assert_eq!(
        why(&capture),
        "why      the node's memory of 2 GiB ran out, and 4 KiB more was asked for"
    );
    let line = Summary::of(&capture).line(&Terminal::PLAIN);
    assert!(
        line.contains("the node's memory") && !line.contains("? of ?"),
        "{line}"
    );
}

#[test]
fn threads_at_the_same_place_are_shown_together() {
    let mut capture = samples::whole();
    for tid in 0..50 {
        let mut thread = capture.threads[0].clone();
        thread.tid = 5000 + tid;
        capture.threads.push(thread);
    }
    let view = View::of(&capture, "b0");
    let text = report::report(&view, false, &Terminal::PLAIN);
    assert!(text.contains("and 50 more at the same place"), "{text}");
    let text = report::report(&view, true, &Terminal::PLAIN);
    assert!(text.contains("thread 5049"), "{text}");
}

#[test]
fn a_name_that_is_none_is_refused_with_where_to_look() {
    for text in ["../x", "", "x/y", "LAST", "9\0"] {
        let error = text.parse::<Which>().expect_err("refused").to_string();
        assert!(error.contains("hearth oom list"), "{error}");
    }
    assert!(matches!("last".parse(), Ok(Which::Last)));
}
