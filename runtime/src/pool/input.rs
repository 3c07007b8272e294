//! What a fleet is told, and what it wants done.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{BackOff, Moment, Settings};
use crate::id::FunctionName;

/// One instance of a function, numbered by the fleet in the order in which they came.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Instance(pub u64);

/// One request, as who asks numbers it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Ticket(pub u64);

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "input", rename_all = "snake_case", deny_unknown_fields)]
pub enum Input {
    /// A function is there from now on, or has other settings.
    Deploy {
        /// Which.
        function: FunctionName,
        /// How its pool is to be.
        settings: Box<Settings>,
        /// Instances that there are run something older: each is retired as soon as it is idle.
        renew: bool,
    },
    /// A function is gone.
    Remove {
        /// Which.
        function: FunctionName,
    },
    /// Somebody asks for it.
    Arrive {
        /// For which.
        function: FunctionName,
        /// What the request is called from now on.
        ticket: Ticket,
        /// It is of no use to be served from then on.
        deadline: Moment,
    },
    /// A request whose instance was lost comes again, before all others. Nothing new is counted.
    Again {
        /// For which.
        function: FunctionName,
        /// Which request.
        ticket: Ticket,
        /// It is of no use to be served from then on.
        deadline: Moment,
    },
    /// Who asked does not wait any more.
    Cancel {
        /// For which.
        function: FunctionName,
        /// Which request.
        ticket: Ticket,
    },
    /// A function was there before the fleet, and was failing.
    Resumed {
        /// Which.
        function: FunctionName,
        /// How it is left alone.
        back_off: BackOff,
    },
    /// An instance was there before the fleet.
    Found {
        /// Of which.
        function: FunctionName,
        /// The number that [`Fleet::number`](super::Fleet::number) gave for it.
        instance: Instance,
        /// Whether it is at work.
        busy: bool,
    },
    /// An instance that was to be [started](Action::Start) waits for work.
    Started {
        /// Of which.
        function: FunctionName,
        /// Which.
        instance: Instance,
    },
    /// It could not be started, and nothing is left of it.
    NotStarted {
        /// Of which.
        function: FunctionName,
        /// Which.
        instance: Instance,
        /// The node had nothing to start it in: that is no failure of the function.
        #[serde(default, skip_serializing_if = "is_false")]
        without: bool,
        /// Another one takes its place, whether anybody asks for it or not, as soon as the function
        /// is not left alone.
        #[serde(default, skip_serializing_if = "is_false")]
        replace: bool,
        /// Those that are there have less memory than it needed, and those that start have more: idle
        /// ones make way for others, the rest as soon as they are done.
        #[serde(default, skip_serializing_if = "is_false")]
        outgrown: bool,
    },
    /// It is done with the request that it was [given](Action::Serve).
    Served {
        /// Of which.
        function: FunctionName,
        /// Which.
        instance: Instance,
        /// How long it took.
        work: Duration,
    },
    /// It waits for work again: the request that it was [given](Action::Serve) did not come to it.
    Unused {
        /// Of which.
        function: FunctionName,
        /// Which.
        instance: Instance,
    },
    /// It is gone: at work or not.
    Ended {
        /// Of which.
        function: FunctionName,
        /// Which.
        instance: Instance,
        /// Whether that was the function's own fault, and another one may end alike.
        fault: bool,
        /// Another one takes its place, whether anybody asks for it or not, as soon as the function
        /// is not left alone.
        #[serde(default, skip_serializing_if = "is_false")]
        replace: bool,
        /// Those that are there have less memory than it needed, and those that start have more: idle
        /// ones make way for others, the rest as soon as they are done.
        #[serde(default, skip_serializing_if = "is_false")]
        outgrown: bool,
    },
    /// A start was measured, from the claim until it was ready.
    Measured {
        /// Of which.
        function: FunctionName,
        /// How long it took.
        start: Duration,
    },
    /// Memory that goes when an idle instance goes.
    Weighed {
        /// Of which.
        function: FunctionName,
        /// Bytes.
        bytes: u64,
    },
    /// A schedule wants so many until it says otherwise.
    Scheduled {
        /// Of which.
        function: FunctionName,
        /// How many, beside what else asks for some.
        instances: u32,
    },
    /// The memory that all instances may have together.
    Budget {
        /// Bytes.
        bytes: u64,
    },
    /// Time has passed.
    Tick,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks like this")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// Start an instance; answered by [`Input::Started`] or [`Input::NotStarted`].
    Start {
        /// Of which.
        function: FunctionName,
        /// Its number from now on.
        instance: Instance,
    },
    /// Give the request to the instance; answered by [`Input::Served`],
    /// [`Input::Unused`] or [`Input::Ended`].
    Serve {
        /// Of which.
        function: FunctionName,
        /// Which request.
        ticket: Ticket,
        /// To this one.
        instance: Instance,
        /// What it had to wait for.
        how: Served,
    },
    /// Tell who asked that it will not be done.
    Refuse {
        /// Of which.
        function: FunctionName,
        /// Which request.
        ticket: Ticket,
        /// Why.
        refusal: Refusal,
    },
    /// End the instance. Nothing more is expected of it.
    Retire {
        /// Of which.
        function: FunctionName,
        /// Which.
        instance: Instance,
        /// Why.
        why: Retired,
    },
}

/// What a request had to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Served {
    /// For nothing: an instance was idle.
    Hit,
    /// For an instance that was at work.
    Queued,
    /// For an instance to start.
    Miss,
}

impl Served {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Queued => "queued",
            Self::Miss => "miss",
        }
    }
}

/// Why a request is not served, and when another attempt may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Why.
    #[serde(flatten)]
    pub reason: Reason,
    /// When it may do better.
    pub retry_after: Duration,
}

/// Why a request is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reason")]
pub enum Reason {
    /// Enough wait already.
    Full,
    /// No instance became free in time.
    Late,
    /// There is no memory for another instance, and none became free in time.
    Memory,
    /// The instance that was started for it did not come up.
    NotStarted {
        /// Which.
        instance: Instance,
    },
    /// The function keeps failing: it is left alone for a while.
    BackOff,
    /// The function is gone.
    Removed,
}

impl Reason {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Late => "late",
            Self::Memory => "memory",
            Self::NotStarted { .. } => "not_started",
            Self::BackOff => "back_off",
            Self::Removed => "removed",
        }
    }
}

/// Why an instance is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Retired {
    /// It was idle for longer than the policy keeps one.
    Idle,
    /// There are more than there may be.
    Surplus,
    /// It runs something older.
    Old,
    /// Its memory is needed, and it is the cheapest to have again.
    Evicted,
    /// Its function is gone.
    Removed,
}

impl Retired {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Surplus => "surplus",
            Self::Old => "old",
            Self::Evicted => "evicted",
            Self::Removed => "removed",
        }
    }
}
