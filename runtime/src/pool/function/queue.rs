//! Requests that wait for an instance: how many may, who is served, and who is told to go.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Pool, count};
use crate::pool::Moment;
use crate::pool::input::{Action, Reason, Refusal, Served, Ticket};

/// The shortest and the longest time after which another attempt is worth it.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// One request.
pub(super) struct Waiting {
    pub(super) ticket: Ticket,
    pub(super) deadline: Moment,
}

impl Pool {
    pub(in crate::pool) fn arrive(
        &mut self,
        now: Moment,
        ticket: Ticket,
        deadline: Moment,
        out: &mut Vec<Action>,
    ) {
        self.policy.arrived(now);
        if self.ready.is_empty() && count(self.waiting.len()) >= self.places(now) {
            let soon = self.turn();
            return self.refuse(ticket, Reason::Full, soon, out);
        }
        self.waiting.push_back(Waiting { ticket, deadline });
    }

    /// How many may wait: who an instance starts for, or can, is not in the queue.
    fn places(&self, now: Moment) -> u32 {
        let is_stuck = self.denied.is_some() || !self.back_off.left(now).is_zero();
        let room = if is_stuck {
            0
        } else {
            self.settings.max.saturating_sub(self.instances())
        };
        let coming = count(self.starting.len()).saturating_add(room);
        self.settings.queue.saturating_add(coming)
    }

    pub(in crate::pool) fn again(&mut self, ticket: Ticket, deadline: Moment) {
        self.waiting.push_front(Waiting { ticket, deadline });
    }

    pub(in crate::pool) fn cancel(&mut self, ticket: Ticket) {
        self.waiting.retain(|waiting| waiting.ticket != ticket);
    }

    /// Refuses those whose time is over, or will be before anything can be tried for them.
    fn expire(&mut self, now: Moment, out: &mut Vec<Action>) {
        let left = self.back_off.left(now);
        let is_left_alone = self.settings.hold && self.instances() == 0 && !left.is_zero();
        let end = if is_left_alone { now.after(left) } else { now };
        if self.waiting.iter().all(|waiting| waiting.deadline > end) {
            return;
        }
        let (over, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition::<VecDeque<_>, _>(|waiting| waiting.deadline <= end);
        self.waiting = waiting;
        for Waiting { ticket, .. } in over {
            let (reason, retry_after) = if !left.is_zero() && self.instances() == 0 {
                (Reason::BackOff, left)
            } else if self.denied.is_some() {
                (Reason::Memory, self.turn())
            } else {
                (Reason::Late, self.turn())
            };
            self.refuse(ticket, reason, retry_after, out);
        }
    }

    /// Gives who waits what is idle, the one that was used last first.
    pub(super) fn serve(&mut self, now: Moment, how: Served, out: &mut Vec<Action>) {
        self.expire(now, out);
        while let Some(waiting) = self.waiting.front() {
            let ticket = waiting.ticket;
            let Some(ready) = self.ready.pop_back() else {
                return;
            };
            self.waiting.pop_front();
            self.busy.insert(ready.instance);
            self.uses += 1;
            out.push(Action::Serve {
                function: self.name.clone(),
                ticket,
                instance: ready.instance,
                how,
            });
        }
    }

    pub(super) fn refuse(
        &mut self,
        ticket: Ticket,
        reason: Reason,
        retry_after: Duration,
        out: &mut Vec<Action>,
    ) {
        out.push(Action::Refuse {
            function: self.name.clone(),
            ticket,
            refusal: Refusal {
                reason,
                retry_after,
            },
        });
    }

    /// When those that wait now may have been served.
    fn turn(&self) -> Duration {
        let rounds = count(self.waiting.len()) / self.settings.max.max(1) + 1;
        self.work.saturating_mul(rounds).clamp(RETRY.0, RETRY.1)
    }
}
