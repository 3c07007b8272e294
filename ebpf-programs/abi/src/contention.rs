//! What the kernel's tracepoints of contention mean.

/// Bits of the second argument of `contention_begin`: `LCB_F_*`, 5.19 and later.
pub mod lcb {
    /// Spins.
    pub const SPIN: u32 = 1 << 0;
    /// For reading.
    pub const READ: u32 = 1 << 1;
    /// For writing.
    pub const WRITE: u32 = 1 << 2;
    /// A per-CPU read-write semaphore.
    pub const PERCPU: u32 = 1 << 4;
    /// A mutex.
    pub const MUTEX: u32 = 1 << 5;
}

/// One firing of `contention_begin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Contended {
    /// Bits of [`lcb`].
    pub flags: u32,
    /// Unused, zero.
    pub unused: u32,
    /// How often the thread had given up the CPU of its own will.
    pub sleeps: u64,
}

impl Contended {
    /// Whether `next`, of the same thread and lock, is of the same wait. A mutex begins to spin,
    /// goes to sleep, and may spin again whenever it is woken. Where two begins cannot follow each
    /// other like that, the end of the first one's wait was missed.
    #[inline(always)]
    #[must_use]
    pub const fn goes_on_with(&self, next: &Self) -> bool {
        if self.flags & next.flags & lcb::MUTEX == 0 {
            // All others begin once.
            return false;
        }
        let slept = next.sleeps.wrapping_sub(self.sleeps);
        let (spun, spins) = (self.flags & lcb::SPIN != 0, next.flags & lcb::SPIN != 0);
        match (spun, spins) {
            (true, false) => slept == 0,
            (false, true) => slept <= 1,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPIN: u32 = lcb::MUTEX | lcb::SPIN;
    const SLEEP: u32 = lcb::MUTEX;

    fn begin(flags: u32, sleeps: u64) -> Contended {
        Contended {
            flags,
            unused: 0,
            sleeps,
        }
    }

    #[test]
    fn a_wait_for_a_mutex_goes_on_while_it_spins_and_sleeps_in_turn() {
        let wait = [
            begin(SPIN, 7),
            begin(SLEEP, 7),
            begin(SPIN, 8),
            begin(SLEEP, 8),
            // Woken before it had gone to sleep.
            begin(SPIN, 8),
        ];
        for pair in wait.windows(2) {
            assert!(pair[0].goes_on_with(&pair[1]), "{pair:?}");
        }
    }

    #[test]
    fn after_an_end_that_was_missed_it_is_another_wait() {
        let missed = [
            // Had while it spun.
            (begin(SPIN, 7), begin(SPIN, 7)),
            // Had after a sleep; then it slept for something else, too.
            (begin(SLEEP, 7), begin(SPIN, 9)),
            // The next one's first begin was missed as well.
            (begin(SPIN, 7), begin(SLEEP, 8)),
            (begin(SLEEP, 7), begin(SLEEP, 8)),
        ];
        for (last, next) in missed {
            assert!(!last.goes_on_with(&next), "{last:?} {next:?}");
        }
        for flags in [
            lcb::READ,
            lcb::WRITE,
            lcb::SPIN,
            lcb::PERCPU | lcb::WRITE,
            lcb::SPIN | lcb::WRITE,
        ] {
            assert!(!begin(flags, 7).goes_on_with(&begin(flags, 7)), "{flags}");
        }
    }
}
