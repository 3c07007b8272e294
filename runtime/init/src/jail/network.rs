//! The network namespace: a loopback interface and, for a function that asks for it, a link to the
//! node's bridge.

use std::ffi::CStr;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// `IFF_UP`, as wide as the field.
const UP: libc::c_short = 1;
/// The link.
const ETH0: &CStr = c"eth0";

/// What the sandbox is on its bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) address: Ipv4Addr,
    /// Bits of the network.
    pub(crate) length: u8,
    /// The way to everybody else.
    pub(crate) gateway: Ipv4Addr,
}

/// A new network namespace has its loopback interface down.
pub(super) fn loopback_up() -> io::Result<()> {
    set(&socket()?, libc::SIOCSIFFLAGS, &flags(c"lo"))
}

/// What is up would give itself an address that the spawner did not.
pub(super) fn without_ipv6() -> io::Result<()> {
    match std::fs::write("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "1") {
        // A kernel without IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        written => written,
    }
}

/// Gives the link its address, and the sandbox its way out.
pub(super) fn link_up(link: Option<Link>) -> io::Result<()> {
    let link = link.ok_or_else(|| {
        io::Error::other(
            "hearth-spawner has no network to give: start it with --veth BRIDGE and --addresses \
             CIDR, or use network = \"loopback\"",
        )
    })?;
    let socket = socket()?;
    let mask = u32::MAX.checked_shl(32_u32.saturating_sub(link.length.into()));
    let mask = Ipv4Addr::from_bits(mask.unwrap_or(0));
    set(&socket, libc::SIOCSIFADDR, &address(link.address))?;
    set(&socket, libc::SIOCSIFNETMASK, &address(mask))?;
    set(&socket, libc::SIOCSIFFLAGS, &flags(ETH0))?;
    // SAFETY: all bits zero is a value of this plain C struct.
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    route.rt_dst = internet(Ipv4Addr::UNSPECIFIED);
    route.rt_genmask = internet(Ipv4Addr::UNSPECIFIED);
    route.rt_gateway = internet(link.gateway);
    route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    set(&socket, libc::SIOCADDRT, &route)
}

fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    Ok(socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        flags,
        None,
    )?)
}

fn named(interface: &CStr) -> libc::ifreq {
    // SAFETY: all bits zero is a value of this plain C struct.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(interface.to_bytes()) {
        *to = from.cast_signed();
    }
    request
}

fn flags(interface: &CStr) -> libc::ifreq {
    let mut request = named(interface);
    request.ifr_ifru.ifru_flags = UP;
    request
}

fn address(address: Ipv4Addr) -> libc::ifreq {
    let mut request = named(ETH0);
    request.ifr_ifru.ifru_addr = internet(address);
    request
}

/// As the kernel's `struct sockaddr_in` has it: a port, then the address.
fn internet(address: Ipv4Addr) -> libc::sockaddr {
    /// `AF_INET`, as wide as the field.
    const FAMILY: libc::sa_family_t = 2;
    let mut data = [0; 14];
    for (to, from) in data.iter_mut().skip(2).zip(address.octets()) {
        *to = from.cast_signed();
    }
    libc::sockaddr {
        sa_family: FAMILY,
        sa_data: data,
    }
}

/// `T` is what this request takes.
fn set<T>(socket: &OwnedFd, request: libc::Ioctl, what: &T) -> io::Result<()> {
    // SAFETY: the kernel reads one `T`, and writes nothing.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), request, std::ptr::from_ref(what)) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
