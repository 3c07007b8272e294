//! How often something is done: for one function, and on the node.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use hearth_runtime::id::FunctionName;

use super::decide::Spent;
use crate::time::Boottime;

/// The time in which actions are counted.
pub const WITHIN: Duration = Duration::from_mins(10);
/// Actions in it, unless the configuration says otherwise: a function that fails again and again is
/// tried seven times, by its growing pause.
pub const OF_FUNCTION: u32 = 30;
/// The same, of all functions together.
pub const OF_NODE: u32 = 300;

/// What was done lately.
#[derive(Debug)]
pub(super) struct Budget {
    of_function: u32,
    of_node: u32,
    functions: BTreeMap<FunctionName, VecDeque<Boottime>>,
    node: VecDeque<Boottime>,
}

impl Budget {
    pub(super) const fn new(of_function: u32, of_node: u32) -> Self {
        Self {
            of_function,
            of_node,
            functions: BTreeMap::new(),
            node: VecDeque::new(),
        }
    }

    /// Whether one more may be done for this function, and on this node.
    pub(super) fn left(
        &mut self,
        function: &FunctionName,
        now: Boottime,
    ) -> (Result<(), Spent>, Result<(), Spent>) {
        self.forget(now);
        let had = self.functions.get(function).map_or(0, VecDeque::len);
        (
            check(had, self.of_function),
            check(self.node.len(), self.of_node),
        )
    }

    /// One more was done.
    pub(super) fn spend(&mut self, function: &FunctionName, now: Boottime) {
        self.node.push_back(now);
        let of = self.functions.entry(function.clone()).or_default();
        of.push_back(now);
    }

    fn forget(&mut self, now: Boottime) {
        let old = |at: &Boottime| now.since(*at).as_duration() >= WITHIN;
        let forget = |all: &mut VecDeque<Boottime>| {
            while all.front().is_some_and(old) {
                all.pop_front();
            }
        };
        forget(&mut self.node);
        self.functions.retain(|_, all| {
            forget(all);
            !all.is_empty()
        });
    }
}

fn check(had: usize, may: u32) -> Result<(), Spent> {
    let actions = u32::try_from(had).unwrap_or(u32::MAX);
    if actions < may {
        return Ok(());
    }
    Err(Spent {
        actions,
        within: WITHIN,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Boottime {
        Boottime(seconds * 1_000_000_000)
    }

    #[test]
    fn a_function_and_the_node_have_their_own_and_both_come_back_with_time() {
        let mut budget = Budget::new(2, 3);
        let [shop, cart]: [FunctionName; 2] =
            ["shop", "cart"].map(|name| name.parse().expect("a name"));
        budget.spend(&shop, at(0));
        budget.spend(&shop, at(10));
        let (function, node) = budget.left(&shop, at(11));
        assert_eq!(function.expect_err("two").actions, 2);
        assert!(node.is_ok() && budget.left(&cart, at(11)).0.is_ok());
        budget.spend(&cart, at(12));
        assert!(budget.left(&cart, at(13)).1.is_err());
        // The first one is as long ago as it takes.
        let (function, node) = budget.left(&shop, at(600));
        assert!(function.is_ok() && node.is_ok());
        budget.spend(&shop, at(600));
        assert!(budget.left(&shop, at(609)).0.is_err());
        let _ = budget.left(&shop, at(10_000));
        assert!(budget.functions.is_empty() && budget.node.is_empty());
    }
}
