//! What keeps a function apart from its node: namespaces, a root of its own, users of its own, no
//! capabilities, a list of system calls.
//!
//! Most of it needs nothing of the function, and is made when the sandbox is parked
//! ([`prepare`]). What is left for the path of a request is the root ([`Prepared::enter`]) and the
//! function's process ([`Jail::spawn`]).
//!
//! - [`skeleton`]: the file systems that every sandbox has; of these [`proc`] and [`dev`].
//! - [`users`]: who `hearth-init` and the function are, on the node and inside.
//! - [`clock`]: the function's clocks begin with it.
//! - [`root`]: layers and writable layer as `/`.
//! - [`spawn`], [`plan`], [`child`]: the function's first process.

mod child;
mod clock;
mod dev;
mod fault;
mod network;
mod plan;
mod proc;
mod root;
mod skeleton;
mod spawn;
mod steps;
#[cfg(test)]
mod tests;
mod users;

use hearth_runtime::sandbox::start::{Network, Start};
use hearth_runtime::seccomp::{Filter, Profile};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::system::sethostname;
use rustix::thread::{UnshareFlags, set_no_new_privs};

use clock::Clock;
use fault::At as _;
pub(crate) use fault::Fault;
pub(crate) use network::Link;
use skeleton::Skeleton;
use spawn::OomScore;
use steps::Steps;
use users::Users;

/// A jail that waits for what it is to hold.
pub(crate) struct Prepared {
    skeleton: Skeleton,
    users: Users,
    clock: Option<Clock>,
    filter: Filter,
    oom_score: OomScore,
    link: Option<Link>,
}

/// A jail that this process is in, for good.
pub(crate) struct Jail {
    users: Users,
    filter: Filter,
    oom_score: OomScore,
    steps: Steps,
}

/// All that can be made before there is a function.
///
/// For the first process of new pid, mount, network, IPC and UTS namespaces, as root of the node,
/// with one thread. On the node `hearth-init` will be the user and the group `uid`, the function
/// `uid + 1`. With a `link` there is an `eth0`.
pub(crate) fn prepare(uid: u32, link: Option<Link>) -> Result<Prepared, Fault> {
    if link.is_some() {
        // While the node's own /proc can still be written to.
        network::without_ipv6().at("keeping IPv6 from its link")?;
    }
    users::forget_groups()?;
    users::forget_keys()?;
    let skeleton = Skeleton::build(uid)?;
    let users = Users::prepare(uid)?;
    network::loopback_up().at("bringing up the loopback interface")?;
    // SAFETY: of what is shared with other threads nothing is unshared, and there are none.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWCGROUP) }
        .at("making a cgroup namespace")?;
    // Last: the next process that is started is in it.
    let clock = Clock::prepare()?;
    Ok(Prepared {
        skeleton,
        users,
        clock,
        filter: Filter::new(&Profile::default()).at("compiling the default seccomp filter")?,
        oom_score: OomScore::open()?,
        link,
    })
}

impl Prepared {
    /// Goes in: what this process sees from here on is what the function will see.
    pub(crate) fn enter(self, start: &Start, hostname: &str) -> Result<Jail, Fault> {
        let mut steps = Steps::begin();
        let filter = if start.syscalls.is_empty() {
            self.filter
        } else {
            filter(&start.syscalls)?
        };
        self.skeleton.enter(&start.root, &mut steps)?;
        if start.network == Network::Veth {
            network::link_up(self.link).at("bringing up its link")?;
            steps.done("link");
        }
        sethostname(hostname.as_bytes()).at("setting the host name")?;
        if let Some(clock) = self.clock {
            clock.begin()?;
        }
        steps.done("names");
        self.users.enter()?;
        set_no_new_privs(true).at("giving up new privileges")?;
        set_dumpable_behavior(DumpableBehavior::NotDumpable).at("hiding its own memory")?;
        steps.done(self.users.kind());
        Ok(Jail {
            users: self.users,
            filter,
            oom_score: self.oom_score,
            steps,
        })
    }
}

fn filter(syscalls: &[String]) -> Result<Filter, Fault> {
    let mut profile = Profile::default();
    for call in syscalls {
        profile.add(call).at("adding to the allowed system calls")?;
    }
    Filter::new(&profile).at("compiling the seccomp filter")
}
