//! What became of everything that a probe saw.

/// Number of [`Fate`]s.
pub const FATES: usize = 7;

/// What became of one hit. For each probe `seen` equals the sum of the others: a loss that
/// is not counted is a bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(usize)]
pub enum Fate {
    /// The program ran.
    Seen = 0,
    /// Not of interest to anyone.
    Filtered = 1,
    /// Kept in a map, to become part of another record.
    Aggregated = 2,
    /// A record was put into the ring.
    Submitted = 3,
    /// Lost: the ring was full.
    DroppedRing = 4,
    /// Lost: a map was full or busy.
    DroppedMap = 5,
    /// Lost: kernel memory could not be read.
    DroppedRead = 6,
}

impl Fate {
    /// Every fate, in index order.
    pub const ALL: [Self; FATES] = [
        Self::Seen,
        Self::Filtered,
        Self::Aggregated,
        Self::Submitted,
        Self::DroppedRing,
        Self::DroppedMap,
        Self::DroppedRead,
    ];

    /// The word used in metrics and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Seen => "seen",
            Self::Filtered => "filtered",
            Self::Aggregated => "aggregated",
            Self::Submitted => "submitted",
            Self::DroppedRing => "dropped_ring",
            Self::DroppedMap => "dropped_map",
            Self::DroppedRead => "dropped_read",
        }
    }
}

/// One probe's counts on one CPU, indexed by [`Fate`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct LedgerRow {
    /// Counts by fate.
    pub counts: [u64; FATES],
}
