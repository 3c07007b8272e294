//! However many threads end together, their process ends once.

use std::collections::{HashMap, HashSet};
use std::process::{Command, Stdio};
use std::time::Duration;

use hearth::kernel::event::Event;
use hearth::kernel::probes::{Probes, Request};
use hearth::kernel::table::Signal;
use hearth_abi::Kind;

/// Set in the processes that are killed.
const VICTIM: &str = "HEARTH_TEST_VICTIM";
const THREADS: usize = 24;
const PROCESSES: usize = 100;

fn victim() -> ! {
    for _ in 0..THREADS {
        // Busy on every CPU, so that they come to their ends at the same time.
        std::thread::spawn(|| {
            loop {
                std::thread::yield_now();
            }
        });
    }
    std::thread::sleep(Duration::from_millis(2));
    // All threads are told to end by this one, as by a kill.
    std::process::exit(0);
}

#[test]
fn a_process_ends_once() {
    if std::env::var_os(VICTIM).is_some() {
        victim();
    }
    let request = Request {
        every_exec: true,
        ..Request::of([Signal::ColdStart])
    };
    let (_probes, mut events) = Probes::start(&request).expect("probes; this takes root");
    let own = std::env::current_exe().expect("our own program");
    let mut killed = HashSet::new();
    let mut batch = Vec::new();
    for _ in 0..PROCESSES {
        let mut child = Command::new(&own)
            .args(["--exact", "a_process_ends_once"])
            .env(VICTIM, "1")
            .stdout(Stdio::null())
            .spawn()
            .expect("a process");
        killed.insert(child.id());
        child.wait().expect("its end");
        events.take(&mut batch);
    }
    std::thread::sleep(Duration::from_millis(200));
    events.take(&mut batch);
    let mut ends = HashMap::new();
    for event in &batch {
        if let Event::Mark(Kind::Exit, mark) = event
            && killed.contains(&mark.tgid)
        {
            *ends
                .entry((mark.tgid, mark.start_boottime))
                .or_insert(0_u32) += 1;
        }
    }
    assert_eq!(ends.len(), PROCESSES, "{ends:?}");
    assert!(ends.values().all(|&marks| marks == 1), "{ends:?}");
}
