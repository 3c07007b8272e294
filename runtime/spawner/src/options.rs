//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use hearth_runtime::cgroup;

use crate::veth::Range;

/// Parent of every sandbox of this node.
///
/// It keeps sandboxes parked: a clean cgroup with namespaces and a waiting hearth-init in it, so
/// that a function starts without waiting for any of that. Who asks for one (`hearth`) does so
/// over <directory>/spawner.sock, as root or as the user that this runs as.
///
/// Stopped with SIGTERM it takes the parked ones away and leaves those that are at work; the next
/// hearth-spawner on the same --directory finds them in the journal there. Nothing else than what
/// is in that journal survives the next start.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, args_override_self = true)]
pub(crate) struct Options {
    /// Where the sockets and the journal are: a directory of this user with mode 0700, made where
    /// it is missing. One that a reboot empties, since processes do not outlive it either.
    #[arg(long, value_name = "PATH", default_value = "/run/hearth")]
    pub(crate) directory: PathBuf,

    /// How many sandboxes are kept parked, 0 to 4096. Each has some 200 KiB of kernel memory and
    /// the hearth-init in it. A claim that finds none waits until one is made.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(0..=4096))]
    pub(crate) slots: u16,

    /// Name of the cgroup below which all slots are: 1 to 64 of a-z, A-Z, 0-9, - and _. Whatever
    /// else is in it is killed and removed.
    #[arg(long, value_name = "NAME", default_value = "hearth")]
    pub(crate) cgroup: String,

    /// Where that cgroup is.
    #[arg(long, value_enum, default_value_t = Place::Own)]
    pub(crate) place: Place,

    /// The program that is the first process of each sandbox, statically linked. Left out: the
    /// hearth-init beside this program, else /usr/lib/hearth/hearth-init.
    #[arg(long, value_name = "PATH")]
    pub(crate) init: Option<PathBuf>,

    /// A bridge of this node, to which each sandbox gets a link. It is down, and without an address,
    /// unless the function asks for network = "veth". Bridge, routing, NAT and firewall are the
    /// operator's: hearth-spawner adds ports named hv* to the bridge, isolated from each other, and
    /// changes nothing else. Left out: no function has a network.
    #[arg(long, value_name = "BRIDGE", requires = "addresses")]
    pub(crate) veth: Option<String>,

    /// The IPv4 network of these links, such as 10.9.0.0/16. The bridge has an address in it, which
    /// is the functions' default route; each living sandbox has one, parked ones included.
    #[arg(long, value_name = "CIDR", requires = "veth")]
    pub(crate) addresses: Option<Range>,
}

/// As [`cgroup::Place`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Place {
    /// Below the cgroup that this program is started in, as a service manager delegates it
    /// (systemd: Delegate=yes). This program moves to a leaf of it.
    Own,
    /// Below the root of each hierarchy, where no service manager looks after cgroups.
    Root,
}

impl From<Place> for cgroup::Place {
    fn from(place: Place) -> Self {
        match place {
            Place::Own => Self::Own,
            Place::Root => Self::Root,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Options::command().debug_assert();
    }
}
