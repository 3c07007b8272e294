//! TCP segments sent again, counted in the kernel.

/// `AF_INET`: what goes over the wire is IPv4, whatever the socket's own family.
pub const FAMILY_V4: u16 = 2;
/// `AF_INET6`.
pub const FAMILY_V6: u16 = 10;

/// Most [`RetransmitKey`]s that are counted apart; the least recently used one goes first, and
/// what it counted since it was last read shows in its namespace's total alone.
pub const RETRANSMIT_ROWS: u32 = 1024;

/// Most network namespaces that have a total of their own.
pub const RETRANSMIT_NAMESPACES: u32 = 4096;

/// Bytes of an address that name its network: `/24` of IPv4.
pub const PREFIX_V4_BYTES: usize = 3;
/// Bytes of an address that name its network: `/48` of IPv6.
pub const PREFIX_V6_BYTES: usize = 6;

/// Who sent again, and where to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct RetransmitKey {
    /// Inode number of the socket's cgroup in the hierarchy that carries the memory controller;
    /// 0 when unknown.
    pub cgroup: u64,
    /// Network of the destination: the first bytes of its address, the others zero.
    pub prefix: [u8; 8],
    /// Inode number of the network namespace.
    pub netns: u32,
    /// [`FAMILY_V4`] or [`FAMILY_V6`].
    pub family: u16,
    /// Zero.
    pub padding: u16,
}

/// A network namespace and a family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct RetransmitNamespace {
    /// Inode number of the network namespace.
    pub netns: u32,
    /// [`FAMILY_V4`] or [`FAMILY_V6`].
    pub family: u16,
    /// Zero.
    pub padding: u16,
}

/// A retransmission that is under way on a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct UnderWay {
    /// The outermost function, by a number of its own.
    pub function: u32,
    /// Segments that the socket had sent again before.
    pub before: u32,
}
