//! Whose a socket is, and where it sends to.

use core::ffi::c_void;

use hearth_abi::{FAMILY_V4, FAMILY_V6, PREFIX_V4_BYTES, PREFIX_V6_BYTES, RetransmitKey};

use super::owner;
use crate::{
    globals::offset,
    task::{Address, Cgroup},
};

/// `::ffff:0:0/96`, under which an IPv6 socket has its IPv4 peers.
const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// Who sends from `socket` to the peer of `peer`: the same socket, or a `request_sock` of it. Both
/// begin with a `sock_common` (the kernel's own `req_to_sk` relies on that).
#[inline(always)]
pub fn key(socket: Address, peer: Address) -> RetransmitKey {
    let netns = netns(socket);
    let (family, prefix) = destination(peer);
    RetransmitKey {
        cgroup: cgroup(socket, netns),
        prefix,
        netns,
        family,
        padding: 0,
    }
}

/// A socket of TCP itself. Others change their states at the same tracepoint, among them the one of
/// MPTCP that stands for several of TCP, and are no `tcp_sock`.
#[inline(always)]
pub fn is_tcp(socket: Address) -> bool {
    const IPPROTO_TCP: u16 = 6;
    // `u16 sk_protocol`, 5.6 and later.
    socket.get::<u16>(offset!(sk_protocol)) == IPPROTO_TCP
}

/// Inode number of a socket's network namespace.
#[inline(always)]
pub fn netns(socket: Address) -> u32 {
    socket.follow(offset!(sk_net)).get(offset!(net_inum))
}

#[inline(always)]
fn destination(peer: Address) -> (u16, [u8; 8]) {
    let mut prefix = [0; 8];
    let v6: [u8; 16] = peer.get(offset!(sk_v6_daddr));
    if peer.get::<u16>(offset!(sk_family)) == FAMILY_V6 && !is_mapped(&v6) {
        prefix[..PREFIX_V6_BYTES].copy_from_slice(&v6[..PREFIX_V6_BYTES]);
        return (FAMILY_V6, prefix);
    }
    // Set for a v4-mapped peer too.
    let v4: [u8; 4] = peer.get(offset!(sk_daddr));
    prefix[..PREFIX_V4_BYTES].copy_from_slice(&v4[..PREFIX_V4_BYTES]);
    (FAMILY_V4, prefix)
}

#[inline(always)]
fn is_mapped(address: &[u8; 16]) -> bool {
    let mut differ = 0;
    let mut at = 0;
    while at < MAPPED.len() {
        differ |= address[at] ^ MAPPED[at];
        at += 1;
    }
    differ == 0
}

/// Inode number of a socket's cgroup; 0 when unknown.
#[inline(always)]
fn cgroup(socket: Address, netns: u32) -> u64 {
    match charged(socket) {
        0 => owner::of(socket, netns),
        id => id,
    }
}

/// The cgroup that the kernel itself keeps with a socket: the one that its memory is charged to,
/// else its v2 one, if that is the hierarchy with the memory controller; 0 if it keeps none.
#[inline(always)]
pub fn charged(socket: Address) -> u64 {
    // The lowest bits are flags, since 6.18.
    let memory = socket.get::<u64>(offset!(sk_memcg)) & !7;
    if memory != 0 {
        let css = Address::of(memory as *const c_void).member(offset!(memcg_css));
        return of_css(css);
    }
    let v2 = Cgroup::of(socket.follow(offset!(sk_cgroup)).as_ptr().cast());
    if v2.is_of_memory() { v2.id() } else { 0 }
}

#[inline(always)]
fn of_css(css: Address) -> u64 {
    Cgroup::of(css.follow(offset!(css_cgroup)).as_ptr().cast()).id()
}
