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

use crate::inject::{Happened, LIMITS, MEMORY, is_watched};

/// What may pass until a fault is seen, written down, and acted upon.
const SEEN: Duration = Duration::from_secs(3);

pub(crate) fn wrong(
    directory: &Path,
    requests: &[Request],
    happened: &Happened,
) -> Result<Vec<String>> {
    let files = Files::open(directory).context("open the audit")?;
    let (lines, found) = files.read().context("read the audit")?;
    let lines: Vec<Line> = lines.into_iter().map(|(line, _)| line).collect();
    let mut wrong: Vec<String> = found.iter().map(|found| format!("{found:?}")).collect();
    wrong.extend(decisions(&lines, requests));
    wrong.extend(outcomes(&lines, requests));
    wrong.extend(limits(&lines));
    wrong.extend(unseen(&lines, happened));
    Ok(wrong)
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

/// Each action has an outcome; who was answered by the outcome was.
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
        open.into_iter()
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
    let killed = killed.filter(|killed| !happened.was_blind(killed.at, killed.at + SEEN));
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
