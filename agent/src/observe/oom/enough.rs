//! What limit would have been enough, and how that was found.
//!
//! What was charged when the kernel gave up is what reclaim could not get back: with what was
//! asked for on top it is the least that would have done. How much more is wanted depends on how
//! fast the usage grew: a limit cannot hold a leak, only put the kill off.

use serde::Serialize;

use super::limit::Limit;
use super::model::{Absent, Capture, Constraint, Kill, Known, Reason};
use super::sentence::size;

/// Room beyond the least, as a share of it, where the usage did not grow: a quarter.
const ROOM: u64 = 4;
/// For how long a growth is allowed for, seconds.
const LONGER: u64 = 60;
/// Growth, bytes a second, below which the usage counts as level: it would take more than a day
/// to fill a gigabyte.
const LEVEL: f64 = 12_000.0;
/// Limits are rounded up to this.
const STEP: u64 = 1 << 20;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Enough {
    /// Which limit was hit.
    pub limit: Limit,
    /// What this very request needed: bytes charged and bytes asked for.
    pub at_least_bytes: u64,
    /// A limit to try, bytes, in whole mebibytes.
    pub try_bytes: u64,
    /// How that was found.
    pub basis: Basis,
    /// The same, for people.
    pub because: String,
}

/// How a limit was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The usage was growing: the limit lasts a minute longer at that rate.
    Growth,
    /// The usage was growing so fast that it would have doubled within a minute: twice the least.
    Burst,
    /// The usage was level: the least and a quarter.
    Level,
    /// Nobody saw whether it grew: the least and a quarter.
    Unknown,
}

/// What would have been enough for `capture`, or why that cannot be said.
pub fn enough(capture: &Capture) -> Result<Enough, Absent> {
    if capture.kill.constraint != Constraint::Cgroup {
        let why = "it was no cgroup's limit that was hit";
        return Err(Absent::new(Reason::NotApplicable, why));
    }
    let limit = Limit::hit(&capture.kill);
    let Known::Value(usage) = limit.usage(&capture.kill) else {
        let why = "what the cgroup used at the kill is not known";
        return Err(Absent::new(Reason::NotTold, why));
    };
    let asked = capture.kill.asked_bytes.value().copied().unwrap_or(0);
    let at_least_bytes = usage.saturating_add(asked);
    let before = capture.before.value();
    // Of memory alone, which is all that was watched: what went to swap is not in it.
    let growth = before
        .filter(|_| !is_in_swap(&capture.kill, limit))
        .and_then(|before| before.growth.value().copied());
    let room = at_least_bytes.saturating_add(at_least_bytes / ROOM);
    let (basis, wanted, mut because) = match growth {
        Some(rate) if whole(rate).saturating_mul(LONGER) > at_least_bytes => {
            let rate = whole(rate);
            let because = format!(
                "the usage grew by {} a second until the kill: twice as much lasts {} s longer. \
                 Where it would have levelled off cannot be told from so short a rise; if it never \
                 does it is a leak, which no limit holds",
                size(rate),
                at_least_bytes / rate.max(1),
            );
            (Basis::Burst, at_least_bytes.saturating_mul(2), because)
        }
        Some(rate) if rate > LEVEL => {
            let rate = whole(rate);
            let more = rate.saturating_mul(LONGER);
            let because = format!(
                "the usage grew by {} a second until the kill: this lasts {LONGER} s longer. If it \
                 never levels off it is a leak, which no limit holds",
                size(rate)
            );
            (Basis::Growth, at_least_bytes.saturating_add(more), because)
        }
        Some(_) => (
            Basis::Level,
            room,
            "the usage was level: what was charged and asked for, and a quarter of it".to_owned(),
        ),
        None => (
            Basis::Unknown,
            room,
            "what was charged and asked for, and a quarter of it; whether the usage was still \
             growing was not seen"
                .to_owned(),
        ),
    };
    let try_bytes = wanted.checked_next_multiple_of(STEP).unwrap_or(wanted);
    if let Some(remark) = other_limit(&capture.kill, limit, try_bytes) {
        because.push_str(remark);
    }
    Ok(Enough {
        limit,
        at_least_bytes,
        try_bytes,
        basis,
        because,
    })
}

/// Whether part of what was charged to `limit` was in swap.
fn is_in_swap(kill: &Kill, limit: Limit) -> bool {
    let memory = kill.usage_bytes.value().copied().unwrap_or(0);
    // What CPUs have taken in advance is counted for both, but not at one moment.
    let more = limit.usage(kill).value().copied().unwrap_or(0);
    limit == Limit::MemoryAndSwap && more.saturating_sub(memory) > STEP
}

/// What to do about the other one of v1's limits, if `limit` is set to `bytes`.
fn other_limit(kill: &Kill, limit: Limit, bytes: u64) -> Option<&'static str> {
    let of = |limit: Limit| limit.bytes(kill).value().copied();
    match limit {
        Limit::Memory if kill.swap_with_memory => {
            let is_below = of(Limit::MemoryAndSwap).is_some_and(|both| both < bytes);
            is_below.then_some(
                ". The limit of memory and swap (memory.memsw.limit_in_bytes) is below that: it \
                 has to be raised first",
            )
        }
        Limit::Memory => None,
        Limit::MemoryAndSwap if of(Limit::Memory) == of(limit) => Some(
            ". This is the limit of memory and swap (memory.memsw.limit_in_bytes); that of memory \
             is the same and has to be raised, too",
        ),
        Limit::MemoryAndSwap => {
            Some(". This is the limit of memory and swap (memory.memsw.limit_in_bytes)")
        }
    }
}

/// A positive rate in whole bytes.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is positive, and the cast goes to the nearest end where it does not fit"
)]
const fn whole(rate: f64) -> u64 {
    rate as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::oom::samples;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_growth_is_allowed_for() {
        let growing = |rate: f64| {
            let mut capture = samples::whole();
            if let Known::Value(before) = &mut capture.before {
                before.growth = Known::Value(rate);
            }
            enough(&capture).expect("an answer")
        };
        let fast = growing(2.0 * 1_048_576.0);
        assert_eq!((fast.basis, fast.try_bytes), (Basis::Burst, 129 * MIB));
        assert!(
            fast.because.contains("lasts 32 s longer"),
            "{}",
            fast.because
        );
        let enough = growing(1_048_576.0);
        assert_eq!(enough.basis, Basis::Growth);
        assert_eq!(enough.at_least_bytes, 64 * MIB + 4096);
        // 1 MiB/s for a minute, rounded up.
        assert_eq!(enough.try_bytes, (64 + 60 + 1) * MIB);
        assert!(
            enough.because.contains("1 MiB a second"),
            "{}",
            enough.because
        );
    }

    #[test]
    fn without_growth_there_is_a_quarter_of_room() {
        let mut capture = samples::whole();
        if let Known::Value(before) = &mut capture.before {
            before.growth = Known::Value(-5.0);
        }
        let level = enough(&capture).expect("an answer");
        assert_eq!((level.basis, level.try_bytes), (Basis::Level, 81 * MIB));
        capture.before = Known::absent(Reason::NotArmed, "");
        let unseen = enough(&capture).expect("an answer");
        assert_eq!((unseen.basis, unseen.try_bytes), (Basis::Unknown, 81 * MIB));
    }

    #[test]
    fn what_memory_and_swap_used_counts_where_they_have_a_limit_together() {
        let mut capture = samples::whole();
        capture.kill.swap_with_memory = true;
        let mut of = |usage: u64, limit: u64| {
            capture.kill.swap_usage_bytes = Known::Value(usage * MIB);
            capture.kill.swap_limit_bytes = Known::Value(limit * MIB);
            enough(&capture).expect("an answer")
        };
        // Half of it is in swap; how fast that grew nobody saw.
        let swapped = of(128, 128);
        assert_eq!(swapped.limit, Limit::MemoryAndSwap);
        assert_eq!(swapped.at_least_bytes, 128 * MIB + 4096);
        assert_eq!(
            (swapped.basis, swapped.try_bytes),
            (Basis::Unknown, 161 * MIB)
        );
        assert!(swapped.because.ends_with("(memory.memsw.limit_in_bytes)"));
        // Nothing is in swap, and both limits are the same.
        let same = of(64, 64);
        assert_eq!(
            (same.limit, same.try_bytes),
            (Limit::MemoryAndSwap, same_as_memory())
        );
        assert!(same.because.ends_with("has to be raised, too"), "{same:?}");
        // The limit of memory was hit, and the other one is in the way of a higher one.
        let in_the_way = of(64, 65);
        assert_eq!(in_the_way.limit, Limit::Memory);
        assert!(
            in_the_way.because.ends_with("has to be raised first"),
            "{in_the_way:?}"
        );
        assert!(!of(64, 1024).because.contains("memsw"));
    }

    fn same_as_memory() -> u64 {
        enough(&samples::whole()).expect("an answer").try_bytes
    }

    #[test]
    fn where_no_limit_was_hit_none_is_named() {
        let absent = enough(&samples::bare()).expect_err("none");
        assert_eq!(absent.reason, Reason::NotApplicable);
        let mut capture = samples::bare();
        capture.kill.constraint = Constraint::Cgroup;
        assert_eq!(enough(&capture).expect_err("none").reason, Reason::NotTold);
    }
}
