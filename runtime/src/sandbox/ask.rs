//! What the spawner is asked, and what it says. One frame each way, without a body.
//!
//! An answer has the request of its question, so that many may be under way on one connection:
//! they come as they are ready, the end of a sandbox long after a claim that was asked for later.
//! Of the rest of the channel's header nothing is used.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Resources;
use super::message::Exit;
use crate::id::{Epoch, FunctionName, SandboxId, SlotName};
use crate::process::Process;

/// To the spawner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Ask {
    /// Give me a sandbox: one that is parked, or a new one. Answered by [`Answer::Claimed`].
    Claim {
        /// For this function.
        function: FunctionName,
        /// Within these limits.
        resources: Resources,
    },
    /// End this one, and take away all of it. Answered by [`Answer::Ended`] when it is gone; also of
    /// one that has ended by itself, once.
    End {
        /// Which.
        sandbox: SandboxId,
    },
    /// Gather its memory, as it is now, into huge pages. Answered by [`Answer::Collapsed`] when that
    /// is done; it takes a while, in which others are served.
    Collapse {
        /// Which.
        sandbox: SandboxId,
    },
    /// Which are there? Answered by [`Answer::Sandboxes`].
    List {
        /// Those whose ids come after this one; all where it is none.
        after: Option<SandboxId>,
    },
    /// How are the slots? Answered by [`Answer::Slots`].
    Slots,
    /// Tell me on this connection, as long as it lasts, of each claimed sandbox that has ended by
    /// itself: [`Answer::Ended`], unasked and so without a request.
    Watch,
}

/// From the spawner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// Here it is.
    Claimed(Claimed),
    /// It is gone: no process, cgroup or socket of it is left.
    Ended(Ended),
    /// Its memory was gathered.
    Collapsed(Collapsed),
    /// Claimed ones, as many as fit into a frame.
    Sandboxes {
        /// By id.
        claimed: Vec<Listed>,
        /// Whether there are others after the last of these.
        more: bool,
    },
    /// The slots.
    Slots(Slots),
    /// From now on, of each that ends.
    Watching,
    /// Not done; nothing of it is left.
    Refused {
        /// Why, for a person.
        why: String,
        /// Whether another attempt may do better.
        again: bool,
    },
}

/// A sandbox that was claimed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claimed {
    /// Which.
    pub sandbox: SandboxId,
    /// Its life.
    pub epoch: Epoch,
    /// `hearth-init`, as the node sees it.
    pub init: Process,
    /// Its slot.
    pub slot: SlotName,
    /// The cgroup in the hierarchy that carries memory, below that hierarchy's root.
    pub cgroup: String,
    /// Whether it was parked; else it was made for this claim.
    pub was_parked: bool,
    /// What became of each limit: its name, and the value as it was read back, or why there is none.
    pub limits: Vec<(String, Result<String, String>)>,
}

/// A sandbox that is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Which.
    pub sandbox: SandboxId,
    /// How its `hearth-init` ended.
    pub how: Exit,
    /// Processes in it that were killed for want of memory.
    pub oom_kills: Option<u64>,
    /// The most memory that it had at once, in bytes.
    pub peak_bytes: Option<u64>,
    /// Processor time that it used.
    pub cpu: Option<Duration>,
}

/// What became of the memory of a sandbox that was to be in huge pages: of its parts that could be
/// one, up to 2 GiB.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collapsed {
    /// In huge pages now, or before.
    pub bytes: u64,
    /// Left alone, as less than half of each page was touched.
    pub sparse_bytes: u64,
    /// Refused by the kernel.
    pub failed_bytes: u64,
    /// Why the first of it was, and what helps.
    pub why: Option<String>,
}

/// One of the claimed ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Which.
    pub sandbox: SandboxId,
    /// Its life.
    pub epoch: Epoch,
    /// The function that it was claimed for.
    pub function: FunctionName,
    /// Its slot.
    pub slot: SlotName,
    /// `hearth-init`, as the node sees it.
    pub init: Process,
    /// Whether it was there before this spawner.
    pub adopted: bool,
}

/// How the slots are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slots {
    /// With a parked `hearth-init`.
    pub parked: u32,
    /// Claimed.
    pub claimed: u32,
    /// Given back, and not clean yet.
    pub waiting: u32,
    /// Of those that are to end or to be cleaned, the ones that have resisted for 10 seconds. It is
    /// tried again and again.
    pub stuck: u32,
    /// Claims that were met by a parked one, since the spawner began.
    pub hits: u64,
    /// Claims that had to wait for a new one.
    pub misses: u64,
    /// Slots that somebody else has removed, since the spawner began.
    pub lost: u64,
}
