//! Sandboxes of our own runtime that were claimed: the start begins with the claim, which no mark
//! tells, and the function is forked by a process that was there before.

use std::collections::VecDeque;

use hearth_abi::{Kind, Mark};

use super::open::{Key, Open};
use super::{Tracker, after};
use crate::observe::cold_start::Role;
use crate::observe::cold_start::start::Stamped;
use crate::time::{Boottime, Nanos};

/// Claims whose function has not been forked yet: more than any node makes at once.
const PENDING: usize = 1024;

/// A claimed sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its first process, which will fork the function. It is watched as a source.
    pub init: u32,
    /// When it was asked for.
    pub at: Boottime,
    /// The function that it was claimed for.
    pub function: Box<str>,
    /// When that is given up.
    pub deadline: Nanos,
}

/// What is known of claims. That the function is ready may be told before the marks of its start
/// are drained: then it is kept with the claim.
#[derive(Debug, Default)]
pub(super) struct Claims(VecDeque<(Claim, Option<Boottime>)>);

impl Tracker {
    /// A sandbox was claimed; the next process that its first one forks is the function.
    pub fn claimed(&mut self, claim: Claim) {
        let pending = &mut self.claims.0;
        // Its number is another's now, or its function never was forked.
        pending.retain(|(other, _)| other.init != claim.init);
        if pending.len() >= PENDING {
            let oldest = pending.pop_front();
            self.unwatch.extend(oldest.map(|(claim, _)| claim.init));
        }
        pending.push_back((claim, None));
    }

    /// The function in the sandbox that was claimed at that time asked for work, as the sandbox
    /// itself tells: who answers the call knows it without a look at every message of the function.
    pub fn claimed_is_ready(&mut self, claimed: Boottime, at: Boottime) {
        let mut pending = self.claims.0.iter_mut();
        if let Some((_, ready)) = pending.find(|(claim, _)| claim.at == claimed) {
            *ready = Some(at);
            return;
        }
        let is_it = |open: &Open| open.claim.as_ref().is_some_and(|claim| claim.at == claimed);
        let found = self.open.iter().find(|(_, open)| is_it(open));
        let Some((&key, process)) =
            found.and_then(|(key, open)| Some((key, open.opening.process?)))
        else {
            return;
        };
        let Key::Watch(watch) = key else { return };
        let mark = Mark {
            kind: Kind::Next as u16,
            flags: 0,
            boottime_ns: at.0,
            tid: process.tgid,
            tgid: process.tgid,
            start_boottime: process.start_boottime,
            watch,
            ..Mark::default()
        };
        self.collect(
            key,
            Stamped {
                kind: Kind::Next,
                mark,
            },
        );
        self.make_room(key);
    }

    /// Gives a start that a fork opened its claim, if it is one.
    pub(super) fn opened_by_claim(&mut self, key: Key, fork: &Stamped) {
        let pending = &mut self.claims.0;
        let Some(index) = pending
            .iter()
            .position(|(claim, _)| claim.init == fork.tgid)
        else {
            return;
        };
        let (Some((claim, ready)), Some(open)) = (pending.remove(index), self.open.get_mut(&key))
        else {
            return;
        };
        // What it forks later is not the start of this function.
        self.unwatch.insert(claim.init);
        self.due.remove(&(open.due, key));
        self.age.remove(&(open.opening.begin, key));
        let claimed = claim.at;
        open.claimed(claim);
        let deadline = open.deadline(&self.settings);
        open.due = after(open.opening.begin, deadline, self.settings.grace);
        self.due.insert((open.due, key));
        self.age.insert((open.opening.begin, key));
        if let Some(at) = ready {
            self.claimed_is_ready(claimed, at);
        }
    }
}

impl Open {
    /// Begins with the claim, where that was before the fork.
    fn claimed(&mut self, claim: Claim) {
        self.opening.opener = hearth_abi::Opener::Claim;
        self.opening.role = Role::Program;
        self.rule = None;
        self.opening.begin = self.opening.begin.min(claim.at);
        self.claim = Some(claim);
    }
}
