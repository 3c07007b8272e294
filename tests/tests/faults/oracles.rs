//! What must be so in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use hearth_tests::load::{End, Request};
use hearth_tests::node::PATIENCE;
use hearth_tests::whole::Whole;

use crate::happened::Happened;

/// How a request fails whose time is over.
const TIMED_OUT: &str = "Sandbox.Timedout";

/// A request that has so long an agent is answered.
const ENOUGH: Duration = Duration::from_secs(10);

/// What is wrong with what became of the requests.
pub(crate) fn answers(requests: &[Request], happened: &Happened, began: Instant) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut hung = Vec::new();
    let mut counts = BTreeMap::<&str, BTreeSet<u64>>::new();
    for request in requests {
        match &request.end {
            End::Wrong(why) => wrong.push(format!("wrong: {why}")),
            End::Right { sandbox, count } => {
                // A sandbox takes one request at a time, and its function counts them.
                if !counts.entry(sandbox).or_default().insert(*count) {
                    wrong.push(format!("{sandbox} told {count} twice"));
                }
            }
            End::Refused(_) => {}
            // Nothing is done about what cannot be written down; its client is told.
            End::Failed(_) if happened.was_blind(request.began, request.began + request.took) => {}
            // Nobody was there to answer it for half of its time.
            End::Late(_) if happened.seen(request.began, request.began + request.took) < ENOUGH => {
            }
            // Who is stopped has not ended; that it does not answer shows when its time is over.
            End::Failed(why) if request.idempotent && why.starts_with(TIMED_OUT) => {
                hung.push(request);
            }
            End::Late(_) if request.idempotent => hung.push(request),
            End::Failed(why) | End::Unknown(why) | End::Late(why) => {
                if request.idempotent {
                    wrong.push(format!(
                        "lost: {} after {:?}, {}: {why}",
                        request.function,
                        request.took,
                        request.ids.join(" ")
                    ));
                }
            }
        }
    }
    if hung.len() > happened.stopped.len() {
        let when = |at: Instant| format!("{:.1?}", at - began);
        wrong.extend(hung.iter().map(|one| {
            let (began, end) = (when(one.began), when(one.began + one.took));
            let (function, ids) = (&one.function, one.ids.join(" "));
            format!(
                "hung: {function} from {began} until {end}, {ids}: {:?}",
                one.end
            )
        }));
        wrong.extend(happened.stopped.iter().map(|stopped| {
            let (sandbox, function) = (&stopped.sandbox, &stopped.function);
            format!("stopped: {sandbox} of {function} at {}", when(stopped.at))
        }));
    }
    wrong
}

/// What the machine has that it had not before.
pub(crate) fn machine(node: &str, before: &Whole) -> Result<Vec<String>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let more = Whole::now(node)?.more_than(before);
        // Namespaces of a process that others start just now have another process the next time.
        thread::sleep(Duration::from_millis(200));
        let again = Whole::now(node)?.more_than(before);
        let left: Vec<String> = more.into_iter().filter(|one| again.contains(one)).collect();
        if left.is_empty() || Instant::now() > deadline {
            return Ok(left.iter().map(|one| format!("left: {one}")).collect());
        }
    }
}
