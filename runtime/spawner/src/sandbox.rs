//! What the spawner knows of one life of a sandbox.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use hearth_runtime::cgroup::{Baseline, Name, Slot};
use hearth_runtime::id::{Epoch, FunctionName, SandboxId, SlotName};
use hearth_runtime::journal::Life;
use hearth_runtime::process::Process;
use hearth_runtime::sandbox::message::Exit;

use crate::clients::Asker;

/// First of the users that belong to slots.
const UID_BASE: u32 = 0x6000_0000;
/// So many slots have two each; then it begins anew.
const SLOTS_OF_UIDS: u32 = 1 << 24;

/// One life, from before anything of it is there until all of it is gone.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) id: SandboxId,
    pub(crate) epoch: Epoch,
    pub(crate) name: SlotName,
    pub(crate) slot: Slot,
    /// None before it was born, and where it was gone before this spawner began.
    pub(crate) init: Option<Init>,
    /// Who it was claimed for.
    pub(crate) function: Option<FunctionName>,
    pub(crate) adopted: bool,
    pub(crate) state: State,
}

/// Its `hearth-init`.
#[derive(Debug)]
pub(crate) struct Init {
    pub(crate) process: Process,
    pub(crate) pidfd: OwnedFd,
    /// Else it is one of a former spawner, and nobody tells how it ended.
    pub(crate) is_child: bool,
    /// Once it has ended.
    pub(crate) exit: Option<Exit>,
}

/// How far it is.
#[derive(Debug)]
pub(crate) enum State {
    /// It is in the journal.
    Begun,
    /// `hearth-init` prepares what it can without knowing the function.
    Parking { control: OwnedFd, until: Instant },
    /// It waits to be claimed.
    Parked { control: OwnedFd },
    /// It is somebody's.
    Claimed,
    /// It is being taken away.
    Ending(Ending),
}

/// A sandbox on its way out.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) since: Instant,
    /// When it is looked at again.
    pub(crate) due: Instant,
    pub(crate) pause: Duration,
    /// Who wants to know when it is gone.
    pub(crate) askers: Vec<Asker>,
    /// It ended by itself: who watches wants to know.
    pub(crate) by_itself: bool,
}

impl Sandbox {
    /// The user of the `hearth-init` in a slot; the function's is the next one.
    pub(crate) fn uid(slot: SlotName) -> u32 {
        UID_BASE + 2 * (slot.0 % SLOTS_OF_UIDS)
    }

    /// As the journal has it before anything of it is there.
    pub(crate) fn life(&self) -> Life {
        Life {
            sandbox: self.id,
            epoch: self.epoch,
            function: None,
            before: Baseline::default(),
            slot: self.name,
            uid: Self::uid(self.name),
            process: None,
        }
    }

    pub(crate) fn is_ending(&self) -> bool {
        matches!(self.state, State::Ending(_))
    }
}

/// The number of a slot, from the name of its cgroup.
pub(crate) fn slot_name(name: &Name) -> Option<SlotName> {
    name.as_str().parse().ok()
}
