//! Starts of containers whose function and pod are being asked for.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::task::{Id, JoinSet};

use crate::observe::cold_start::ColdStart;
use crate::observe::identity::{Identity, Resolver};
use crate::observe::oom::Capture;
use crate::observe::oom::links;

/// Those that are being asked for now.
#[derive(Default)]
pub(super) struct Resolving {
    tasks: JoinSet<ColdStart>,
    /// Whose each one is, as far as was known before.
    whose: HashMap<Id, Identity>,
}

impl Resolving {
    /// Has `resolver` asked.
    pub(super) fn ask(&mut self, resolver: &Arc<Resolver>, mut start: ColdStart) {
        let resolver = Arc::clone(resolver);
        let identity = start.identity.clone();
        let task = self.tasks.spawn(async move {
            resolver.resolve(&mut start.identity).await;
            start
        });
        self.whose.insert(task.id(), identity);
    }

    /// The next that was answered; `None` while there are none.
    pub(super) async fn next(&mut self) -> Option<ColdStart> {
        loop {
            match self.tasks.join_next_with_id().await? {
                Ok((id, start)) => {
                    self.whose.remove(&id);
                    return Some(start);
                }
                // What it panicked about it has said.
                Err(error) => {
                    self.whose.remove(&error.id());
                }
            }
        }
    }

    /// Whether one of them may be the start that the victim of `capture` came up in.
    pub(super) fn may_be_of(&self, capture: &Capture) -> bool {
        let mut whose = self.whose.values();
        whose.any(|identity| links::is_of(identity, capture))
    }
}
