//! The recorder's rounds: who has a limit, who nears it, what those who do use.

mod population;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::armed::{self, Armed, Room};
use super::board::{About, Board, NODE, Reading};
use super::controller::{self, Version};
use super::samples::{self, held};
use super::tree::Tree;
use super::wake::{Kind, TREE, Wake};
use super::watched::{self, Checked, Watched};
use super::{Counts, Settings, lock, pressure};
use crate::time::{Boottime, Nanos};

/// Cgroups that are sampled at a time.
pub(super) const ARMED: usize = 64;
/// How often the node's memory is looked at.
const NODE_EVERY: Nanos = Nanos(4_000_000_000);
/// How long changes of directories are left to gather.
const GATHER: Nanos = Nanos(50_000_000);
/// The same while there are [`MANY`]: most of those that come then go soon.
const GATHER_MANY: Nanos = Nanos(500_000_000);
/// More than this is a storm.
const MANY: usize = 32;
/// Files of `memory.stat` read in one round for cgroups that are not armed.
const STATS: u32 = 16;
/// Thresholds that v1 is asked for in one round: each takes it some milliseconds.
const THRESHOLDS: usize = 4;
/// Looks at processes in one round.
const LOOKS: usize = 8;

/// When what is next done.
#[derive(Debug)]
struct Due {
    /// Armed cgroups are read.
    sample: Boottime,
    /// Watched cgroups are looked at.
    check: Boottime,
    /// The node is.
    node: Boottime,
    /// The hierarchy is walked.
    walk: Boottime,
    /// Changes of directories may wake again.
    tree: Option<Boottime>,
}

/// Everything that the thread works on.
pub(super) struct Rounds {
    settings: Settings,
    version: Version,
    /// Path of the mounted directory within the hierarchy.
    root: Box<str>,
    tree: Tree,
    watched: HashMap<u64, Watched>,
    ids: HashMap<Arc<str>, u64>,
    armed: HashMap<u64, Armed>,
    /// Those whose files woke and have to be asked again.
    woke: HashSet<u64>,
    /// Wakes when the whole node is under pressure.
    pressure: Option<File>,
    wake: Wake,
    due: Due,
    room: Room,
    counts: Counts,
    board: Arc<Mutex<Board>>,
    told: Arc<Mutex<Counts>>,
}

impl Rounds {
    pub(super) fn new(
        settings: Settings,
        mount: &Path,
        root: &str,
        (board, told): (Arc<Mutex<Board>>, Arc<Mutex<Counts>>),
    ) -> io::Result<Self> {
        let version = Version::of(mount);
        let tree = Tree::new(mount, version);
        let wake = Wake::new()?;
        if let Some(fd) = tree.fd() {
            wake.add(fd, TREE, Kind::Readable)?;
        }
        let pressure = pressure::trigger(Path::new(pressure::NODE));
        if let Err(error) = &pressure {
            tracing::debug!("pressure of the node does not wake: {error}");
        }
        let now = Boottime::now();
        let rounds = Self {
            settings,
            version,
            root: root.into(),
            tree,
            watched: HashMap::new(),
            ids: HashMap::new(),
            armed: HashMap::new(),
            woke: HashSet::new(),
            pressure: pressure.ok(),
            wake,
            due: Due {
                sample: now,
                check: now,
                node: now,
                walk: now,
                tree: None,
            },
            room: Room::default(),
            counts: Counts::default(),
            board,
            told,
        };
        if let Some(pressure) = &rounds.pressure {
            rounds.wake.add(pressure, NODE, Kind::Happened)?;
        }
        Ok(rounds)
    }

    /// What ends the rounds when it is written to.
    pub(super) fn stop(&self) -> Arc<std::os::fd::OwnedFd> {
        self.wake.stop()
    }

    /// Goes round until told to stop.
    pub(super) fn run(mut self) {
        loop {
            let now = Boottime::now();
            self.round(now);
            let Some(woke) = self.wake.wait(self.rest(now)) else {
                return;
            };
            self.woken(&woke, Boottime::now());
        }
    }

    /// How long there is nothing to do.
    fn rest(&self, now: Boottime) -> Nanos {
        let sample = (!self.armed.is_empty()).then_some(self.due.sample);
        let gather = self.due.tree;
        let due = [self.due.check, self.due.node, self.due.walk].into_iter();
        let next = due.chain(sample).chain(gather).min().unwrap_or(now);
        // A file that woke is asked again after the time of a sample.
        let again = (!self.woke.is_empty()).then_some(samples::EVERY);
        again.into_iter().fold(next.since(now), Nanos::min)
    }

    fn round(&mut self, now: Boottime) {
        if self.due.tree.is_some_and(|due| due <= now) {
            self.due.tree = None;
            if let Some(fd) = self.tree.fd() {
                self.wake.again(fd, TREE, Kind::Readable);
            }
        }
        if self.due.walk <= now {
            self.walk(now);
        }
        if self.due.check <= now {
            self.due.check = Boottime(now.0 + watched::EVERY.0);
            self.check_due(now);
            self.ask_again();
            lock(&self.board).sweep(now);
        }
        if self.due.node <= now {
            self.due.node = Boottime(now.0 + NODE_EVERY.0);
            self.check_node(now);
        }
        if !self.armed.is_empty() && self.due.sample <= now {
            self.due.sample = Boottime(now.0 + samples::EVERY.0);
            self.sample(now);
            self.ask_again();
        }
        self.tell();
    }

    fn woken(&mut self, woke: &[u64], now: Boottime) {
        for &key in woke {
            match key {
                TREE => {
                    let told = self.apply_changes(now);
                    let gather = if told > MANY { GATHER_MANY } else { GATHER };
                    self.due.tree = Some(Boottime(now.0 + gather.0));
                }
                NODE => {
                    self.woke.insert(NODE);
                    self.counts.woken += 1;
                    // Who presses is not told: look at all.
                    self.watched.values_mut().for_each(|one| one.due = now);
                    self.due.check = now;
                    self.due.node = now;
                }
                id => {
                    self.woke.insert(id);
                    self.look_now(id, now);
                }
            }
        }
    }

    /// Something happened in a cgroup: it is looked at without waiting for its turn.
    fn look_now(&mut self, id: u64, now: Boottime) {
        self.counts.woken += 1;
        if let Some(watched) = self.watched.get(&id) {
            watched.take_crossed();
        }
        if self.armed.contains_key(&id) {
            self.due.sample = now;
            if let Some(armed) = self.armed.get_mut(&id) {
                armed.want_look();
            }
            return;
        }
        let Some(watched) = self.watched.get_mut(&id) else {
            return;
        };
        let rested = watched
            .last
            .is_none_or(|last| now.since(last.at) >= samples::EVERY);
        if rested {
            return self.check(id, now, &mut STATS.clone());
        }
        // One that is full of pages that can be dropped tells this all the time.
        let soon = Boottime(now.0 + samples::EVERY.0);
        watched.due = watched.due.min(soon);
        self.due.check = self.due.check.min(soon);
    }

    /// Asks the files that woke to do so again.
    fn ask_again(&mut self) {
        for id in self.woke.drain() {
            if id == NODE {
                if let Some(pressure) = &self.pressure {
                    self.wake.again(pressure, NODE, Kind::Happened);
                }
                continue;
            }
            if let Some(crossed) = self.watched.get(&id).and_then(Watched::take_crossed) {
                self.wake.again(crossed, id, Kind::Readable);
            }
            if let Some(trigger) = self.armed.get(&id).and_then(Armed::trigger) {
                self.wake.again(trigger, id, Kind::Happened);
            }
        }
    }

    fn disarm(&mut self, id: u64, now: Boottime) {
        if self.armed.remove(&id).is_some() {
            lock(&self.board).disarm(id, now);
        }
    }

    fn check_due(&mut self, now: Boottime) {
        let mut stats = STATS;
        let due = self.watched.values().filter(|one| one.due <= now);
        let mut due: Vec<_> = due.map(|one| (one.due, one.id)).collect();
        // What was put off stays due, and comes first: nobody waits for ever.
        due.sort_unstable();
        for (_, id) in due {
            if !self.armed.contains_key(&id) {
                self.check(id, now, &mut stats);
            }
        }
        let deaf = self.watched.values_mut().filter(|one| one.wants_to_wake());
        for watched in deaf.take(THRESHOLDS) {
            let id = watched.id;
            if let Some(crossed) = watched.wake_at_line()
                && let Err(error) = self.wake.add(crossed, id, Kind::Readable)
            {
                tracing::debug!("a threshold does not wake: {error}");
            }
        }
    }

    fn check(&mut self, id: u64, now: Boottime, stats: &mut u32) {
        let Some(watched) = self.watched.get_mut(&id) else {
            return;
        };
        let before = watched.last;
        match watched.check(self.version, now, stats, &mut self.room.bytes) {
            Checked::Gone => self.remove(id, now),
            Checked::Far => watched.refused = false,
            Checked::Unsure => self.counts.unsure += 1,
            Checked::Near(_) if self.armed.len() >= ARMED => {
                // Each counts once, however often it is refused.
                self.counts.refused += u64::from(!watched.refused);
                watched.refused = true;
            }
            Checked::Near(stat) => {
                watched.refused = false;
                let (directory, limit, line) = (&watched.directory, watched.limit, watched.line);
                let Ok(armed) = Armed::cgroup(self.version, directory, limit, line) else {
                    return;
                };
                let path = format!("{}{}", self.root, watched.path);
                let about = About {
                    path: Some(if path.is_empty() {
                        "/".into()
                    } else {
                        path.into()
                    }),
                    is_v2: self.version == Version::V2,
                    limit,
                    oom_group: self.version.oom_group_of(directory),
                    stat,
                };
                if let Some(trigger) = armed.trigger() {
                    // Without, it is sampled all the same.
                    let _ = self.wake.add(trigger, id, Kind::Happened);
                }
                self.arm(id, armed, about, now);
                // What was seen before it was near begins the samples.
                if let Some(first) = before {
                    lock(&self.board).begin(id, first);
                }
            }
        }
    }

    fn check_node(&mut self, now: Boottime) {
        if self.armed.contains_key(&NODE) {
            return;
        }
        let Ok(meminfo) = File::open("/proc/meminfo") else {
            return;
        };
        let text = controller::text(&meminfo, &mut self.room.bytes).ok();
        let Some(usage) = text.and_then(armed::node_usage) else {
            return;
        };
        let line = usage.total / 100 * super::NODE_NEAR_PERCENT;
        if usage.bytes < line {
            return;
        }
        let about = About {
            path: None,
            is_v2: self.version == Version::V2,
            limit: usage.total,
            oom_group: None,
            stat: None,
        };
        let armed = Armed::node(meminfo, usage.total, line);
        self.arm(NODE, armed, about, now);
    }

    fn arm(&mut self, id: u64, armed: Armed, about: About, now: Boottime) {
        lock(&self.board).arm(id, about, now);
        self.armed.insert(id, armed);
        self.counts.armings += 1;
        // It is read, and looked at, in this same round.
        self.due.sample = now;
    }

    fn sample(&mut self, now: Boottime) {
        let mut over = Vec::new();
        let mut looks = LOOKS;
        let near = self.armed.len();
        for (&id, armed) in &mut self.armed {
            let Ok((usage, pressure)) = armed.read(now, &mut self.room) else {
                over.push(id);
                continue;
            };
            let reading = Reading {
                usage,
                events: &self.room.events,
                pressure,
            };
            let time_to_limit = lock(&self.board).read(id, &reading);
            self.counts.samples += 1;
            if armed.is_over(held(&usage), now) {
                over.push(id);
            } else if looks > 0 && armed.wants_look(now, time_to_limit, near) {
                looks -= 1;
                let look = armed.look(now, &mut self.room);
                lock(&self.board).look(id, look, now);
                self.counts.looks += 1;
            }
        }
        for id in over {
            self.disarm(id, now);
        }
    }

    fn tell(&mut self) {
        self.counts.watched = self.watched.len() as u64;
        self.counts.armed = self.armed.len() as u64;
        let board = lock(&self.board);
        self.counts.lists_dropped = board.lists_dropped;
        self.counts.records_dropped = board.records_dropped;
        drop(board);
        *lock(&self.told) = self.counts;
    }
}
