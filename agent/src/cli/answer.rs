//! The answer in words: where the time went, why, and what is not known.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use super::bar::{Cause, split};
use super::figures::{bytes, count, duration, percent};
use super::waits;
use crate::observe::cold_start::{ColdStart, Phase, PhaseName, Ready};
use crate::observe::identity::Identity;

/// Where the time of a start went and why, a paragraph an item: how it ended where that was
/// not ready, the longest phase, its causes, and its costs.
#[must_use]
pub fn answer(start: &ColdStart) -> Vec<String> {
    let mut paragraphs = Vec::new();
    paragraphs.extend(unready(start));
    if let Some(longest) = start.phases.iter().max_by_key(|phase| phase.duration()) {
        paragraphs.push(format!(
            "{} {}",
            longest_phase(start, longest),
            causes(longest)
        ));
        paragraphs.extend(waits::sentences(start));
        paragraphs.extend(costs(longest));
    }
    paragraphs
}

/// What a reader must know of the figures: merged phases, what is not measured, what was lost.
#[must_use]
pub fn notes(start: &ColdStart) -> Vec<String> {
    let mut notes: Vec<String> = start.phases.iter().filter_map(merged).collect();
    notes.extend(unmeasured(start));
    if start.parts_dropped > 0 {
        notes.push(format!(
            "{} more parts are not shown: a start keeps a limited number of them.",
            count(start.parts_dropped)
        ));
    }
    if start.lost > 0 {
        notes.push(format!(
            "{} records were lost while this start was open: phases may be merged and parts \
             missing for that reason alone.",
            count(start.lost)
        ));
    }
    notes
}

/// The shortest name that tells people who it is: the function, else the program, else the
/// process. As the node knows it: print it through [`super::terminal::printable`].
#[must_use]
pub fn name(identity: &Identity) -> String {
    let program = identity.argv0.as_deref().or(identity.exe.as_deref());
    if let Some(function) = &identity.function {
        return function.clone();
    }
    match program.map(|path| path.rsplit('/').next().unwrap_or(path)) {
        Some(base) if !base.is_empty() => base.to_owned(),
        _ => format!("pid {}", identity.pid),
    }
}

/// `ready (listen)`, `not ready`, `exited with status 1`.
#[must_use]
pub fn outcome(start: &ColdStart) -> String {
    match start.ready {
        Ready::NotReady => "not ready".to_owned(),
        Ready::Exited => ended(start),
        Ready::Exit => format!(
            "ready (exit{})",
            match start.exit_status {
                None | Some(0) => String::new(),
                Some(_) => format!(": {}", ended(start)),
            }
        ),
        ready => format!("ready ({})", ready.as_str()),
    }
}

fn ended(start: &ColdStart) -> String {
    let Some(status) = start.exit_status.map(ExitStatus::from_raw) else {
        return "exited".to_owned();
    };
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "exited".to_owned(),
    }
}

fn unready(start: &ColdStart) -> Option<String> {
    match start.ready {
        Ready::NotReady => Some(format!(
            "It was not ready when its deadline passed after {}. If it serves in another way \
             than by listening on TCP, name its ready rule.",
            duration(start.total_ns)
        )),
        Ready::Exited => Some(format!("It {} before it was ready.", ended(start))),
        _ => None,
    }
}

fn longest_phase(start: &ColdStart, phase: &Phase) -> String {
    let share = percent(phase.duration(), start.total_ns).unwrap_or_else(|| "0".to_owned());
    let (first, last) = ends(phase);
    format!(
        "{share} % of the time ({} of {}) went into {}, from {} to {}.",
        duration(phase.duration()),
        duration(start.total_ns),
        phase.label(),
        begins_with(first),
        ends_with(last, start.ready),
    )
}

fn causes(phase: &Phase) -> String {
    let mut shares = split(phase);
    shares.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
    let told: Vec<String> = shares
        .iter()
        .filter(|(cause, _)| *cause != Cause::Unmeasured)
        .map(|(cause, time)| {
            let share = percent(*time, phase.duration()).unwrap_or_default();
            format!("{} {share} % ({})", cause.word(), duration(*time))
        })
        .collect();
    match shares.first() {
        Some((Cause::Unmeasured, _)) if told.is_empty() => {
            "What it did in that time is not measured.".to_owned()
        }
        Some((Cause::Unmeasured, rest)) => {
            format!(
                "Of that, {}; {} are not measured.",
                told.join(", "),
                duration(*rest)
            )
        }
        Some((cause, _)) => format!("It was {}: {}.", told.join(", "), meaning(*cause)),
        None => "It took no time.".to_owned(),
    }
}

fn costs(phase: &Phase) -> Option<String> {
    let faults = |figure: u64| match figure {
        0 => "no page faults".to_owned(),
        1 => "1 page fault".to_owned(),
        figure => format!("{} page faults", count(figure)),
    };
    let minor = phase
        .minor_faults
        .map(|figure| format!("{} served from memory", faults(figure)));
    let major = phase
        .major_faults
        .map(|figure| format!("{} served from storage", faults(figure)));
    let read = phase.read_bytes.map(|read| match read {
        0 => "nothing read from storage".to_owned(),
        read => format!("{} read from storage", bytes(read)),
    });
    let told: Vec<String> = [minor, major, read].into_iter().flatten().collect();
    (!told.is_empty()).then(|| format!("{} cost {}.", phase.label(), told.join(", ")))
}

/// What the dominating cause means for whoever wants to be faster.
const fn meaning(cause: Cause) -> &'static str {
    match cause {
        Cause::Running => "chiefly work of its own, not waiting",
        Cause::Queued => {
            "chiefly runnable without a CPU, because others had it or a quota was used up"
        }
        Cause::Io => "chiefly waiting for storage",
        Cause::Blocked => {
            "chiefly waiting for something else: a lock, a timer, the network, another process"
        }
        Cause::Unmeasured => "chiefly not measured",
    }
}

/// First and last phase inside.
fn ends(phase: &Phase) -> (PhaseName, PhaseName) {
    let first = phase.merged.first().copied().unwrap_or(phase.name);
    let last = phase.merged.last().copied().unwrap_or(phase.name);
    (first, last)
}

const fn begins_with(name: PhaseName) -> &'static str {
    match name {
        PhaseName::Fetch => "the request",
        PhaseName::Create => "the opener",
        PhaseName::Wrapper => "the first execve of the workload",
        PhaseName::Exec => "its last execve",
        PhaseName::Link => "the image being in place",
        PhaseName::RuntimeInit => "the program's entry",
        PhaseName::UserInit => "the hand-over to user code",
    }
}

const fn ends_with(name: PhaseName, ready: Ready) -> &'static str {
    match name {
        PhaseName::Fetch => begins_with(PhaseName::Create),
        PhaseName::Create => begins_with(PhaseName::Wrapper),
        PhaseName::Wrapper => begins_with(PhaseName::Exec),
        PhaseName::Exec => begins_with(PhaseName::Link),
        PhaseName::Link => begins_with(PhaseName::RuntimeInit),
        PhaseName::RuntimeInit => begins_with(PhaseName::UserInit),
        PhaseName::UserInit => match ready {
            Ready::Exit | Ready::Exited => "its exit",
            Ready::NotReady => "the deadline",
            _ => "ready",
        },
    }
}

/// Why a merged phase is one, and what would cut it.
fn merged(phase: &Phase) -> Option<String> {
    let boundaries = phase.merged.get(1..).unwrap_or_default();
    let missing: Vec<&str> = boundaries.iter().map(|name| begins_with(*name)).collect();
    if missing.is_empty() {
        return None;
    }
    let uprobe = boundaries
        .iter()
        .any(|name| matches!(name, PhaseName::RuntimeInit | PhaseName::UserInit));
    let remedy = if uprobe {
        "Probes on a program are attached when its file is first seen, which may be too late \
         for that first start: start it once more. A program without a known hand-over keeps \
         these phases together."
    } else {
        "`hearth doctor` says what this kernel offers to see it."
    };
    Some(format!(
        "{} are one phase here. Not seen: {}. {remedy}",
        phase.label(),
        missing.join(", ")
    ))
}

/// Whether a phase lacks a figure.
type Lacks = fn(&Phase) -> bool;

/// What is not measured, of which phases, and how to get it.
fn unmeasured(start: &ColdStart) -> Option<String> {
    let kinds: [(&str, Lacks); 4] = [
        ("causes", |phase| known_causes(phase) == 0),
        ("causes other than queued", |phase| {
            known_causes(phase) == 1 && phase.queued_ns.is_some()
        }),
        ("page faults", |phase| {
            phase.minor_faults.is_none() || phase.major_faults.is_none()
        }),
        ("bytes read", |phase| phase.read_bytes.is_none()),
    ];
    // What the same phases lack is said in one breath.
    let mut groups: Vec<(Vec<String>, Vec<&str>)> = Vec::new();
    for (kind, absent) in kinds {
        let labels: Vec<String> = start
            .phases
            .iter()
            .filter(|phase| absent(phase))
            .map(Phase::label)
            .collect();
        if labels.is_empty() {
            continue;
        }
        match groups.iter_mut().find(|(same, _)| *same == labels) {
            Some((_, kinds)) => kinds.push(kind),
            None => groups.push((labels, vec![kind])),
        }
    }
    if groups.is_empty() {
        return None;
    }
    let told: Vec<String> = groups
        .into_iter()
        .map(|(labels, kinds)| {
            let whole = labels.len() == start.phases.len() && labels.len() > 1;
            let of = if whole {
                "any phase".to_owned()
            } else {
                labels.join(", ")
            };
            format!("{} of {of}", kinds.join(", "))
        })
        .collect();
    Some(format!(
        "Not measured: {}. Causes need the accounting of threads attached for the whole of a \
         phase, counts both marks of it. `hearth doctor` says what this kernel gives, and why \
         not more.",
        told.join("; ")
    ))
}

fn known_causes(phase: &Phase) -> usize {
    [
        phase.running_ns,
        phase.queued_ns,
        phase.io_ns,
        phase.blocked_ns,
    ]
    .into_iter()
    .flatten()
    .count()
}
