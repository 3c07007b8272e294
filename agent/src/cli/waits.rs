//! What a start waited for locks of cgroups, in words.

use super::bar::union;
use super::figures::{duration, percent};
use crate::observe::cgroup_lock::in_words;
use crate::observe::cold_start::{ColdStart, PartSpan, Phase, Waited};
use crate::time::Nanos;

/// Locks and holders named in one sentence; the rest is in the waterfall and the JSON.
const NAMED: usize = 3;
/// Shares of a phase, in per cent, from which a line of its own is worth a word on it.
const WORTH: u64 = 10;

/// A sentence a phase that waited: `Of 9.00 ms in cgroup, 7.00 ms was waiting for cgroup_mutex
/// held by runc[1234].`
pub(super) fn sentences(start: &ColdStart) -> Vec<String> {
    start.phases.iter().flat_map(of_phase).collect()
}

fn of_phase(phase: &Phase) -> Vec<String> {
    let cgroup: Vec<&PartSpan> = phase
        .parts
        .iter()
        .filter(|part| part.name == "cgroup")
        .collect();
    let within = |wait: &&PartSpan| {
        let same = |part: &&&PartSpan| {
            part.pid == wait.pid && part.begin <= wait.begin && wait.begin <= part.end
        };
        cgroup.iter().find(same).is_some()
    };
    let (inside, outside): (Vec<_>, Vec<_>) = waits(phase).partition(within);
    let spans = cgroup.iter().map(|part| (part.begin, part.end));
    let whole = format!("Of {} in cgroup", duration(union(spans)));
    let length = format!("Of {} in {}", duration(phase.duration()), phase.label());
    [(whole, inside), (length, outside)]
        .into_iter()
        .filter(|(_, waits)| !waits.is_empty())
        .map(|(of, waits)| format!("{of}, {}.", told(&waits)))
        .collect()
}

fn waits(phase: &Phase) -> impl Iterator<Item = &PartSpan> {
    phase.parts.iter().filter(|part| part.waited.is_some())
}

/// `7.00 ms was waiting for A held by B, 1.20 ms for an RCU grace period`.
fn told(waits: &[&PartSpan]) -> String {
    let mut groups: Vec<(String, Vec<&PartSpan>)> = Vec::new();
    for wait in waits {
        let words = wait.waited.as_deref().map_or_else(String::new, words);
        match groups.iter_mut().find(|(same, _)| *same == words) {
            Some((_, group)) => group.push(wait),
            None => groups.push((words, vec![wait])),
        }
    }
    let mut groups: Vec<(Nanos, String)> = groups
        .into_iter()
        .map(|(words, group)| (length(&group), words))
        .collect();
    groups.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    let mut told: Vec<String> = groups
        .iter()
        .take(NAMED)
        .enumerate()
        .map(|(index, (length, words))| {
            let was = if index == 0 { " was waiting" } else { "" };
            format!("{}{was} for {words}", duration(*length))
        })
        .collect();
    if groups.len() > NAMED {
        told.push(format!("and {} more", groups.len() - NAMED));
    }
    told.join(", ")
}

fn words(waited: &Waited) -> String {
    let holder = waited
        .holder
        .as_ref()
        .map(|holder| format!("{}[{}]", holder.comm, holder.pid));
    in_words(waited.lock, holder.as_deref())
}

fn length(waits: &[&PartSpan]) -> Nanos {
    union(waits.iter().map(|wait| (wait.begin, wait.end)))
}

/// For a line: the lock that a phase waited for longest and how long, where it is worth it.
pub(super) fn chiefly(phase: &Phase) -> Option<(&'static str, Nanos)> {
    let all: Vec<&PartSpan> = waits(phase).collect();
    let of = |lock| {
        let same: Vec<&PartSpan> = all
            .iter()
            .copied()
            .filter(|wait| wait.label() == lock)
            .collect();
        length(&same)
    };
    let locks = all.iter().map(|wait| wait.label());
    let (lock, length) = locks
        .map(|lock| (lock, of(lock)))
        .max_by_key(|(_, length)| *length)?;
    let share = percent(length, phase.duration())?;
    let share = share.split('.').next().and_then(|whole| whole.parse().ok());
    share
        .is_some_and(|share: u64| share >= WORTH)
        .then_some((lock, length))
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn the_sentence_names_the_lock_and_its_holder() {
        let told = sentences(&samples::waited());
        assert_eq!(
            told,
            [
                "Of 9.00 ms in cgroup, 7.00 ms was waiting for cgroup_mutex held by runc[1234], \
                 400 µs for an RCU grace period.",
                "Of 30.1 ms in create, 200 µs was waiting for threadgroup_rwsem.",
            ]
        );
        assert!(sentences(&samples::container()).is_empty());
    }

    #[test]
    fn a_line_says_only_what_is_worth_it() {
        let start = samples::waited();
        let wanted = Some(("cgroup_mutex", Nanos(7_000_000)));
        assert_eq!(chiefly(&start.phases[0]), wanted);
        let mut little = start.phases[0].clone();
        little.parts.retain(|part| part.label() != "cgroup_mutex");
        assert_eq!(chiefly(&little), None);
        assert_eq!(chiefly(&samples::container().phases[0]), None);
    }
}
