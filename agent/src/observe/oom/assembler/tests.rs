use hearth_abi::{
    COMM_BYTES, OOM_KERNEL_FRAMES, OOM_KILL_SOURCES, OOM_MEMORY_BYTES, OOM_NAME_BYTES,
    OOM_REGISTERS, OOM_THREAD_SOURCES, OOM_USER_FRAMES, OomConstraint, OomKillField, OomRecord,
    OomSource, OomTask, OomThreadField, oom_vma,
};

use super::*;
use crate::observe::oom::looker::Cgroups;
use crate::observe::oom::model::Constraint;

const AT: u64 = 1_000_000_000;
const PID: u32 = 50;

fn task(tid: u32) -> OomTask {
    let mut comm = [0; COMM_BYTES];
    comm[..4].copy_from_slice(b"shop");
    OomTask {
        tid,
        tgid: PID,
        start_boottime: 7,
        cgroup: 77,
        comm,
    }
}

fn kill(threads: u32) -> OomEvent {
    OomEvent::Kill(Box::new(OomKill {
        kind: OomRecord::Kill as u16,
        constraint: OomConstraint::Memcg as u16,
        cpu: 0,
        id: AT,
        group: 0,
        victim: task(PID),
        asker: task(PID),
        uid: 33,
        threads,
        memcg: 78,
        gfp: 0xcc0,
        order: 1,
        limit_pages: 4096,
        usage_pages: 4096,
        swap_limit_pages: i64::MAX as u64 >> 12,
        swap_usage_pages: 0,
        points: 9,
        total_pages: 4096,
        oom_score_adj: -5,
        flags: 0,
        rss_file_pages: 1,
        rss_anon_pages: 2,
        rss_shmem_pages: 3,
        swap_pages: 4,
        page_table_bytes: 5,
        total_vm_pages: 6,
        registers: std::array::from_fn(|index| index as u64),
        victim_frames: 1,
        asker_frames: u32::MAX,
        victim_stack: [9; OOM_KERNEL_FRAMES],
        asker_stack: [8; OOM_KERNEL_FRAMES],
        sources: [0; OOM_KILL_SOURCES],
    }))
}

fn thread(tid: u32, id: u64, flags: u16) -> OomEvent {
    let mut user_stack = [0; OOM_USER_FRAMES];
    user_stack[..2].copy_from_slice(&[0x1010, 0x9999]);
    OomEvent::Thread(Box::new(OomThread {
        kind: OomRecord::Thread as u16,
        flags,
        cpu: 0,
        id,
        boottime_ns: AT + u64::from(tid),
        task: task(tid),
        others: 0,
        exit_code: 9,
        registers: [0; OOM_REGISTERS],
        leaf: 0,
        user_frames: 2,
        kernel_frames: 0,
        user_stack,
        unmapped: [0b10, 0],
        kernel_stack: [0; OOM_KERNEL_FRAMES],
        sources: [0; OOM_THREAD_SOURCES],
    }))
}

fn memory(content: OomContent, tid: u32, text: &[u8], available: u64) -> OomEvent {
    let mut bytes = [0; OOM_MEMORY_BYTES];
    bytes[..text.len()].copy_from_slice(text);
    OomEvent::Memory(Box::new(OomMemory {
        kind: OomRecord::Memory as u16,
        content: content as u16,
        length: u32::try_from(text.len()).expect("short"),
        id: AT,
        tid,
        tgid: PID,
        start_boottime: 7,
        address: 0x7000,
        available,
        bytes,
    }))
}

fn vma(names: &[u8], flags: u16) -> OomEvent {
    let mut bytes = [0; OOM_NAME_BYTES];
    bytes[..names.len()].copy_from_slice(names);
    OomEvent::Vma(Box::new(OomVma {
        kind: OomRecord::Vma as u16,
        flags: oom_vma::FILE | flags,
        names_length: u32::try_from(names.len()).expect("short"),
        id: AT,
        tgid: PID,
        device: (8 << 20) | 1,
        start_boottime: 7,
        start: 0x1000,
        end: 0x2000,
        page_offset: 2,
        vm_flags: 5,
        inode: 1234,
        names: bytes,
    }))
}

fn end(recorded: u32, unrecorded: u32) -> OomEvent {
    OomEvent::End(Box::new(OomEnd {
        kind: OomRecord::End as u16,
        flags: 0,
        tgid: PID,
        id: AT,
        boottime_ns: AT + 9,
        start_boottime: 7,
        recorded,
        unrecorded,
    }))
}

fn around(_: &OomKill) -> Surroundings {
    let none = || "nothing is looked at here";
    Surroundings {
        victim_cgroup: Some("/shop/web".into()),
        asker_cgroup: None,
        cgroup: Some("/shop".into()),
        exe: Known::Value("/usr/bin/shop".into()),
        state: Known::absent(Reason::Gone, none()),
        before: Known::absent(Reason::NotArmed, none()),
        is_pending: false,
    }
}

/// What becomes of `events` that arrive at once, by the deadline and not much sooner.
fn assemble(events: impl IntoIterator<Item = OomEvent>) -> (Vec<Capture>, AssemblerStats) {
    let mut assembler = Assembler::new(About {
        mask: true,
        ..About::default()
    });
    let now = Boottime(AT);
    for event in events {
        assembler.accept(event, now, around);
    }
    assert!(assembler.advance(now, |at| at.0).is_empty(), "not at once");
    let captures = assembler.advance(after(now, DEADLINE), |at| at.0);
    let stats = assembler.stats();
    assert_eq!((stats.open, stats.bytes), (0, 0));
    (captures, stats)
}

#[test]
fn a_kill_and_its_threads_are_one_capture() {
    let (captures, stats) = assemble([
        kill(2),
        thread(51, AT, 0),
        memory(
            OomContent::CommandLine,
            51,
            b"/usr/bin/shop\0--key=abc\0",
            100,
        ),
        vma(b"shop\0bin\0usr\0", 0),
        thread(PID, AT, oom_thread::LAST),
        memory(OomContent::Stack, PID, &[0, 255], 2),
        end(2, 0),
    ]);
    let [capture] = &captures[..] else {
        panic!("one capture, not {captures:#?}");
    };
    assert_eq!((stats.kills, stats.unmatched, stats.repeated), (1, 0, 0));
    assert_eq!(capture.completeness, Completeness::Complete);
    assert_eq!(capture.id.as_str(), "19700101T000001.000Z-50");
    assert_eq!(capture.kill.constraint, Constraint::Cgroup);
    assert_eq!(capture.kill.limit_bytes.value(), Some(&(16 << 20)));
    assert_eq!(capture.kill.asked_bytes.value(), Some(&8192));
    let no_limit = capture.kill.swap_limit_bytes.why().expect("none");
    assert_eq!(no_limit.reason, Reason::NotApplicable);
    let victim = &capture.victim;
    let command = victim.command.value().expect("told");
    assert_eq!(command[..], ["/usr/bin/shop", "--key=***"]);
    assert_eq!(victim.command_cut_bytes, 76);
    assert_eq!(
        victim.cgroup.path.value().map(String::as_str),
        Some("/shop/web")
    );
    assert_eq!((capture.cgroup.id, victim.cgroup.id), (78, 77));
    assert_eq!(
        capture.asker.kernel_stack.value().expect("told").len(),
        OOM_KERNEL_FRAMES
    );

    let tids: Vec<_> = capture.threads.iter().map(|thread| thread.tid).collect();
    assert_eq!(tids, [PID, 51], "in order of time");
    // Of the other thread it was read, too, and its record did not come.
    let lost = capture.threads[1].stack_window.why().expect("none");
    assert_eq!(lost.reason, Reason::Lost);
    let thread = &capture.threads[0];
    assert_eq!(
        thread.stack_window.value().map(|window| &*window.bytes),
        Some("00ff")
    );
    let stack = thread.user_stack.value().expect("told");
    assert_eq!(stack[0].mapping, Known::Value(0));
    assert_eq!(
        stack[1].mapping.why().map(|absent| absent.reason),
        Some(Reason::NotApplicable)
    );
    let mapping = &capture.mappings[0].vma;
    assert_eq!((&*mapping.name, &*mapping.perms), ("/usr/bin/shop", "r-xp"));
    assert_eq!(
        (mapping.offset, mapping.file.map(|file| file.major)),
        (8192, Some(8))
    );
}

#[test]
fn records_in_any_order_give_the_same_capture() {
    let in_order = || {
        vec![
            kill(2),
            thread(51, AT, 0),
            vma(b"shop\0bin\0usr\0", 0),
            thread(PID, AT, 0),
            end(2, 0),
        ]
    };
    let (expected, _) = assemble(in_order());
    let mut events = in_order();
    for _ in 0..events.len() {
        events.rotate_left(1);
        assert_eq!(assemble(events.clone()).0, expected);
        let reversed: Vec<_> = events.iter().rev().cloned().collect();
        assert_eq!(assemble(reversed).0, expected);
    }
}

#[test]
fn a_thread_that_exits_before_its_kill_is_told_finds_it() {
    let (captures, stats) = assemble([thread(PID, 0, oom_thread::EARLY), kill(1), end(1, 0)]);
    assert_eq!(captures[0].completeness, Completeness::Complete);
    assert_eq!(stats.unmatched, 0);
    // Of another signal's victim nothing comes.
    let (captures, stats) = assemble([thread(PID, 0, oom_thread::EARLY)]);
    assert!(captures.is_empty());
    assert_eq!(stats.unmatched, 1);
}

#[test]
fn threads_and_kills_count_once() {
    let (captures, stats) = assemble([
        kill(1),
        kill(1),
        thread(PID, AT, 0),
        thread(PID, AT, 0),
        end(1, 0),
    ]);
    assert_eq!((captures.len(), captures[0].threads.len()), (1, 1));
    assert_eq!((stats.kills, stats.repeated), (1, 2));
}

#[test]
fn what_does_not_come_is_said_to_be_missing() {
    let (captures, _) = assemble([kill(3), thread(51, AT, 0), end(1, 2)]);
    let capture = &captures[0];
    assert_eq!(capture.completeness, Completeness::SomeThreads);
    assert_eq!(capture.threads_missing, 2);
    // Of the chosen thread there is what the kill itself told.
    let chosen = &capture.threads[0];
    assert!(!chosen.own_context && chosen.tid == PID);
    assert_eq!(chosen.registers.value().expect("told")["rip"].0, 16);
    assert_eq!(
        chosen.user_stack.why().map(|absent| absent.reason),
        Some(Reason::NotTold)
    );
    assert_eq!(
        capture.victim.command.why().map(|absent| absent.reason),
        Some(Reason::NotTold)
    );

    let (captures, _) = assemble([kill(1)]);
    assert_eq!(captures[0].completeness, Completeness::KillOnly);
    assert_eq!(captures[0].threads_missing, 1);
}

#[test]
fn each_source_becomes_a_reason() {
    let OomEvent::Kill(mut record) = kill(1) else {
        panic!("a kill")
    };
    record.sources[OomKillField::Usage as usize] = OomSource::NotOnThisKernel as u8;
    record.sources[OomKillField::Rss as usize] = OomSource::Approximate as u8;
    record.sources[OomKillField::Uid as usize] = 200;
    let OomEvent::Thread(mut of) = thread(PID, AT, 0) else {
        panic!("a thread")
    };
    of.sources[OomThreadField::UserStack as usize] = OomSource::Unreadable as u8;
    let (captures, _) = assemble([OomEvent::Kill(record), OomEvent::Thread(of)]);
    let capture = &captures[0];
    let reason = |why: Option<&super::super::Absent>| why.map(|absent| absent.reason);
    assert_eq!(reason(capture.kill.limit_bytes.why()), Some(Reason::Kernel));
    assert_eq!(reason(capture.victim.uid.why()), Some(Reason::Unreadable));
    assert_eq!(
        reason(capture.threads[0].user_stack.why()),
        Some(Reason::Unreadable)
    );
    assert_eq!(capture.victim.memory.anon_bytes.value(), Some(&8192));
    assert_eq!(capture.kill.inexact["rss"], "approximate");
}

#[test]
fn a_frame_without_a_mapping_says_whether_there_is_none() {
    let OomEvent::Thread(mut of) = thread(PID, AT, 0) else {
        panic!("a thread")
    };
    let second = |of: &OomThread| {
        let (captures, _) = assemble([kill(1), OomEvent::Thread(Box::new(*of))]);
        let stack = captures[0].threads[0].user_stack.value().expect("told");
        stack[1].mapping.why().map(|absent| absent.reason)
    };
    assert_eq!(second(&of), Some(Reason::NotApplicable));
    of.unmapped = [0; 2];
    assert_eq!(second(&of), Some(Reason::Lost), "its record did not come");
    of.sources[OomThreadField::Mappings as usize] = OomSource::Unreadable as u8;
    assert_eq!(second(&of), Some(Reason::Unreadable), "nobody could look");
}

#[test]
fn a_word_of_a_stack_that_is_an_address_of_data_is_no_code() {
    let OomEvent::Thread(mut of) = thread(PID, AT, 0) else {
        panic!("a thread")
    };
    of.unmapped = [0; 2];
    let OomEvent::Vma(mut data) = vma(b"app\0", 0) else {
        panic!("a mapping")
    };
    (data.start, data.end, data.vm_flags) = (0x9000, 0xa000, 3);
    let records = [
        kill(1),
        OomEvent::Thread(of),
        vma(b"app\0", 0),
        OomEvent::Vma(data),
    ];
    let (captures, _) = assemble(records);
    let stack = captures[0].threads[0].user_stack.value().expect("told");
    assert_eq!(stack[0].mapping, Known::Value(0));
    let why = stack[1].mapping.why().map(ToString::to_string);
    assert!(why.is_some_and(|why| why.contains("no code is mapped there")));
}

#[test]
fn names_that_were_cut_show_it() {
    let (captures, _) = assemble([kill(1), vma(b"app\0deep\0", oom_vma::NAMES_CUT)]);
    assert_eq!(captures[0].mappings[0].vma.name, ".../deep/app");
}

#[test]
fn open_captures_and_what_waits_are_bounded() {
    let mut assembler = Assembler::new(About::default());
    let mut captures = Vec::new();
    for n in 0..1000_u32 {
        let OomEvent::Kill(mut record) = kill(1) else {
            panic!("a kill")
        };
        record.id += u64::from(n);
        record.victim.tgid += n;
        assembler.accept(OomEvent::Kill(record), Boottime(AT), around);
        for tid in 0..20 {
            assembler.accept(thread(tid, 5, 0), Boottime(AT), around);
        }
        captures.extend(assembler.advance(Boottime(AT), |at| at.0));
        let stats = assembler.stats();
        assert!(stats.open <= OPEN && stats.bytes <= BYTES, "{stats:?}");
    }
    let hurried = captures.len() as u64;
    captures.extend(assembler.advance(Boottime(u64::MAX), |at| at.0));
    let stats = assembler.stats();
    assert_eq!(
        (captures.len(), stats.kills, stats.hurried),
        (1000, 1000, hurried)
    );
    assert_eq!((stats.unmatched, stats.bytes), (20_000, 0));
}

#[test]
fn a_capture_waits_for_what_is_read_of_its_cgroup_and_not_for_ever() {
    let now = Boottime(AT);
    let begun = || {
        let mut assembler = Assembler::new(About::default());
        assembler.accept(kill(1), now, |kill| Surroundings {
            is_pending: true,
            cgroup: None,
            ..around(kill)
        });
        assembler.accept(thread(PID, AT, oom_thread::LAST), now, |_| {
            unreachable!("only a kill has surroundings")
        });
        let soon = assembler.advance(after(now, GRACE), |at| at.0);
        assert!(soon.is_empty(), "it is still being looked at");
        assembler
    };
    let place = |path: &str| (77, Some(path.to_owned()));
    let mut assembler = begun();
    assembler.looked(Looked {
        key: (AT, PID),
        cgroups: Cgroups {
            victim: place("/victim"),
            asker: place("/asker"),
            concerned: place("/concerned"),
        },
        state: Known::absent(Reason::Gone, "removed"),
    });
    let captures = assembler.advance(after(now, GRACE), |at| at.0);
    let [capture] = &captures[..] else {
        panic!("one capture, not {captures:#?}");
    };
    let path = capture.cgroup.path.value();
    assert_eq!(path.map(String::as_str), Some("/concerned"));
    assert_eq!(
        capture.state.why().map(|absent| absent.reason),
        Some(Reason::Gone)
    );
    let late = begun().advance(after(now, DEADLINE), |at| at.0);
    assert_eq!(late.len(), 1);
}
