//! Names that belong to a mark, in a record of their own.

/// Size of a [`Text`] in the ring, in bytes.
pub const TEXT_BYTES: usize = core::mem::size_of::<Text>();
/// Bytes of the long string.
pub const TEXT_LONG: usize = 256;
/// Bytes of the short string.
pub const TEXT_SHORT: usize = 64;

/// Strings of an exec or of a cgroup, cut at their arrays' ends and padded with zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Text {
    /// [`Kind`](crate::Kind) as its discriminant: `ExecText`, `CgroupPath` or `CgroupGone`.
    pub kind: u16,
    /// Unused, zero.
    pub flags: u16,
    /// Process that it is about (`ExecText`), else the current one.
    pub tgid: u32,
    /// When, `CLOCK_BOOTTIME` ns; that of the `Exec` mark it belongs to.
    pub boottime_ns: u64,
    /// `start_boottime` of the process's leader.
    pub start_boottime: u64,
    /// Cgroup id (`CgroupPath`, `CgroupGone`), inode of the executable (`ExecText`).
    pub id: u64,
    /// File name as given to exec, or the cgroup's path.
    pub long: [u8; TEXT_LONG],
    /// `argv[0]` (`ExecText`).
    pub short: [u8; TEXT_SHORT],
}
