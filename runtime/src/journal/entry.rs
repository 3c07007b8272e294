//! Entries, and what follows from all of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cgroup::Baseline;
use crate::id::{Epoch, FunctionName, SandboxId, SlotName};
use crate::process::Process;

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub enum Entry {
    /// A life of a sandbox is about to be made: nothing of it exists before this.
    Begin(Life),
    /// Its first process exists.
    Spawned {
        /// Of which sandbox.
        sandbox: SandboxId,
        /// In which life; an entry of a former one says nothing.
        epoch: Epoch,
        /// `hearth-init`, PID 1 in there.
        process: Process,
    },
    /// It was parked, and is somebody's now: from here on it outlives the spawner.
    Claimed {
        /// Which sandbox.
        sandbox: SandboxId,
        /// In which life.
        epoch: Epoch,
        /// For this function.
        function: FunctionName,
        /// Where the counters of its slot stood.
        before: Baseline,
    },
    /// All of it is gone, and was seen to be.
    End {
        /// Of which sandbox.
        sandbox: SandboxId,
        /// Which life.
        epoch: Epoch,
    },
}

/// What one life of a sandbox has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// Whose life; its directories and sockets are named by it.
    pub sandbox: SandboxId,
    /// Which one.
    pub epoch: Epoch,
    /// The function that it was claimed for; none while it is parked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<FunctionName>,
    /// Where the counters of its slot stood when it was claimed.
    #[serde(default)]
    pub before: Baseline,
    /// Its slot, below the subtree of cgroups that is hearth's.
    pub slot: SlotName,
    /// The user that its `hearth-init` runs as, its own; the next one is the function's.
    pub uid: u32,
    /// Its first process, once that was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
}

/// Lives that began and have not ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lives(BTreeMap<SandboxId, Life>);

impl Lives {
    /// What follows from one more entry.
    pub fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Begin(life) => {
                self.0.insert(life.sandbox, life);
            }
            Entry::Spawned {
                sandbox,
                epoch,
                process,
            } => {
                if let Some(life) = self.0.get_mut(&sandbox)
                    && life.epoch == epoch
                {
                    life.process = Some(process);
                }
            }
            Entry::Claimed {
                sandbox,
                epoch,
                function,
                before,
            } => {
                if let Some(life) = self.0.get_mut(&sandbox)
                    && life.epoch == epoch
                {
                    life.function = Some(function);
                    life.before = before;
                }
            }
            Entry::End { sandbox, epoch } => {
                if self.0.get(&sandbox).is_some_and(|life| life.epoch == epoch) {
                    self.0.remove(&sandbox);
                }
            }
        }
    }

    /// Of another boot: no number of a process says anything now.
    pub(super) fn forget_processes(&mut self) {
        for life in self.0.values_mut() {
            life.process = None;
        }
    }

    /// The life of a sandbox.
    #[must_use]
    pub fn get(&self, sandbox: SandboxId) -> Option<&Life> {
        self.0.get(&sandbox)
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Life> {
        self.0.values()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// None.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
