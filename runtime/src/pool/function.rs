//! The pool of one function.
//!
//! - [`queue`]: requests that wait.
//! - [`need`]: what it needs whatever its policy says, and what it can spare.

mod need;
mod queue;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::greedy_dual::{Clock, Worth};
use super::input::{Action, Instance, Reason, Retired, Served};
use super::policy::{Policy, Seen, Spent};
use super::starts::Starts;
use super::{BackOff, Moment, Settings};
use crate::id::FunctionName;
use queue::Waiting;

/// When what the node had no sandbox for is tried again, where nobody waits for it.
const SANDBOX_AGAIN: Duration = Duration::from_secs(1);

/// The instances of one function, and who waits for one.
pub struct Pool {
    name: FunctionName,
    settings: Settings,
    policy: Box<dyn Policy>,
    scheduled: u32,
    /// The one that was used last is at the end.
    ready: VecDeque<Ready>,
    starting: BTreeSet<Instance>,
    busy: BTreeSet<Instance>,
    /// Those of the starting and busy ones that run something older.
    old: BTreeSet<Instance>,
    /// Those of the old ones that run what is deployed, with too little memory.
    small: BTreeSet<Instance>,
    waiting: VecDeque<Waiting>,
    back_off: BackOff,
    /// The node had no sandbox: until when nothing is started that nobody waits for.
    without: Moment,
    /// So many there are to be again, as some have ended.
    restore: u32,
    /// There was no memory: until when nothing is started,
    denied: Option<Moment>,
    /// and nothing that nobody waits for.
    spared: Option<Moment>,
    starts: Starts,
    weight: u64,
    /// Since it last had no instance.
    uses: u64,
    /// Mean time at work, over the last few.
    work: Duration,
    target: u32,
    next: Option<Moment>,
}

struct Ready {
    instance: Instance,
    since: Moment,
    worth: Worth,
}

/// How many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// There should be, at work or not.
    pub target: u32,
    /// Wait for work.
    pub ready: u32,
    /// Start.
    pub starting: u32,
    /// Are at work.
    pub busy: u32,
    /// Requests that wait.
    pub waiting: u32,
}

/// Instances that should be started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Somebody waits, or they were promised: idle ones of others may go for them.
    pub(super) must: u32,
    /// Where there is memory.
    pub(super) may: u32,
}

impl Pool {
    pub(super) fn new(name: FunctionName, settings: Settings) -> Self {
        Self {
            name,
            policy: settings.policy.build(),
            scheduled: 0,
            ready: VecDeque::new(),
            starting: BTreeSet::new(),
            busy: BTreeSet::new(),
            old: BTreeSet::new(),
            small: BTreeSet::new(),
            waiting: VecDeque::new(),
            back_off: BackOff::default(),
            without: Moment::default(),
            restore: 0,
            denied: None,
            spared: None,
            starts: Starts::default(),
            weight: settings.memory_bytes,
            uses: 0,
            work: Duration::ZERO,
            target: 0,
            next: None,
            settings,
        }
    }

    /// How many there are.
    #[must_use]
    pub fn size(&self) -> Size {
        Size {
            target: self.target,
            ready: count(self.ready.len()),
            starting: count(self.starting.len()),
            busy: count(self.busy.len()),
            waiting: count(self.waiting.len()),
        }
    }

    /// How it is to be.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How long a function that keeps failing is left alone from now on, and how often it failed.
    #[must_use]
    pub fn back_off(&self, now: Moment) -> (Duration, u32) {
        (self.back_off.left(now), self.back_off.failures())
    }

    /// The pause of a function that keeps failing.
    #[must_use]
    pub const fn pause(&self) -> BackOff {
        self.back_off
    }

    /// So many a schedule wants.
    #[must_use]
    pub const fn wanted_by_schedule(&self) -> u32 {
        self.scheduled
    }

    /// Whether it is only there until it is done: how it ends says nothing of what is deployed.
    #[must_use]
    pub fn is_old(&self, instance: Instance) -> bool {
        self.old.contains(&instance)
    }

    /// Memory that one of them takes, in bytes.
    #[must_use]
    pub const fn weight(&self) -> u64 {
        self.weight
    }

    /// Instances, whatever they do.
    #[must_use]
    pub fn instances(&self) -> u32 {
        count(self.ready.len() + self.starting.len() + self.busy.len())
    }

    /// When it wants to be asked again.
    pub(super) const fn next(&self) -> Option<Moment> {
        self.next
    }

    pub(super) fn redeploy(&mut self, settings: Settings, renew: bool, out: &mut Vec<Action>) {
        if settings.policy != self.settings.policy {
            self.policy = settings.policy.build();
        }
        // What was weighed says nothing of what takes its place.
        if renew || settings.memory_bytes != self.settings.memory_bytes {
            self.weight = settings.memory_bytes;
        }
        self.restore = self.restore.min(settings.max);
        self.settings = settings;
        if renew {
            (self.back_off, self.restore) = (BackOff::default(), 0);
            self.age(out);
            self.small.clear();
        }
    }

    /// What there is has too little memory. Others take the places of idle ones; who is at work, or
    /// starts, goes when that is done, and then it is seen whether another is needed. While the
    /// function is left alone nothing can take their places: better too small than none.
    fn outgrow(&mut self, now: Moment, out: &mut Vec<Action>) {
        if !self.pause_left(now).is_zero() {
            return;
        }
        let rest = self.current() - count(self.ready.len());
        let all = self.starting.union(&self.busy).copied();
        let known = all.filter(|instance| !self.old.contains(instance));
        self.small.extend(known.collect::<Vec<_>>());
        self.age(out);
        self.restore = self.restore.saturating_sub(rest);
    }

    /// Whether it was one of the old ones, now that it is over; another may take its place whatever
    /// it was, but for those that run something older.
    fn was_old(&mut self, instance: Instance, replace: bool) -> bool {
        if replace && self.small.contains(&instance) {
            self.restore = (self.restore.max(self.current()) + 1).min(self.settings.max);
        } else if replace && !self.old.contains(&instance) {
            self.restore();
        }
        self.small.remove(&instance);
        self.old.remove(&instance)
    }

    /// Those that are idle go, and the rest as soon as it is done.
    fn age(&mut self, out: &mut Vec<Action>) {
        self.old = self.starting.union(&self.busy).copied().collect();
        while let Some(ready) = self.ready.pop_front() {
            self.retire(ready.instance, Retired::Old, out);
        }
    }

    /// Everything of it ends.
    pub(super) fn remove(mut self, out: &mut Vec<Action>) {
        while let Some(waiting) = self.waiting.pop_front() {
            self.refuse(waiting.ticket, Reason::Removed, Duration::ZERO, out);
        }
        let ready = self.ready.iter().map(|ready| ready.instance);
        let all: Vec<Instance> = ready.chain(self.starting.iter().copied()).collect();
        for instance in all.into_iter().chain(self.busy.clone()) {
            self.retire(instance, Retired::Removed, out);
        }
    }

    pub(super) const fn resumed(&mut self, back_off: BackOff) {
        self.back_off = back_off;
    }

    pub(super) fn found(&mut self, now: Moment, clock: Clock, instance: Instance, busy: bool) {
        self.back_off.begun(instance);
        self.back_off.came_up(now, instance);
        // Somebody asked for it, not long ago: else it would have been retired.
        self.policy.arrived(now);
        if busy {
            self.busy.insert(instance);
        } else {
            self.idle(now, clock, instance);
        }
    }

    pub(super) fn started(
        &mut self,
        now: Moment,
        clock: Clock,
        instance: Instance,
        out: &mut Vec<Action>,
    ) {
        if !self.starting.remove(&instance) {
            return self.retire(instance, Retired::Surplus, out);
        }
        if self.was_old(instance, false) {
            return self.retire(instance, Retired::Old, out);
        }
        self.back_off.came_up(now, instance);
        self.idle(now, clock, instance);
        self.serve(now, Served::Miss, out);
    }

    pub(super) fn not_started(
        &mut self,
        now: Moment,
        instance: Instance,
        without: bool,
        (replace, outgrown): (bool, bool),
        out: &mut Vec<Action>,
    ) {
        if !self.starting.contains(&instance) {
            return;
        }
        // What was replaced says nothing of what replaces it.
        let is_old = self.was_old(instance, replace);
        self.starting.remove(&instance);
        if is_old {
            return;
        }
        if without {
            self.without = now.after(SANDBOX_AGAIN);
        } else {
            self.back_off.failed(now, instance);
        }
        if outgrown {
            self.outgrow(now, out);
        }
        if !self.settings.hold
            && self.waiting.len() > self.starting.len()
            && let Some(waiting) = self.waiting.pop_front()
        {
            let left = self.pause_left(now);
            let reason = Reason::NotStarted { instance };
            self.refuse(waiting.ticket, reason, left, out);
        }
    }

    /// It is done; `work` is none where it had nothing to do.
    pub(super) fn served(
        &mut self,
        now: Moment,
        clock: Clock,
        instance: Instance,
        work: Option<Duration>,
        out: &mut Vec<Action>,
    ) {
        if !self.busy.remove(&instance) {
            return self.retire(instance, Retired::Surplus, out);
        }
        if let Some(work) = work {
            self.back_off.served(now, instance);
            self.policy.served(now, work);
            self.work = self.work.saturating_mul(7).saturating_add(work) / 8;
        }
        if self.was_old(instance, false) {
            return self.retire(instance, Retired::Old, out);
        }
        self.idle(now, clock, instance);
        self.serve(now, Served::Queued, out);
    }

    pub(super) fn ended(
        &mut self,
        now: Moment,
        instance: Instance,
        fault: bool,
        (replace, outgrown): (bool, bool),
        out: &mut Vec<Action>,
    ) {
        let is_old = self.was_old(instance, replace);
        self.busy.remove(&instance);
        self.starting.remove(&instance);
        self.ready.retain(|ready| ready.instance != instance);
        if fault && !is_old {
            self.back_off.failed(now, instance);
        }
        if outgrown && !is_old {
            self.outgrow(now, out);
        }
    }

    /// How long nothing is started that nobody waits for.
    fn pause_left(&self, now: Moment) -> Duration {
        self.back_off.left(now).max(self.without.since(now))
    }

    /// There are to be as many again as there are now.
    fn restore(&mut self) {
        self.restore = self.restore.max(self.current()).min(self.settings.max);
    }

    pub(super) fn measured(&mut self, now: Moment, start: Duration) {
        self.policy.measured(now, start);
        self.starts.measured(start);
    }

    pub(super) const fn weighed(&mut self, bytes: u64) {
        self.weight = bytes;
    }

    pub(super) const fn scheduled(&mut self, instances: u32) {
        self.scheduled = instances;
    }

    /// Brings it into order after whatever happened; what should be started is left to who knows
    /// how much memory there is.
    pub(super) fn settle(
        &mut self,
        now: Moment,
        (typical_bytes, spent_permille): (u64, u32),
        out: &mut Vec<Action>,
    ) -> Wanted {
        self.serve(now, Served::Hit, out);
        let seen = Seen {
            now,
            demand: count(self.busy.len() + self.waiting.len()),
            busy: count(self.busy.len()),
            ready: count(self.ready.len()),
            starting: count(self.starting.len()),
            memory_bytes: self.weight,
            typical_bytes,
            spent_permille,
        };
        let plan = self.policy.plan(seen);
        let promised = self.promised();
        self.target = promised.max(plan.target).min(self.settings.max);
        let old = count(self.old.len());
        let mut current = self.current();
        if current >= self.restore {
            self.restore = 0;
        }
        while let Some(oldest) = self.ready.front() {
            let why = if current > self.settings.max {
                Retired::Surplus
            } else if current > self.target && now.since(oldest.since) >= plan.keep_alive {
                Retired::Idle
            } else {
                break;
            };
            let instance = oldest.instance;
            self.ready.pop_front();
            self.retire(instance, why, out);
            current -= 1;
            // Else what is not needed would start again.
            self.restore = self.restore.saturating_sub(1);
        }
        if self.instances() == 0 {
            self.uses = 0;
        }
        let pause = self.pause_left(now);
        let held = !pause.is_zero();
        let is_unproven = self.back_off.is_unproven(now);
        let room = self.settings.max.saturating_sub(current + old);
        let must = self.missing(held, is_unproven).min(room);
        let may = if held || is_unproven {
            0
        } else {
            self.target.saturating_sub(current + must).min(room - must)
        };
        self.denied = self.denied.filter(|until| now < *until);
        self.spared = self.spared.filter(|until| now < *until);
        let wanted = match (self.denied, self.spared) {
            (Some(_), _) => Wanted::default(),
            (None, Some(_)) => Wanted { must, may: 0 },
            (None, None) => Wanted { must, may },
        };
        let leaves = self
            .ready
            .front()
            .filter(|_| current > self.target)
            .map(|oldest| oldest.since.after(plan.keep_alive));
        let late = self.waiting.iter().map(|waiting| waiting.deadline).min();
        let tried = held.then(|| now.after(pause));
        let proof = self.back_off.proof().filter(|_| is_unproven);
        self.next = [
            leaves,
            late,
            tried,
            proof,
            self.denied,
            self.spared,
            plan.again,
        ]
        .into_iter()
        .flatten()
        .min()
        .map(|next| next.max(now.after(Duration::from_nanos(1))));
        wanted
    }

    /// What was spent on idle ones since this was last asked.
    pub(super) fn spent(&mut self) -> Spent {
        self.policy.spent()
    }

    /// Starts one, as there is room for it.
    pub(super) fn start(&mut self, instance: Instance, out: &mut Vec<Action>) {
        self.back_off.begun(instance);
        self.starting.insert(instance);
        out.push(Action::Start {
            function: self.name.clone(),
            instance,
        });
    }

    fn idle(&mut self, now: Moment, clock: Clock, instance: Instance) {
        self.ready.push_back(Ready {
            instance,
            since: now,
            worth: clock.worth(self.uses.max(1), self.starts.median(), self.weight),
        });
    }

    fn retire(&self, instance: Instance, why: Retired, out: &mut Vec<Action>) {
        out.push(Action::Retire {
            function: self.name.clone(),
            instance,
            why,
        });
    }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
