//! Traces from files, and what is said of files that are none.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hearth_runtime::pool::simulate::{Format, Reading, Trace, Trigger, recorded};

fn sample(name: &str) -> PathBuf {
    let traces = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces");
    traces.join(name)
}

fn read(name: &str) -> (Trace, Vec<String>) {
    let read = Reading::default().read(&sample(name), None);
    read.unwrap_or_else(|error| panic!("{error}"))
}

/// What is said of a file with these lines.
fn refused(name: &str, lines: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join(name);
    std::fs::write(&file, lines).expect("a file");
    let error = Reading::default().read(&file, None).expect_err("no trace");
    let text = error.to_string();
    let (before, after) = text.split_once(name).expect("the file's name");
    assert!(before.ends_with('/'), "{text}");
    after.to_owned()
}

/// When the requests for one function came, in seconds, and how long they took, in ms.
fn requests(trace: &Trace, function: usize) -> Vec<(u64, u128)> {
    let of = trace
        .arrivals()
        .iter()
        .filter(|one| one.function() == function);
    of.map(|one| (one.at().0.as_secs(), one.work().as_millis()))
        .collect()
}

#[test]
fn a_day_of_2019_has_requests_in_their_minutes_with_durations_and_memory_from_beside() {
    let (trace, missing) = read("invocations_per_function_md.anon.d01.csv");
    assert!(missing.is_empty(), "{missing:?}");
    let names: Vec<_> = trace.functions().iter().map(|one| &*one.name).collect();
    assert_eq!(names, ["f1", "f2", "f3"]);
    assert_eq!(trace.functions()[0].memory_bytes, 128 << 20);
    assert_eq!(
        trace.functions()[2].memory_bytes,
        Reading::default().memory_bytes
    );
    assert_eq!(trace.functions()[2].trigger, Some(Trigger::Timer));
    assert_eq!(trace.end().0, Duration::from_hours(24));
    let first = requests(&trace, 0);
    let minutes: Vec<u64> = first.iter().map(|(second, _)| second / 60).collect();
    assert_eq!(minutes, [0, 0, 0, 60, 1439, 1439]);
    assert!(
        first.iter().all(|(_, ms)| (100..=200).contains(ms)),
        "{first:?}"
    );
    let queued = requests(&trace, 1);
    // Nothing is known of how long these take. They are evenly spread.
    assert!(queued.iter().all(|(_, ms)| *ms == 1000), "{queued:?}");
    assert!(
        queued
            .windows(2)
            .all(|pair| (14..=16).contains(&(pair[1].0 - pair[0].0)))
    );
    let hourly = requests(&trace, 2);
    assert_eq!(hourly.len(), 24);
    assert!(
        hourly.windows(2).all(|pair| pair[1].0 - pair[0].0 == 3600),
        "{hourly:?}"
    );
    assert!(hourly.iter().all(|(_, ms)| *ms == 5000));
}

#[test]
fn what_is_not_beside_a_day_of_2019_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder
        .path()
        .join("invocations_per_function_md.anon.d02.csv");
    std::fs::copy(sample("invocations_per_function_md.anon.d01.csv"), &file).expect("a copy");
    let (trace, missing) = Reading::default().read(&file, None).expect("a trace");
    assert_eq!(
        (trace.functions().len(), missing.len()),
        (3, 2),
        "{missing:?}"
    );
}

#[test]
fn requests_of_2021_begin_when_they_ended_less_what_they_took() {
    let (trace, _) = read("azure-2021.txt");
    assert_eq!(trace.functions().len(), 3);
    let times: Vec<_> = trace
        .arrivals()
        .iter()
        .map(|one| (one.at().0.as_millis(), one.work().as_millis()))
        .collect();
    // What began before the trace did begins with it.
    assert_eq!(
        times,
        [(0, 1250), (27_500, 2500), (60_000, 250), (100_500, 20_000)]
    );
    assert_eq!(trace.end().0, Duration::from_millis(120_500));
}

#[test]
fn a_share_of_apps_is_taken_whole_and_always_the_same() {
    let file = sample("invocations_per_function_md.anon.d01.csv");
    let share = |share| {
        let reading = Reading {
            share,
            ..Reading::default()
        };
        reading
            .read(&file, Some(Format::Azure2019))
            .expect("a trace")
            .0
    };
    assert_eq!(share(0.0).functions().len(), 0);
    let some: Vec<usize> = (0..=10)
        .map(|tenth| share(f64::from(tenth) / 10.0).functions().len())
        .collect();
    assert!(
        some.is_sorted() && some.iter().all(|count| [0, 1, 2, 3].contains(count)),
        "{some:?}"
    );
    assert!(
        !some.windows(2).any(|pair| pair == [0, 1]) || !some.contains(&2),
        "{some:?}"
    );
}

#[test]
fn a_file_that_is_wrong_is_told_with_line_field_value_and_remedy() {
    let head = "app,func,end_timestamp,duration\n";
    assert_eq!(
        refused("t.txt", &format!("{head}a,f,1,2\na,f,x,2\n")),
        ", line 3: end_timestamp is `x`, but is to be a number from 0 to 1e9"
    );
    assert_eq!(
        refused("t.txt", &format!("{head}a,f,1\n")),
        ", line 2: the line is `a,f,1`, but is to be of 4 columns, as the first line is"
    );
    assert_eq!(
        refused("t.txt", "app,func,end,duration\n"),
        ", line 1: the line is `app,func,end,duration`, but is to be the head of the table, with a \
         column end_timestamp"
    );
    assert_eq!(
        refused(
            "day.csv",
            "HashOwner,HashApp,HashFunction,Trigger,1,2\no,a,f,http,0,-1\n"
        ),
        ", line 2: 2 is `-1`, but is to be a count, such as 0"
    );
    let unknown = refused("notes", "Dear diary\n");
    assert!(
        unknown.contains("line 1") && unknown.contains("--format"),
        "{unknown}"
    );
    assert!(refused("empty", "").contains("--format"));
    let reading = Reading {
        requests: 2,
        ..Reading::default()
    };
    let many = reading
        .read(&sample("azure-2021.txt"), None)
        .expect_err("too many");
    assert!(
        many.to_string().contains("line 4: more than 2 requests"),
        "{many}"
    );
}

const RECORDING: &str = r#"{"hearth_recording":1}
{"at":1000000000,"input":"deploy","function":"a","settings":{"min":0,"max":2,"reserved":0,"queue":5,"hold":false,"policy":"fixed:600","memory_bytes":1048576},"renew":false}
{"at":2000000000,"input":"arrive","function":"a","ticket":1,"deadline":32000000000,"actions":[{"action":"start","function":"a","instance":1}]}
{"at":2500000000,"input":"measured","function":"a","start":{"secs":0,"nanos":500000000}}
{"at":2500000000,"input":"started","function":"a","instance":1,"actions":[{"action":"serve","function":"a","ticket":1,"instance":1,"how":"miss"}]}
{"at":5500000000,"input":"served","function":"a","instance":1,"work":{"secs":3,"nanos":0}}
{"at":700000000000,"input":"tick","actions":[{"action":"retire","function":"a","instance":1,"why":"idle"}]}
"#;

#[test]
fn a_recording_is_what_the_fleet_does_or_the_difference_is_told() {
    let file = Path::new("node.jsonl");
    let inputs = recorded::replay(file, RECORDING.as_bytes()).expect("the same");
    assert_eq!(inputs, 6);
    let other = RECORDING.replace(
        "\"ticket\":1,\"instance\":1,\"how\":\"miss\"",
        "\"ticket\":1,\"instance\":1,\"how\":\"hit\"",
    );
    let error = recorded::replay(file, other.as_bytes()).expect_err("a difference");
    let recorded::ReplayError::Different(difference) = &error else {
        panic!("{error}");
    };
    assert_eq!(difference.line, 5);
    let error = recorded::replay(file, "{\"hearth_recording\":9}\n".as_bytes()).expect_err("new");
    assert!(
        error.to_string().contains("{\"hearth_recording\":1}"),
        "{error}"
    );
    let torn = &RECORDING[..RECORDING.len() - 9];
    let error = recorded::replay(file, torn.as_bytes()).expect_err("a torn line");
    assert!(error.to_string().contains("line 7"), "{error}");
}

#[test]
fn a_recording_is_written_as_it_is_read() {
    let mut lines = RECORDING.lines();
    let head = serde_json::to_string(&recorded::Head::default()).expect("JSON");
    assert_eq!(lines.next(), Some(&*head));
    for line in lines {
        let record: recorded::Record = serde_json::from_str(line).expect("a record");
        assert_eq!(serde_json::to_string(&record).expect("JSON"), line);
    }
}

#[test]
fn a_recording_has_requests_with_what_starts_work_and_memory_were_measured() {
    let file = Path::new("node.jsonl");
    let trace = recorded::trace(file, RECORDING.as_bytes(), &Reading::default()).expect("a trace");
    let function = &trace.functions()[0];
    assert_eq!(
        (function.memory_bytes, function.start),
        (1 << 20, Duration::from_millis(500))
    );
    assert_eq!(requests(&trace, 0), [(1, 3000)]);
    assert_eq!(trace.end().0, Duration::from_secs(699));
}

#[test]
fn a_recording_tells_of_a_request_only_what_came_to_it() {
    let began = r#"{"hearth_recording":1}
{"at":0,"input":"deploy","function":"a","settings":{"min":0,"max":2,"reserved":0,"queue":5,"hold":false,"policy":"fixed:600","memory_bytes":1048576},"renew":false}
{"at":0,"input":"weighed","function":"a","bytes":2097152}
{"at":0,"input":"resumed","function":"a","back_off":{"failures":2,"until":9}}
{"at":0,"input":"found","function":"a","instance":1,"busy":false}
{"at":0,"input":"deploy","function":"a","settings":{"min":0,"max":2,"reserved":0,"queue":5,"hold":false,"policy":"fixed:600","memory_bytes":1048576},"renew":false}
{"at":1000000000,"input":"arrive","function":"a","ticket":1,"deadline":32000000000,"actions":[{"action":"serve","function":"a","ticket":1,"instance":1,"how":"hit"}]}
"#;
    // Nothing came to it: what it was at work on after that is not known.
    let unused = r#"{"at":2000000000,"input":"unused","function":"a","instance":1}
{"at":9000000000,"input":"served","function":"a","instance":1,"work":{"secs":7,"nanos":0}}
{"at":9000000000,"input":"served","function":"a","instance":2,"work":{"secs":3,"nanos":0}}
{"at":9000000000,"input":"served","function":"a","instance":2,"work":{"secs":3,"nanos":0}}
"#;
    let read = |text: String| {
        let file = Path::new("node.jsonl");
        recorded::trace(file, text.as_bytes(), &Reading::default()).expect("a trace")
    };
    let trace = read(format!("{began}{unused}"));
    assert_eq!(requests(&trace, 0), [(1, 3000)], "what is usual");
    // As it was weighed, though its definition was told once more.
    assert_eq!(trace.functions()[0].memory_bytes, 2 << 20);
    let other = began.replace("\"renew\":false", "\"renew\":true");
    assert_eq!(read(other).functions()[0].memory_bytes, 1 << 20);
}
