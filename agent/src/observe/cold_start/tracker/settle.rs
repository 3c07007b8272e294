//! Has a start ended? If so it is folded; if it was none, or there is no room, it goes.

use std::collections::BTreeSet;

use hearth_abi::{Kind, Opener};

use super::open::{Key, Open, OpenedBy, alive};
use super::{Finished, Reason, Tracker, after, ready_rule};
use crate::observe::cold_start::end::{self, End};
use crate::observe::cold_start::fold::fold;
use crate::observe::cold_start::start::{Stamped, Start};
use crate::observe::cold_start::{Role, parts};
use crate::observe::identity::Place;
use crate::time::{Boottime, Nanos};

impl Tracker {
    /// Looks whether a start has ended; if so, folds it.
    pub(super) fn look_at(&mut self, key: Key, now: Boottime) -> Option<Finished> {
        let open = self.open.get_mut(&key)?;
        let rule = ready_rule(&self.settings, open).clone();
        let deadline = open.deadline(&self.settings);
        if let Key::Process(_) = key {
            // The first exec that was told is the opener, whichever record came first.
            let execs = open.marks().iter();
            let execs = execs.filter(|mark| matches!(mark.kind, Kind::Exec | Kind::ExecBegin));
            let Some(begin) = execs.map(Stamped::at).min() else {
                self.give_up(key, Reason::Headless);
                return None;
            };
            self.age.remove(&(open.opening.begin, key));
            open.opening.begin = begin;
            self.age.insert((begin, key));
        }
        let lost = (self.lost - open.lost_before).saturating_add(open.dropped);
        let start = open.take(lost);
        let expired = after(open.opening.begin, deadline, self.settings.grace);
        let end = if expired <= now {
            end::find_at_deadline(&start, &rule)
        } else {
            end::find(&start, &rule)
        };
        let end = end.filter(|end| end.at.since(start.opening.begin) <= deadline);
        let end = match end {
            Some(end) => end,
            None if expired <= now => {
                End::not_ready(&start, after(start.opening.begin, deadline, Nanos(0)))
            }
            None => {
                self.due.remove(&(open.due, key));
                open.due = expired;
                open.may_have_ended = false;
                self.due.insert((expired, key));
                // Marks older than the opener stay out, so that it may have become smaller.
                let before = open.bytes();
                open.put_back(start);
                self.bytes = self.bytes - before + open.bytes();
                return None;
            }
        };
        if let Some(reason) = self.reject(key, &start, now) {
            self.unwatch.extend(alive(start.marks()));
            self.give_up(key, reason);
            self.hand_over(start.marks());
            return None;
        }
        Some(self.finish(key, &start, &end, now))
    }

    /// Why an ended start is none after all.
    fn reject(&mut self, key: Key, start: &Start, now: Boottime) -> Option<Reason> {
        let open = self.open.get(&key)?;
        let begin = start.opening.begin;
        match (start.opening.opener, key) {
            (Opener::Cgroup, _) => {
                let cgroup = match open.cgroup {
                    OpenedBy::Place => return None,
                    OpenedBy::Cgroup(id) => id,
                    OpenedBy::Unknown => 0,
                };
                let path = self.cgroups.look_up(cgroup, now);
                (!path.is_some_and(Place::opens_start)).then_some(Reason::OtherCgroup)
            }
            (Opener::Exec, Key::Watch(_)) if open.rule.is_none() => Some(Reason::Nameless),
            (Opener::Exec, _) if start.opening.role == Role::Runtime => {
                let mut cgroups = start
                    .marks()
                    .iter()
                    .map(|mark| mark.cgroup)
                    .filter(|&id| id != 0);
                let own = cgroups.next();
                let others: BTreeSet<u64> = cgroups.filter(|&id| Some(id) != own).collect();
                if others.iter().any(|&id| self.was_populated(id, begin)) {
                    return Some(Reason::Joined);
                }
                let none = others.is_empty() && end::entry(start).is_none();
                none.then_some(Reason::NoContainer)
            }
            _ => None,
        }
    }

    fn finish(&mut self, key: Key, start: &Start, end: &End, now: Boottime) -> Finished {
        let mut folded = fold(start, end, &self.settings.about);
        let open = self.close(key);
        let rule = open.as_ref().and_then(|open| open.rule);
        let claim = open.as_ref().and_then(|open| open.claim.clone());
        let (waits, dropped) = open.map(Open::into_waits).unwrap_or_default();
        parts::add_waits(&mut folded.start, waits);
        folded.start.parts_dropped += dropped;
        let rule = rule.map(|rule| &self.settings.rules[rule]);
        let by_rule = rule.and_then(|rule| rule.function.clone());
        let by_claim = claim.map(|claim| claim.function.into());
        folded.start.identity.function = by_claim.or(by_rule);
        let runtime = rule.filter(|rule| rule.role == Role::Runtime);
        let runtime = runtime.map(|rule| rule.executable.name());
        if let Some(path) = self.cgroups.look_up(folded.cgroup, now) {
            folded.start.identity.place(path, runtime);
        }
        if let (Some(_), id @ 1..) = (runtime, folded.cgroup) {
            // Whoever joins it from now on starts nothing.
            self.cgroups.populated(id, start.opening.begin);
        }
        self.stats.finished += 1;
        let watched = match key {
            Key::Watch(_) => alive(start.marks()),
            Key::Process(_) => Vec::new(),
        };
        let last = end.mark.map(|index| start.marks()[index].kind);
        // Nothing follows the exit of a process that is a start of its own.
        if matches!(key, Key::Watch(_)) || last != Some(Kind::Exit) {
            self.ended.remember(key);
        }
        Finished {
            start: folded.start,
            watched,
        }
    }

    /// Drops a start without an observation.
    pub(super) fn give_up(&mut self, key: Key, reason: Reason) {
        let Some(open) = self.close(key) else { return };
        if let Key::Watch(_) = key {
            self.unwatch.extend(alive(open.marks()));
            self.hand_over(open.marks());
        }
        if reason != Reason::Headless {
            self.ended.remember(key);
        }
        *self.stats.gone.entry(reason).or_default() += 1;
    }

    fn close(&mut self, key: Key) -> Option<Open> {
        let open = self.open.remove(&key)?;
        self.due.remove(&(open.due, key));
        self.age.remove(&(open.opening.begin, key));
        self.bytes -= open.bytes();
        Some(open)
    }

    /// Evicts the oldest starts while there are too many, or they are too big.
    pub(super) fn make_room(&mut self, newest: Key) {
        loop {
            let reason = if self.open.len() > self.settings.limits.starts {
                Reason::Starts
            } else if self.bytes > self.settings.limits.bytes {
                Reason::Memory
            } else {
                return;
            };
            let oldest = self
                .age
                .iter()
                .map(|&(_, key)| key)
                .find(|&key| key != newest);
            self.give_up(oldest.unwrap_or(newest), reason);
        }
    }

    pub(super) fn was_populated(&self, cgroup: u64, before: Boottime) -> bool {
        self.cgroups
            .populated_since(cgroup)
            .is_some_and(|since| since < before)
    }
}
