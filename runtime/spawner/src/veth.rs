//! Links of sandboxes to a bridge of the node: one end is a port of the bridge, the other is `eth0`
//! in the sandbox's network namespace, down and without an address until a function asks for it.
//!
//! The host end of the sandbox with the n-th address is called `hv<n>`: the kernel itself keeps who
//! has which address, also for the next spawner. Both ends go with the namespace.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context as _, Result, ensure};
use netlink_packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
    LinkProtoInfoBridge,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, SocketType};

/// Addresses that are looked at for one sandbox; it goes on there for the next.
const LOOKS: u32 = 256;
/// `IFLA_BRPORT_ISOLATED`.
const ISOLATED: u16 = 33;

/// Addresses for sandboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    network: u32,
    length: u8,
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/');
        let parts = parts.and_then(|(network, length)| {
            let network: Ipv4Addr = network.parse().ok()?;
            Some((network.to_bits(), length.parse::<u8>().ok()?))
        });
        let (network, length) = parts.ok_or("write a network of IPv4, such as 10.9.0.0/16")?;
        if !(8..=29).contains(&length) {
            return Err(format!("/{length}: use /8 to /29"));
        }
        let range = Self { network, length };
        let first = Ipv4Addr::from_bits(network & !range.within());
        if first.to_bits() != network {
            return Err(format!("is no network: did you mean {first}/{length}?"));
        }
        Ok(range)
    }
}

impl Range {
    /// The bits that differ within it.
    fn within(self) -> u32 {
        u32::MAX >> self.length
    }

    fn has(self, address: Ipv4Addr) -> bool {
        address.to_bits() & !self.within() == self.network
    }

    /// Sandboxes that can have an address: the first and the last of a network are nobody's, and
    /// one is the bridge's.
    pub(crate) fn room(self) -> usize {
        usize::try_from(self.within() - 2).unwrap_or(usize::MAX)
    }
}

/// The bridge.
#[derive(Debug)]
pub(crate) struct Veth {
    socket: OwnedFd,
    sequence: u32,
    bridge: u32,
    range: Range,
    gateway: Ipv4Addr,
    /// Where a free address is looked for.
    next: u32,
}

/// What a sandbox is to be on the bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    number: u32,
    address: Ipv4Addr,
    length: u8,
    gateway: Ipv4Addr,
}

impl Link {
    fn name(self) -> String {
        name(self.number)
    }

    /// Words of the command line of `hearth-init`.
    pub(crate) fn words(self) -> [String; 4] {
        [
            "--address".to_owned(),
            format!("{}/{}", self.address, self.length),
            "--gateway".to_owned(),
            self.gateway.to_string(),
        ]
    }

    /// The same for each who has this address, as who speaks with it remembers it for a while.
    fn hardware(self) -> Vec<u8> {
        let [a, b, c, d] = self.address.octets();
        vec![2, 0, a, b, c, d]
    }
}

fn name(number: u32) -> String {
    format!("hv{number}")
}

impl Veth {
    /// Looks for the bridge, and for its address in `range`.
    pub(crate) fn open(bridge: &str, range: Range) -> Result<Self> {
        let socket = rustix::net::socket_with(
            rustix::net::AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            // Which is `NETLINK_ROUTE`.
            None,
        );
        let socket = socket.context("open a netlink socket")?;
        let index = name_to_index(&socket, bridge);
        ensure!(
            index.is_ok()
                && Path::new("/sys/class/net")
                    .join(bridge)
                    .join("bridge")
                    .is_dir(),
            "--veth {bridge}: there is no bridge of this name: make it (ip link add {bridge} type \
             bridge), give it an address of --addresses and set it up, or leave --veth out"
        );
        let mut veth = Self {
            socket,
            sequence: 0,
            bridge: index?,
            range,
            gateway: Ipv4Addr::UNSPECIFIED,
            next: 1,
        };
        let first = Ipv4Addr::from_bits(range.network + 1);
        let length = range.length;
        veth.gateway = veth
            .addresses()
            .context("ask for addresses")?
            .into_iter()
            .find(|address| range.has(*address))
            .with_context(|| {
                format!(
                    "--addresses {}/{length}: {bridge} has no address in it, by which sandboxes \
                     could reach anything: give it one (ip address add {first}/{length} dev {bridge})",
                    Ipv4Addr::from_bits(range.network)
                )
            })?;
        Ok(veth)
    }

    /// Sandboxes that can have an address.
    pub(crate) fn room(&self) -> usize {
        self.range.room()
    }

    /// An address that no sandbox has.
    pub(crate) fn free(&mut self) -> io::Result<Link> {
        for _ in 0..LOOKS {
            let number = self.next;
            self.next = if number + 1 < self.range.within() {
                number + 1
            } else {
                1
            };
            let address = Ipv4Addr::from_bits(self.range.network | number);
            if address == self.gateway {
                continue;
            }
            match name_to_index(&self.socket, &name(number)) {
                Ok(_) => {}
                Err(Errno::NODEV) => {
                    return Ok(Link {
                        number,
                        address,
                        length: self.range.length,
                        gateway: self.gateway,
                    });
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::Error::other(
            "all that were looked at are in use: give --addresses a larger network",
        ))
    }

    /// Makes both ends: `eth0` in the network namespace of this process.
    pub(crate) fn make(&mut self, link: Link, pid: u32) -> io::Result<()> {
        let mut inner = LinkMessage::default();
        inner.attributes = vec![
            LinkAttribute::IfName("eth0".to_owned()),
            LinkAttribute::Address(link.hardware()),
            LinkAttribute::NetNsPid(pid),
        ];
        let mut outer = LinkMessage::default();
        outer.header.flags = LinkFlags::Up;
        outer.header.change_mask = LinkFlags::Up;
        outer.attributes = vec![
            LinkAttribute::IfName(link.name()),
            LinkAttribute::Controller(self.bridge),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(inner))),
            ]),
        ];
        let new = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        self.ask(RouteNetlinkMessage::NewLink(outer), new)?;
        // Functions do not trust each other: a port speaks with the bridge and what is behind it.
        let mut port = LinkMessage::default();
        port.header.interface_family = AddressFamily::Bridge;
        port.header.index = name_to_index(&self.socket, &link.name())?;
        let isolated = LinkProtoInfoBridge::Other(DefaultNla::new(ISOLATED, vec![1]));
        port.attributes = vec![LinkAttribute::ProtoInfoBridge(vec![isolated])];
        self.ask(RouteNetlinkMessage::SetLink(port), NLM_F_ACK)?;
        Ok(())
    }

    /// The bridge's own.
    fn addresses(&mut self) -> io::Result<Vec<Ipv4Addr>> {
        let mut all = AddressMessage::default();
        all.header.family = AddressFamily::Inet;
        let said = self.ask(RouteNetlinkMessage::GetAddress(all), NLM_F_DUMP)?;
        let mut found = Vec::new();
        for message in said {
            let RouteNetlinkMessage::NewAddress(one) = message else {
                continue;
            };
            for attribute in one.attributes {
                if let AddressAttribute::Local(IpAddr::V4(address)) = attribute
                    && one.header.index == self.bridge
                {
                    found.push(address);
                }
            }
        }
        Ok(found)
    }

    /// The kernel answers before the question's call is over: nothing here waits.
    fn ask(
        &mut self,
        question: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(question));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        rustix::net::send(&self.socket, &bytes, SendFlags::empty())?;
        let mut said = Vec::new();
        let mut space = vec![0; 64 * 1024];
        loop {
            let (length, _) = rustix::net::recv(&self.socket, &mut space[..], RecvFlags::DONTWAIT)?;
            let mut rest = space.get(..length).unwrap_or_default();
            while !rest.is_empty() {
                let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(io::Error::other)?;
                let length = usize::try_from(answer.header.length).unwrap_or(usize::MAX);
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                match answer.payload {
                    NetlinkPayload::InnerMessage(message) => said.push(message),
                    NetlinkPayload::Done(_) => return Ok(said),
                    NetlinkPayload::Error(error) => {
                        return match error.code {
                            None => Ok(said),
                            Some(code) => Err(io::Error::from_raw_os_error(code.get().abs())),
                        };
                    }
                    _ => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Range;

    #[test]
    fn a_range_is_a_network_with_room_or_says_how_to_write_it() {
        let range = |text: &str| text.parse::<Range>();
        assert_eq!(range("10.9.0.0/24").map(Range::room), Ok(253));
        for (text, words) in [
            ("10.9.0.0", "10.9.0.0/16"),
            ("fd00::/64", "a network of IPv4"),
            ("10.9.0.7/24", "did you mean 10.9.0.0/24"),
            ("10.9.0.0/30", "use /8 to /29"),
            ("0.0.0.0/0", "use /8 to /29"),
            ("10.9.0.0/33", "use /8 to /29"),
        ] {
            let error = range(text).err().unwrap_or_default();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
