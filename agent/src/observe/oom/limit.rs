//! Which of a cgroup's limits a kill came of.

use serde::Serialize;

use super::model::{Kill, Known};

/// A limit of a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Of memory (`memory.max`, `memory.limit_in_bytes`).
    Memory,
    /// Of memory and swap together (`memory.memsw.limit_in_bytes` of cgroup v1).
    MemoryAndSwap,
}

impl Limit {
    /// The limit that a cgroup ran into. v1 charges memory and swap together first, so that it
    /// is this limit where no more is left of it than of that of memory.
    #[must_use]
    pub fn hit(kill: &Kill) -> Self {
        let left = |limit: Self| {
            let (usage, limit) = (limit.usage(kill).value()?, limit.bytes(kill).value()?);
            Some(limit.saturating_sub(*usage))
        };
        match (left(Self::Memory), left(Self::MemoryAndSwap)) {
            (Some(memory), Some(both)) if kill.swap_with_memory && both <= memory => {
                Self::MemoryAndSwap
            }
            _ => Self::Memory,
        }
    }

    /// What was charged to it.
    #[must_use]
    pub const fn usage(self, kill: &Kill) -> &Known<u64> {
        match self {
            Self::Memory => &kill.usage_bytes,
            Self::MemoryAndSwap => &kill.swap_usage_bytes,
        }
    }

    /// Where it is.
    #[must_use]
    pub const fn bytes(self, kill: &Kill) -> &Known<u64> {
        match self {
            Self::Memory => &kill.limit_bytes,
            Self::MemoryAndSwap => &kill.swap_limit_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::oom::samples;

    #[test]
    fn the_limit_that_has_least_left_was_hit() {
        let kill = samples::whole().kill;
        assert_eq!(Limit::hit(&kill), Limit::Memory, "it is the only one");
        let of_v1 = |swap_usage: u64, swap_limit: u64| Kill {
            usage_bytes: Known::Value(60),
            limit_bytes: Known::Value(64),
            swap_usage_bytes: Known::Value(swap_usage),
            swap_limit_bytes: Known::Value(swap_limit),
            swap_with_memory: true,
            ..kill.clone()
        };
        assert_eq!(Limit::hit(&of_v1(127, 128)), Limit::MemoryAndSwap);
        assert_eq!(Limit::hit(&of_v1(60, 64)), Limit::MemoryAndSwap);
        assert_eq!(Limit::hit(&of_v1(60, 128)), Limit::Memory);
        // Of v2, where swap has a limit of its own: that is no reason to kill.
        let of_v2 = Kill {
            swap_with_memory: false,
            ..of_v1(64, 64)
        };
        assert_eq!(Limit::hit(&of_v2), Limit::Memory);
    }
}
