//! `hearth-spawner`: parent of every sandbox of a node, in one thread.
//!
//! It parks sandboxes ahead ([`park`]), hands them over ([`claim`]) and takes away what is over
//! ([`tidy`]); a journal says what there is, so that the next one can go on ([`adopt`]). With each
//! `hearth-init` it has a socket of one-byte messages: `g` lets the new process begin once it is in
//! the journal; `p` says that it is parked, `e` and a text why it cannot be; `c` that it was
//! claimed. Who sees the end of that socket before `c` ends itself. With the functions in there the
//! spawner has nothing to do: who claimed a sandbox speaks to its `hearth-init` by itself.

mod adopt;
mod claim;
mod clients;
mod collapse;
mod log;
mod options;
mod park;
mod poll;
mod prepare;
mod sandbox;
mod signals;
mod spawn;
mod spawner;
mod tidy;
mod veth;

use std::collections::{BTreeMap, VecDeque};
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::Parser as _;
use hearth_runtime::cgroup::{self, Bounds, Layout, Name, Pool, Subtree};
use hearth_runtime::sandbox::Places;
use hearth_runtime::sandbox::ask::Slots;
use rustix::fs::{Mode, OFlags};

use crate::clients::Clients;
use crate::log::say;
use crate::options::{Options, Place};
use crate::poll::{Poll, Source};
use crate::signals::Signals;
use crate::spawn::Program;
use crate::spawner::{Spawner, Trouble};
use crate::veth::Veth;

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Slots that are kept clean beside the parked ones.
const READY: usize = 2;
/// Descriptors that are nobody's: clients, the journal, and what is open for a moment.
const OTHERS: usize = 192;
/// Descriptors for limits and control of a sandbox that is not claimed yet, at most.
const PARKED: usize = 12;

fn run(options: &Options) -> Result<()> {
    prepare::privileges()?;
    let places = Places::below(&options.directory);
    prepare::directories(&places)?;
    let files = prepare::open_files()?;
    let program = Program {
        init: prepare::init(options.init.as_deref())?,
        null: rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .context("open /dev/null")?,
    };
    let signals = Signals::take().context("take signals")?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .context("become a subreaper")?;
    let (journal, replay) = prepare::journal(&places)?;

    let layout = Layout::discover()?;
    let name = Name::new(&options.cgroup).context("--cgroup")?;
    if options.place == Place::Own {
        cgroup::step_down(&layout, &Name::new("spawner")?)?;
    }
    let subtree = Subtree::open(&layout, options.place.into(), name)?;
    prepare::lock(&subtree, &options.cgroup)?;
    for controller in [cgroup::Controller::Memory, cgroup::Controller::Pids] {
        if subtree.carrier(controller).is_none() {
            say!("{controller:?} is not limited: no cgroup hierarchy here has that controller");
        }
    }

    let slots = usize::from(options.slots);
    let each = subtree.hierarchies() + 1;
    let ahead = OTHERS + (slots + READY) * PARKED;
    let mut most = files.saturating_sub(ahead) / each;
    ensure!(
        most > slots + READY,
        "--slots {slots}: takes more than the {files} open files that are allowed: \
         use a smaller number, or raise the limit (systemd: LimitNOFILE=)"
    );
    let veth = match (&options.veth, options.addresses) {
        (Some(bridge), Some(range)) => Some(Veth::open(bridge, range)?),
        _ => None,
    };
    if let Some(room) = veth.as_ref().map(Veth::room) {
        ensure!(
            room > slots + READY,
            "--addresses: has room for {room} sandboxes, and --slots {slots} and those at work are \
             more: use a larger network"
        );
        most = most.min(room);
    }
    let poll = Poll::new().context("make an epoll")?;
    poll.add(&signals, Source::Signals)
        .context("listen to signals")?;
    let mut spawner = Spawner {
        slots,
        most,
        program,
        veth,
        poll,
        signals,
        journal,
        pool: Pool::new(
            subtree.clone(),
            Bounds {
                ready: READY,
                ..Bounds::default()
            },
        ),
        subtree,
        mounts: layout
            .hierarchies
            .into_iter()
            .map(|one| one.mount)
            .collect(),
        sandboxes: BTreeMap::new(),
        by_id: BTreeMap::new(),
        parked: VecDeque::new(),
        ended: VecDeque::new(),
        wanted: VecDeque::new(),
        collapses: VecDeque::new(),
        trouble: Trouble::default(),
        stop: None,
        counts: Slots::default(),
        places,
    };
    spawner.take_over(&replay)?;
    let listener = prepare::listener(&spawner.places)?;
    let clients = Clients::new(listener, &spawner.poll).context("listen")?;
    say!(
        "listens on {}; {slots} sandboxes are kept parked, and there is room for {most} at once",
        spawner.places.spawner().display()
    );
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    spawner.run(clients)
}
