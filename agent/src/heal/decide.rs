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
mod tests;
