//! How much memory instances may have together, and how much one has.

use std::collections::BTreeMap;
use std::sync::Arc;

use hearth_runtime::id::FunctionName;
use hearth_runtime::pool::Input;

use super::{Look, Pools};
use crate::functions::manager::lock;
use crate::functions::node::Node as _;
use crate::heal::memory::NodeMemory;

/// Instances of one function that are weighed at once.
const WEIGHED: usize = 8;

/// What instances may have together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Budget {
    /// As it was set; four fifths of what the node has where it was not.
    pub(super) set: Option<u64>,
    /// The node is short of memory.
    is_short: bool,
    /// As it was said last.
    said: Option<u64>,
}

impl Budget {
    /// What instances may have together, where that was said.
    pub(super) const fn most(&self) -> Option<u64> {
        self.said
    }

    /// What it is now, if that is something else; where instances use that much. The node keeps a
    /// twentieth of its memory for all else: what is missing of it idle instances give. It is better
    /// again only at twice that, so that nothing is started and ended in turn.
    fn now(&mut self, node: NodeMemory, used: u64) -> Option<u64> {
        let most = self.set.unwrap_or(node.total / 5 * 4);
        let floor = node.total / 20;
        self.is_short = node.available < floor || (self.is_short && node.available < 2 * floor);
        let bytes = if !self.is_short {
            most
        } else if node.available < floor {
            used.saturating_sub(floor - node.available).min(most)
        } else {
            self.said.unwrap_or(most).min(most)
        };
        let is_other = self.said != Some(bytes);
        self.said = Some(bytes);
        is_other.then_some(bytes)
    }
}

impl Pools {
    /// Sets what instances may have together.
    pub(in super::super) fn set_memory(&self, bytes: Option<u64>) {
        lock(&self.budget).set = bytes;
    }

    /// Looks at the memory of the node.
    pub(in super::super) fn look_at_memory(self: &Arc<Self>) {
        let Some(node) = NodeMemory::now() else {
            return;
        };
        let used = lock(&self.inner).fleet.used();
        let Some(bytes) = lock(&self.budget).now(node, used) else {
            return;
        };
        tracing::debug!("sandboxes may have {bytes} bytes together");
        self.tell(|_, _, _| Some(Input::Budget { bytes }));
    }

    /// Weighs those that became idle since it was last asked: what goes when they go.
    pub(in super::super) fn weigh_idle(self: &Arc<Self>) {
        let idle = self.look(|live, look| {
            let is_new = look == Look::Idle && live.is_unweighed();
            is_new.then(|| Arc::clone(live))
        });
        let mut by_function: BTreeMap<FunctionName, Vec<u64>> = BTreeMap::new();
        for live in idle {
            let weights = by_function.entry(live.deployed.name.clone()).or_default();
            let cgroup = live.about().and_then(|about| about.cgroup.as_deref());
            if weights.len() < WEIGHED
                && let Some(bytes) = cgroup.and_then(|cgroup| self.node.weigh(cgroup))
            {
                weights.push(bytes);
            }
        }
        for (function, weights) in by_function {
            let Some(count) = u64::try_from(weights.len()).ok().filter(|count| *count > 0) else {
                continue;
            };
            let bytes = weights.iter().sum::<u64>() / count;
            self.tell(|inner, _, _| {
                let known = inner.fleet.pool(&function)?.weight();
                // What hardly differs is not worth a decision.
                (known.abs_diff(bytes) > known / 16).then_some(Input::Weighed { function, bytes })
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_node_lacks_is_taken_back_until_there_is_enough_again() {
        let node = |available| NodeMemory {
            available,
            total: 1000,
        };
        let mut budget = Budget::default();
        assert_eq!(budget.now(node(500), 300), Some(800));
        assert_eq!(budget.now(node(400), 300), None, "said before");
        assert_eq!(budget.now(node(30), 300), Some(280), "20 are missing");
        assert_eq!(budget.now(node(60), 280), None, "not at once");
        assert_eq!(budget.now(node(100), 280), Some(800));
        budget.set = Some(200);
        assert_eq!(budget.now(node(500), 280), Some(200), "as it was set");
        assert_eq!(budget.now(node(0), 10), Some(0));
    }
}
