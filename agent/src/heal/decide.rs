//! What is to be done about a fault: a function of what is known, and of nothing else.

use std::fmt::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::fault::{Fault, Interrupted, Mode, What};
use super::memory::NodeMemory;
use crate::observe::oom::sentence::size;

/// A raised limit is at least this much above what was used.
const RAISE_BYTES: u64 = 100 << 20;
/// And at least this many fifths of it.
const RAISE_FIFTHS: u64 = 6;
/// Limits are whole pages: what is written is what is read back.
const PAGE: u64 = 4096;
/// Of the node's memory, what is left free by a raised limit: this much at least,
const MARGIN_BYTES: u64 = 64 << 20;
/// and one part of so many.
const MARGIN_PART: u64 = 20;
/// How often one request is given to another sandbox.
pub const REPLAYS: u32 = 2;

/// What the function's definition says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Whether anything is done.
    pub mode: Mode,
    /// The memory that it has by its definition.
    pub memory: u64,
    /// The most that it may be given.
    pub memory_max: u64,
    /// Whether a request may be done twice.
    pub idempotent: bool,
    /// How long a start of it may take.
    pub start: Duration,
}

/// How the pool of the function is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolNow {
    /// How long it is left alone after this fault.
    pub pause: Duration,
    /// Its instances, the lost one among them.
    pub instances: u32,
    /// The memory that all sandboxes of the node may have together, where that is bounded.
    pub budget: Option<u64>,
}

/// What else is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The memory that its sandboxes have now: by definition, or raised.
    pub limit: u64,
    /// How its pool is.
    pub pool: PoolNow,
    /// Whether the function may have one more action now; else how many it had in that time.
    pub of_function: Result<(), Spent>,
    /// Whether the node may.
    pub of_node: Result<(), Spent>,
    /// The node's memory, where it is known.
    pub node: Option<NodeMemory>,
}

/// A budget that is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// So many,
    pub actions: u32,
    /// in the last so long.
    pub within: Duration,
}

/// What is to be done, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// That.
    pub actions: Vec<Action>,
    /// Why, in plain words.
    pub reason: String,
    /// What is not, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Refused>,
}

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// Another sandbox takes its place.
    Replace {
        /// Not before so long.
        after_ms: u64,
    },
    /// Another sandbox takes its place, and all that follow have more memory.
    Raise {
        /// Not before so long.
        after_ms: u64,
        /// The memory that they had.
        from_bytes: u64,
        /// What they get.
        to_bytes: u64,
    },
    /// The interrupted request is done again.
    Replay {
        /// For the how manieth time.
        replay: u32,
    },
}

impl Action {
    /// The word for it.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Replace { .. } => "replace",
            Self::Raise { .. } => "raise",
            Self::Replay { .. } => "replay",
        }
    }

    /// It in plain words.
    #[must_use]
    pub fn in_words(&self) -> String {
        let after = |after_ms: &u64| match after_ms / 1000 {
            0 => String::new(),
            seconds => format!(" after {seconds} s"),
        };
        match self {
            Self::Replace { after_ms } => format!("replace it{}", after(after_ms)),
            Self::Raise {
                after_ms,
                from_bytes,
                to_bytes,
            } => {
                let (from, to) = (size(*from_bytes), size(*to_bytes));
                format!("replace it{}, with {to} and not {from}", after(after_ms))
            }
            Self::Replay { replay: 1 } => "do the request again".to_owned(),
            Self::Replay { replay } => format!("do the request again (replay {replay})"),
        }
    }

    /// Whether another sandbox is to take the place of the one that is lost.
    #[must_use]
    pub const fn replaces(&self) -> bool {
        matches!(self, Self::Replace { .. } | Self::Raise { .. })
    }
}

/// What is not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The word for the action.
    pub action: String,
    /// Why not.
    pub why: String,
}

impl Decision {
    fn refuse(&mut self, action: &str, why: impl Into<String>) {
        self.refused.push(Refused {
            action: action.to_owned(),
            why: why.into(),
        });
    }

    /// What is to be done, in plain words.
    #[must_use]
    pub fn in_words(&self) -> String {
        let actions: Vec<String> = self.actions.iter().map(Action::in_words).collect();
        actions.join(", and ")
    }

    /// The memory that those get which follow, where that changes.
    #[must_use]
    pub fn raised(&self) -> Option<u64> {
        self.actions.iter().find_map(|action| match action {
            Action::Raise { to_bytes, .. } => Some(*to_bytes),
            _ => None,
        })
    }
}

/// What is to be done about `fault`.
#[must_use]
pub fn decide(fault: &Fault, terms: &Terms, known: &Known) -> Decision {
    let mut decision = Decision {
        reason: fault.what.sentence(),
        ..Decision::default()
    };
    for (whose, budget) in [
        ("the function", known.of_function),
        ("the node", known.of_node),
    ] {
        if let Err(Spent { actions, within }) = budget {
            let why = format!("{whose} had {actions} of them in the last {within:?}");
            decision.refuse("replace", why);
            return decision;
        }
    }
    let after_ms = millis(known.pool.pause);
    let raise = match fault.what {
        What::OomKilled {
            limit_bytes,
            peak_bytes,
        } => Some(raise(limit_bytes, peak_bytes, terms, known)),
        _ => None,
    };
    match raise {
        Some(Ok((to_bytes, why))) => {
            decision.reason = format!("{}; {why}", decision.reason);
            decision.actions.push(Action::Raise {
                after_ms,
                from_bytes: known.limit,
                to_bytes,
            });
        }
        not_raised => {
            if let Some(Err(why)) = not_raised {
                decision.refuse("raise", why);
            }
            decision.actions.push(Action::Replace { after_ms });
        }
    }
    if !known.pool.pause.is_zero() {
        let pause = known.pool.pause.as_secs_f64();
        let alone = format!("; as it keeps failing it is left alone for {pause:.0} s");
        decision.reason.push_str(&alone);
    }
    if let Some(request) = &fault.request {
        match replay(fault, request, terms, known.pool.pause) {
            Ok(replay) => decision.actions.push(Action::Replay { replay }),
            Err(why) => decision.refuse("replay", why),
        }
    }
    decision
}

/// The limit that those get which follow, and how it came about; or why it stays.
fn raise(
    had: u64,
    peak: Option<u64>,
    terms: &Terms,
    known: &Known,
) -> Result<(u64, String), String> {
    let limit = known.limit;
    if had < limit {
        let (had, limit) = (size(had), size(limit));
        return Err(format!(
            "it had {had}, and those that follow have {limit} already"
        ));
    }
    // At a kill for its own limit it had all of it, whatever was seen at the last look.
    let used = peak.unwrap_or(had);
    let more = used.saturating_add(RAISE_BYTES);
    let fifths = used.saturating_mul(RAISE_FIFTHS).div_ceil(5);
    let wanted = more.max(fifths).div_ceil(PAGE).saturating_mul(PAGE);
    if wanted <= limit {
        let (used, limit) = (size(used), size(limit));
        return Err(format!(
            "its limit is not what ran out: it used {used} of {limit}"
        ));
    }
    if limit >= terms.memory_max {
        let most = size(terms.memory_max);
        return Err(format!(
            "it has {most}, the most that its `memory_max` allows"
        ));
    }
    let Some(node) = known.node else {
        return Err("how much memory the node has left is not known".to_owned());
    };
    let margin = MARGIN_BYTES.max(node.total / MARGIN_PART);
    // Those beside it are started anew one day: there has to be enough for all of them.
    let all = u64::from(known.pool.instances.max(1));
    let have = limit.saturating_mul(all - 1);
    let left = node.available.saturating_sub(margin).saturating_add(have);
    let free = left.min(known.pool.budget.unwrap_or(u64::MAX)) / all / PAGE * PAGE;
    let raised = wanted.min(terms.memory_max).min(free);
    if raised <= limit {
        let (free, margin) = (size(node.available), size(margin));
        let mut why = format!("the node has {free} left, of which {margin} are kept free");
        if let Some(budget) = known.pool.budget {
            let _ = write!(why, ", sandboxes may have {} together", size(budget));
        }
        if all > 1 {
            let _ = write!(why, ", and {all} instances would grow");
        }
        return Err(why);
    }
    let mut why = format!("the next ones get {}", size(raised));
    if raised < wanted {
        let wanted = size(wanted);
        let by = if terms.memory_max <= free {
            "by its `memory_max`"
        } else {
            "as the node has no more to spare"
        };
        why = format!("{why} and not {wanted}, {by}");
    }
    Ok((raised, why))
}

/// Which time it is, or why it is not done again.
fn replay(
    fault: &Fault,
    request: &Interrupted,
    terms: &Terms,
    pause: Duration,
) -> Result<u32, String> {
    if !terms.idempotent {
        return Err("the function is not declared `idempotent`".to_owned());
    }
    if matches!(fault.what, What::Hung { .. }) || request.left_ms == 0 {
        return Err("its time is over".to_owned());
    }
    if request.replays >= REPLAYS {
        return Err(format!("it was done again {REPLAYS} times"));
    }
    if request.left_ms <= millis(pause) {
        return Err("its time is over before the function is tried again".to_owned());
    }
    Ok(request.replays + 1)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use hearth_runtime::id::RequestId;
    use proptest::prelude::*;

    use super::*;
    use crate::time::Boottime;

    const MIB: u64 = 1 << 20;

    fn fault(what: What) -> Fault {
        Fault {
            what,
            function: "shop".parse().expect("a name"),
            version: 1,
            instance: 3,
            lost: None,
            request: Some(Interrupted {
                id: RequestId::from_u128(7),
                left_ms: 20_000,
                replays: 0,
            }),
            at: Boottime(1),
        }
    }

    fn oom(peak: Option<u64>) -> Fault {
        oom_at(128 * MIB, peak)
    }

    fn oom_at(limit_bytes: u64, peak_bytes: Option<u64>) -> Fault {
        fault(What::OomKilled {
            limit_bytes,
            peak_bytes,
        })
    }

    fn terms() -> Terms {
        Terms {
            mode: Mode::Act,
            memory: 128 * MIB,
            memory_max: 4096 * MIB,
            idempotent: true,
            start: Duration::from_secs(10),
        }
    }

    fn known() -> Known {
        Known {
            limit: 128 * MIB,
            pool: PoolNow::default(),
            of_function: Ok(()),
            of_node: Ok(()),
            node: Some(NodeMemory {
                available: 8192 * MIB,
                total: 16_384 * MIB,
            }),
        }
    }

    fn left_alone(seconds: u64) -> PoolNow {
        PoolNow {
            pause: Duration::from_secs(seconds),
            ..PoolNow::default()
        }
    }

    fn crashed() -> Fault {
        fault(What::Crashed {
            how: "exit status 7".to_owned(),
        })
    }

    fn why(decision: &Decision, action: &str) -> String {
        let refused = decision.refused.iter().find(|one| one.action == action);
        refused.map(|one| one.why.clone()).unwrap_or_default()
    }

    #[test]
    fn the_raised_limit_is_a_hundred_mib_or_a_fifth_above_what_was_used() {
        for (limit, peak, raised) in [
            (128, Some(128), 228),
            (128, Some(120), 220),
            (128, None, 228),
            (1000, Some(1000), 1200),
            (500, Some(500), 600),
        ] {
            let known = Known {
                limit: limit * MIB,
                ..known()
            };
            let decision = decide(
                &oom_at(limit * MIB, peak.map(|peak| peak * MIB)),
                &terms(),
                &known,
            );
            assert_eq!(decision.raised(), Some(raised * MIB), "{limit} {peak:?}");
            assert_eq!(decision.actions.len(), 2, "{decision:?}");
        }
        // What is written to the cgroup is read back from it.
        let odd = decide(&oom(Some(128 * MIB - 1)), &terms(), &known());
        assert_eq!(odd.raised().map(|bytes| bytes % PAGE), Some(0));
    }

    #[test]
    fn it_is_capped_by_the_definition_and_by_what_the_node_has_left() {
        let by_definition = Terms {
            memory_max: 160 * MIB,
            ..terms()
        };
        let decision = decide(&oom(None), &by_definition, &known());
        assert_eq!(decision.raised(), Some(160 * MIB));
        assert!(
            decision.reason.contains("160 MiB and not 228 MiB"),
            "{}",
            decision.reason
        );
        let at_the_cap = Known {
            limit: 160 * MIB,
            ..known()
        };
        let decision = decide(&oom_at(160 * MIB, None), &by_definition, &at_the_cap);
        assert_eq!(decision.raised(), None);
        assert!(why(&decision, "raise").contains("memory_max"));
        // It is brought back with what it had.
        assert!(decision.actions[0].replaces(), "{decision:?}");

        let node = |available| Known {
            node: Some(NodeMemory {
                available: available * MIB,
                total: 1000 * MIB,
            }),
            ..known()
        };
        let decision = decide(&oom(None), &terms(), &node(264));
        assert_eq!(decision.raised(), Some(200 * MIB), "64 MiB are left");
        let decision = decide(&oom(None), &terms(), &node(192));
        assert_eq!(decision.raised(), None);
        assert!(why(&decision, "raise").contains("the node has 192 MiB left"));
        let unknown = Known {
            node: None,
            ..known()
        };
        let decision = decide(&oom(None), &terms(), &unknown);
        assert!(why(&decision, "raise").contains("not known"));
    }

    #[test]
    fn those_that_are_killed_together_raise_it_once() {
        let raised = Known {
            limit: 228 * MIB,
            ..known()
        };
        for peak in [None, Some(128 * MIB)] {
            let decision = decide(&oom(peak), &terms(), &raised);
            assert_eq!(decision.raised(), None);
            assert!(decision.actions[0].replaces(), "{decision:?}");
            let why = why(&decision, "raise");
            assert!(why.contains("have 228 MiB already"), "{why}");
        }
    }

    #[test]
    fn there_has_to_be_enough_for_all_instances_and_in_the_memory_of_functions() {
        let with = |available, instances, budget: Option<u64>| Known {
            node: Some(NodeMemory {
                available: available * MIB,
                total: 1000 * MIB,
            }),
            pool: PoolNow {
                instances,
                budget: budget.map(|budget| budget * MIB),
                ..PoolNow::default()
            },
            ..known()
        };
        // 64 MiB are kept free; three beside it have 128 MiB each, and grow, too.
        let decision = decide(&oom(None), &terms(), &with(64 + 336, 4, None));
        assert_eq!(decision.raised(), Some(180 * MIB));
        let decision = decide(&oom(None), &terms(), &with(64 + 128, 4, None));
        assert_eq!(decision.raised(), None);
        let told = why(&decision, "raise");
        assert!(told.contains("4 instances would grow"), "{told}");
        let decision = decide(&oom(None), &terms(), &with(900, 2, Some(300)));
        assert_eq!(decision.raised(), Some(150 * MIB));
        let decision = decide(&oom(None), &terms(), &with(900, 1, Some(100)));
        let told = why(&decision, "raise");
        assert!(told.contains("may have 100 MiB together"), "{told}");
    }

    #[test]
    fn where_the_node_ran_out_the_limit_stays() {
        let decision = decide(&oom(Some(20 * MIB)), &terms(), &known());
        assert_eq!(decision.raised(), None);
        let why = why(&decision, "raise");
        assert!(why.contains("20 MiB of 128 MiB"), "{why}");
    }

    #[test]
    fn a_request_is_done_again_only_where_that_is_allowed_and_of_use() {
        let again = |fault: &Fault, terms: &Terms, known: &Known| {
            let decision = decide(fault, terms, known);
            let does = decision.actions.contains(&Action::Replay { replay: 1 });
            (does, why(&decision, "replay"))
        };
        assert!(again(&crashed(), &terms(), &known()).0);
        let once = Terms {
            idempotent: false,
            ..terms()
        };
        let (does, why) = again(&crashed(), &once, &known());
        assert!(!does && why.contains("idempotent"), "{why}");
        let mut late = crashed();
        late.request = late.request.map(|request| Interrupted {
            left_ms: 0,
            ..request
        });
        let (does, why) = again(&late, &terms(), &known());
        assert!(!does && why.contains("over"), "{why}");
        let left_alone = Known {
            pool: left_alone(20),
            ..known()
        };
        let (does, why) = again(&crashed(), &terms(), &left_alone);
        assert!(!does && why.contains("before the function"), "{why}");
        let hung = fault(What::Hung { after_ms: 1000 });
        assert!(!again(&hung, &terms(), &known()).0);
        let mut often = crashed();
        often.request = often.request.map(|request| Interrupted {
            replays: REPLAYS,
            ..request
        });
        let (does, why) = again(&often, &terms(), &known());
        assert!(!does && why.contains("2 times"), "{why}");
    }

    #[test]
    fn a_budget_that_is_used_up_leaves_nothing_to_do() {
        let spent = Err(Spent {
            actions: 30,
            within: Duration::from_mins(10),
        });
        let of_function = Known {
            of_function: spent,
            ..known()
        };
        let of_node = Known {
            of_node: spent,
            ..known()
        };
        for (known, whose) in [(of_function, "the function"), (of_node, "the node")] {
            let decision = decide(&oom(None), &terms(), &known);
            assert!(decision.actions.is_empty());
            let why = why(&decision, "replace");
            assert!(why.contains(whose) && why.contains("30"), "{why}");
        }
    }

    #[test]
    fn the_pause_is_kept_and_said() {
        let known = Known {
            pool: left_alone(40),
            ..known()
        };
        let decision = decide(&crashed(), &terms(), &known);
        assert_eq!(decision.actions[0], Action::Replace { after_ms: 40_000 });
        assert!(decision.reason.contains("for 40 s"), "{}", decision.reason);
    }

    proptest! {
        #[test]
        fn no_limit_is_ever_lowered_or_above_a_cap(
            limit in 1..2_u64 << 40, peak in proptest::option::of(0..2_u64 << 40),
            most in 1..2_u64 << 40, available in 0..2_u64 << 40, total in 0..2_u64 << 40,
            instances in 0..50_u32,
        ) {
            let terms = Terms { memory_max: most, ..terms() };
            let node = Some(NodeMemory { available, total });
            let decision = {
                let pool = PoolNow { instances, ..PoolNow::default() };
                decide(&oom_at(limit, peak), &terms, &Known { limit, pool, node, ..known() })
            };
            if let Some(raised) = decision.raised() {
                prop_assert!(raised > limit && raised <= most);
                let more = raised + u64::from(instances.max(1) - 1) * (raised - limit);
                prop_assert!(more <= available.saturating_sub(MARGIN_BYTES));
            } else {
                prop_assert!(!why(&decision, "raise").is_empty());
            }
        }
    }
}
