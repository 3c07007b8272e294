//! Sandboxes of our own runtime that were claimed: the start begins with the claim, which no mark
//! tells, and the function is forked by a process that was there before.

use std::collections::VecDeque;

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

/// What is known of claims.
#[derive(Debug, Default)]
pub(super) struct Claims(VecDeque<Claim>);

impl Tracker {
    /// A sandbox was claimed; the next process that its first one forks is the function.
    pub fn claimed(&mut self, claim: Claim) {
        let pending = &mut self.claims.0;
        // Its number is another's now, or its function never was forked.
        pending.retain(|other| other.init != claim.init);
        if pending.len() >= PENDING {
            let oldest = pending.pop_front();
            self.unwatch.extend(oldest.map(|claim| claim.init));
        }
        pending.push_back(claim);
    }

    /// Gives a start that a fork opened its claim, if it is one.
    pub(super) fn opened_by_claim(&mut self, key: Key, fork: &Stamped) {
        let pending = &mut self.claims.0;
        let Some(index) = pending.iter().position(|claim| claim.init == fork.tgid) else {
            return;
        };
        let (Some(claim), Some(open)) = (pending.remove(index), self.open.get_mut(&key)) else {
            return;
        };
        // What it forks later is not the start of this function.
        self.unwatch.insert(claim.init);
        self.due.remove(&(open.due, key));
        self.age.remove(&(open.opening.begin, key));
        open.claimed(claim);
        let deadline = open.deadline(&self.settings);
        open.due = after(open.opening.begin, deadline, self.settings.grace);
        self.due.insert((open.due, key));
        self.age.insert((open.opening.begin, key));
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
