//! What must be so of the audit: all that was done is in it, and within its limits.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hearth::heal::Mode;
use hearth::heal::audit::{Entry, Files, Line, Resolved};
use hearth::heal::budget::WITHIN;
use hearth::heal::decide::{Action, REPLAYS};
use hearth_tests::load::{End, Request};

use crate::happened::Happened;
use crate::scene::{LIMITS, MEMORY, is_watched};

/// What may pass until a fault is seen, written down, and acted upon.
const SEEN: Duration = Duration::from_secs(3);

/// Its lines; what is not whole is `wrong`.
pub(crate) fn read(directory: &Path, wrong: &mut Vec<String>) -> Result<Vec<Line>> {
    let files = Files::open(directory).context("open the audit")?;
    let (lines, found) = files.read().context("read the audit")?;
    wrong.extend(found.iter().map(|found| format!("{found:?}")));
    Ok(lines.into_iter().map(|(line, _)| line).collect())
}

/// What is wrong with what is in it, and what is missing; `done` is how often each nonce was.
pub(crate) fn wrong(
    lines: &[Line],
    requests: &[Request],
    happened: &Happened,
    done: &BTreeMap<String, u32>,
) -> Vec<String> {
    let mut wrong = decisions(lines, requests);
    wrong.extend(outcomes(lines, requests));
    wrong.extend(limits(lines));
    wrong.extend(unseen(lines, happened));
    wrong.extend(unwritten(lines, requests, happened, done));
    wrong
}

/// Requests that were done again, and limits that were raised, without a word.
fn unwritten(
    lines: &[Line],
    requests: &[Request],
    happened: &Happened,
    done: &BTreeMap<String, u32>,
) -> Vec<String> {
    let mut replays = BTreeMap::<String, u32>::new();
    let mut raised = BTreeSet::new();
    for line in lines {
        let Entry::Decision(decided) = &line.entry else {
            continue;
        };
        if decided.mode != Mode::Act {
            continue;
        }
        for action in &decided.decision.actions {
            match action {
                Action::Replay { .. } => {
                    let id = decided.fault.request.map(|request| request.id.to_string());
                    *replays.entry(id.unwrap_or_default()).or_default() += 1;
                }
                Action::Raise { to_bytes, .. } => {
                    let function = decided.fault.function.to_string();
                    raised.insert((function, u64::from(decided.fault.version), *to_bytes));
                }
                Action::Replace { .. } => {}
            }
        }
    }
    let mut wrong = Vec::new();
    for request in requests {
        let times = done.get(&request.nonce).copied().unwrap_or(0);
        let sent = u32::try_from(request.ids.len()).unwrap_or(u32::MAX);
        let again: u32 = request.ids.iter().filter_map(|id| replays.get(id)).sum();
        if times > sent + again {
            wrong.push(format!(
                "done {times} times, and {again} replays decided: {request:?}"
            ));
        }
    }
    for seen in &happened.limits {
        if seen.2 != MEMORY.0 && !raised.contains(seen) {
            wrong.push(format!("raised, and not in the audit: {seen:?}"));
        }
    }
    wrong
}

/// Who asked, by the ids under which they did.
fn by_id(requests: &[Request]) -> BTreeMap<&str, &Request> {
    let ids = |request| -> Vec<(&str, &Request)> {
        let request: &Request = request;
        request
            .ids
            .iter()
            .map(|id| (id.as_str(), request))
            .collect()
    };
    requests.iter().flat_map(ids).collect()
}

fn decisions(lines: &[Line], requests: &[Request]) -> Vec<String> {
    let asked = by_id(requests);
    let mut wrong = Vec::new();
    for line in lines {
        let Entry::Decision(decided) = &line.entry else {
            continue;
        };
        let watched = is_watched(decided.fault.function.as_str());
        let mut is_right = (decided.mode == Mode::Observe) == watched;
        for action in &decided.decision.actions {
            is_right &= match action {
                Action::Raise {
                    from_bytes,
                    to_bytes,
                    ..
                } => (MEMORY.0..*to_bytes).contains(from_bytes) && *to_bytes <= MEMORY.1,
                Action::Replay { replay } => {
                    let id = decided.fault.request.map(|request| request.id.to_string());
                    let request = id.and_then(|id| asked.get(id.as_str()).copied());
                    // One that is not known was sent to go wrong.
                    *replay <= REPLAYS && request.is_none_or(|request| request.idempotent)
                }
                Action::Replace { .. } => true,
            };
        }
        if !is_right {
            wrong.push(format!("decided: {line:?}"));
        }
    }
    wrong
}

/// Each action has an outcome, and who was answered by one was.
fn outcomes(lines: &[Line], requests: &[Request]) -> Vec<String> {
    let asked = by_id(requests);
    let mut open = BTreeSet::new();
    let mut wrong = Vec::new();
    for line in lines {
        match &line.entry {
            Entry::Decision(decided) if decided.mode == Mode::Act => {
                let actions = decided.decision.actions.iter();
                open.extend(actions.map(|action| (line.seq, action.word().to_owned())));
            }
            Entry::Outcome(outcome) => {
                if is_watched(outcome.function.as_str()) && outcome.outcome == Resolved::Done {
                    wrong.push(format!("done, and only watched: {line:?}"));
                }
                open.remove(&(outcome.of, outcome.action.clone()));
                let id = outcome.request.map(|request| request.to_string());
                let request = id.and_then(|id| asked.get(id.as_str()).copied());
                if let Some(request) = request
                    && outcome.outcome == Resolved::Done
                    && !matches!(request.end, End::Right { .. })
                {
                    wrong.push(format!("answered by {line:?}, and not by {request:?}"));
                }
            }
            _ => {}
        }
    }
    wrong.extend(
        open.iter()
            .map(|open| format!("without an outcome: {open:?}")),
    );
    wrong
}

/// What was done in the time of the limits.
fn limits(lines: &[Line]) -> Vec<String> {
    let mut done: BTreeMap<String, Vec<Duration>> = BTreeMap::new();
    let mut wrong = Vec::new();
    for line in lines {
        let Entry::Decision(decided) = &line.entry else {
            continue;
        };
        if decided.mode != Mode::Act || decided.decision.actions.is_empty() {
            continue;
        }
        let at = line.at.since(hearth::time::Boottime(0)).as_duration();
        let name = decided.fault.function.to_string();
        for (whose, limit) in [(name, LIMITS.0), ("the node".to_owned(), LIMITS.1)] {
            let all = done.entry(whose.clone()).or_default();
            all.retain(|earlier| at.saturating_sub(*earlier) < WITHIN);
            all.push(at);
            if all.len() > limit as usize {
                wrong.push(format!("{whose} had {} actions: {line:?}", all.len()));
            }
        }
    }
    wrong
}

/// Sandboxes that were killed, and nothing was decided about it.
fn unseen(lines: &[Line], happened: &Happened) -> Vec<String> {
    let lost = lines.iter().filter_map(|line| match &line.entry {
        Entry::Decision(decided) => Some(decided.fault.lost.as_ref()?.sandbox.to_string()),
        _ => None,
    });
    let lost: BTreeSet<String> = lost.collect();
    let killed = happened.killed.iter();
    let killed = killed.filter(|killed| !is_watched(&killed.function));
    let killed = killed.filter(|killed| {
        let (from, until) = (killed.at, killed.at + SEEN);
        !happened.was_blind(from, until) && !happened.was_deployed(&killed.function, from, until)
    });
    killed
        .filter(|killed| !lost.contains(&killed.sandbox))
        .map(|killed| {
            format!(
                "not in the audit: {} of {}",
                killed.sandbox, killed.function
            )
        })
        .collect()
}
