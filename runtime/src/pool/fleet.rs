//! The pools of a node, which share its memory.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::greedy_dual::Clock;
use super::input::{Action, Input, Instance, Reason, Refusal, Retired, Ticket};
use super::thrift::Thrift;
use super::{Moment, Pool, Settings};
use crate::id::FunctionName;

/// The pools of all functions of a node. It does what it is told at once and in order: the same
/// inputs at the same moments give the same actions.
pub struct Fleet {
    pools: BTreeMap<FunctionName, Pool>,
    /// Bytes that one instance takes, on average over the functions.
    typical: u64,
    /// When which wants to be asked again.
    due: BTreeSet<(Moment, FunctionName)>,
    /// Bytes that all instances may have together.
    budget: u64,
    /// The number of the next instance.
    number: u64,
    clock: Clock,
    thrift: Thrift,
    now: Moment,
}

impl Default for Fleet {
    fn default() -> Self {
        Self {
            pools: BTreeMap::new(),
            typical: 0,
            due: BTreeSet::new(),
            budget: u64::MAX,
            number: 0,
            clock: Clock::default(),
            thrift: Thrift::default(),
            now: Moment::default(),
        }
    }
}

impl Fleet {
    /// A number for an instance that was there before.
    pub const fn number(&mut self) -> Instance {
        self.number += 1;
        Instance(self.number)
    }

    /// The pool of one function.
    #[must_use]
    pub fn pool(&self, function: &FunctionName) -> Option<&Pool> {
        self.pools.get(function)
    }

    /// All pools, by the names of their functions.
    pub fn pools(&self) -> impl Iterator<Item = (&FunctionName, &Pool)> {
        self.pools.iter()
    }

    /// Memory of all instances, in bytes, by what one of each function takes.
    #[must_use]
    pub fn used(&self) -> u64 {
        let of = |pool: &Pool| pool.weight().saturating_mul(pool.instances().into());
        self.pools.values().map(of).fold(0, u64::saturating_add)
    }

    /// The memory that they may have together, in bytes, where that was said.
    #[must_use]
    pub const fn budget(&self) -> Option<u64> {
        match self.budget {
            u64::MAX => None,
            bytes => Some(bytes),
        }
    }

    /// When it wants [`Input::Tick`], if nothing else comes before.
    #[must_use]
    pub fn next(&self) -> Option<Moment> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Takes note of what happened, and says what is to be done. A moment before the last one is
    /// taken for that.
    pub fn apply(&mut self, now: Moment, input: Input) -> Vec<Action> {
        self.now = self.now.max(now);
        let mut out = Vec::new();
        let is_weighed = matches!(
            input,
            Input::Deploy { .. } | Input::Remove { .. } | Input::Weighed { .. }
        );
        let noted = self.note(input, &mut out);
        if is_weighed {
            let weights = self.pools.values().map(Pool::weight);
            self.typical = weights.fold(0, u64::saturating_add) / (self.pools.len() as u64).max(1);
        }
        if let Some(function) = noted {
            self.settle(&function, &mut out);
        }
        while let Some((due, function)) = self.due.first().cloned() {
            if due > self.now {
                break;
            }
            self.settle(&function, &mut out);
        }
        if out
            .iter()
            .any(|action| matches!(action, Action::Retire { .. }))
        {
            self.freed(&mut out);
        }
        out
    }

    /// Who was denied memory tries again at once, as something went.
    fn freed(&mut self, out: &mut Vec<Action>) {
        let denied = self.pools.iter().filter(|(_, pool)| pool.is_denied());
        let denied: Vec<_> = denied.map(|(function, _)| function.clone()).collect();
        for function in denied {
            if let Some(pool) = self.pools.get_mut(&function) {
                pool.freed();
            }
            self.settle(&function, out);
        }
    }

    /// Tells the pool; that is to be brought into order then.
    fn note(&mut self, input: Input, out: &mut Vec<Action>) -> Option<FunctionName> {
        let (now, clock) = (self.now, self.clock);
        match input {
            Input::Deploy {
                function,
                settings,
                renew,
            } => Some(self.deploy(function, *settings, renew, out)),
            Input::Remove { function } => {
                let pool = self.pools.remove(&function)?;
                self.due
                    .remove(&(pool.next().unwrap_or_default(), function));
                pool.remove(out);
                None
            }
            Input::Arrive {
                function,
                ticket,
                deadline,
            } => {
                if !self.pools.contains_key(&function) {
                    out.push(nobody(function, ticket));
                    return None;
                }
                self.tell(function, |pool| pool.arrive(now, ticket, deadline, out))
            }
            Input::Again {
                function,
                ticket,
                deadline,
            } => self.tell(function, |pool| pool.again(ticket, deadline)),
            Input::Cancel { function, ticket } => self.tell(function, |pool| pool.cancel(ticket)),
            Input::Resumed { function, back_off } => {
                self.tell(function, |pool| pool.resumed(back_off))
            }
            Input::Found {
                function,
                instance,
                busy,
            } => {
                self.number = self.number.max(instance.0);
                self.of_instance(function, instance, out, |pool, _| {
                    pool.found(now, clock, instance, busy);
                })
            }
            Input::Started { function, instance } => {
                self.of_instance(function, instance, out, |pool, out| {
                    pool.started(now, clock, instance, out);
                })
            }
            Input::NotStarted {
                function,
                instance,
                without,
                replace,
                outgrown,
            } => self.tell(function, |pool| {
                pool.not_started(now, instance, without, (replace, outgrown), out);
            }),
            Input::Served {
                function,
                instance,
                work,
            } => self.of_instance(function, instance, out, |pool, out| {
                pool.served(now, clock, instance, Some(work), out);
            }),
            Input::Unused { function, instance } => {
                self.of_instance(function, instance, out, |pool, out| {
                    pool.served(now, clock, instance, None, out);
                })
            }
            Input::Ended {
                function,
                instance,
                fault,
                replace,
                outgrown,
            } => self.tell(function, |pool| {
                pool.ended(now, instance, fault, (replace, outgrown), out);
            }),
            Input::Measured { function, start } => {
                self.tell(function, |pool| pool.measured(now, start))
            }
            Input::Weighed { function, bytes } => self.tell(function, |pool| pool.weighed(bytes)),
            Input::Scheduled {
                function,
                instances,
            } => self.tell(function, |pool| pool.scheduled(instances)),
            Input::Budget { bytes } => {
                self.budget = bytes;
                self.evict(0, out);
                None
            }
            Input::Tick => None,
        }
    }

    fn deploy(
        &mut self,
        function: FunctionName,
        settings: Settings,
        renew: bool,
        out: &mut Vec<Action>,
    ) -> FunctionName {
        if let Some(pool) = self.pools.get_mut(&function) {
            pool.redeploy(settings, renew, out);
        } else {
            let pool = Pool::new(function.clone(), settings);
            self.pools.insert(function.clone(), pool);
        }
        function
    }

    fn tell(
        &mut self,
        function: FunctionName,
        tell: impl FnOnce(&mut Pool),
    ) -> Option<FunctionName> {
        tell(self.pools.get_mut(&function)?);
        Some(function)
    }

    /// Tells of an instance that is alive: where its function is gone, it goes.
    fn of_instance(
        &mut self,
        function: FunctionName,
        instance: Instance,
        out: &mut Vec<Action>,
        tell: impl FnOnce(&mut Pool, &mut Vec<Action>),
    ) -> Option<FunctionName> {
        if let Some(pool) = self.pools.get_mut(&function) {
            tell(pool, out);
            return Some(function);
        }
        out.push(Action::Retire {
            function,
            instance,
            why: Retired::Removed,
        });
        None
    }

    /// Brings one pool into order, and starts what it wants as far as there is memory.
    fn settle(&mut self, function: &FunctionName, out: &mut Vec<Action>) {
        let spent = self.thrift.permille(self.typical * self.pools.len() as u64);
        let Some(pool) = self.pools.get_mut(function) else {
            return;
        };
        let before = pool.next();
        let wanted = pool.settle(self.now, (self.typical, spent), out);
        self.thrift.add(self.now, pool.spent());
        let weight = pool.weight();
        for nth in 0..wanted.must + wanted.may {
            // Without a budget nothing has to be added up.
            let fits = self.budget == u64::MAX
                || if nth < wanted.must {
                    self.make_room(weight, out)
                } else {
                    self.used().saturating_add(weight) <= self.budget
                };
            let instance = Instance(self.number + 1);
            let Some(pool) = self.pools.get_mut(function) else {
                break;
            };
            if !fits {
                pool.denied(self.now, nth < wanted.must);
                break;
            }
            self.number = instance.0;
            pool.start(instance, out);
        }
        let after = self.pools.get(function).and_then(Pool::next);
        if before != after {
            if let Some(before) = before {
                self.due.remove(&(before, function.clone()));
            }
            if let Some(after) = after {
                self.due.insert((after, function.clone()));
            }
        }
    }

    /// Whether so many bytes fit, where idle ones go for them. Nothing goes in vain.
    fn make_room(&mut self, bytes: u64, out: &mut Vec<Action>) -> bool {
        let idle = |pool: &Pool| pool.weight().saturating_mul(pool.evictable().into());
        let idle = self.pools.values().map(idle).fold(0, u64::saturating_add);
        let least = self.used().saturating_sub(idle);
        least.saturating_add(bytes) <= self.budget && self.evict(bytes, out)
    }

    /// Lets idle ones go, the cheapest to have again first, until so many bytes fit beside the rest.
    fn evict(&mut self, bytes: u64, out: &mut Vec<Action>) -> bool {
        while self.used().saturating_add(bytes) > self.budget {
            let cheapest = self
                .pools
                .values_mut()
                .filter_map(|pool| Some((pool.cheapest()?, pool)))
                .min_by(|(a, _), (b, _)| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
            let Some((worth, pool)) = cheapest else {
                return false;
            };
            pool.evict(worth, out);
            self.clock.rise(worth);
        }
        true
    }
}

/// Who asks for a function that is not there is told.
const fn nobody(function: FunctionName, ticket: Ticket) -> Action {
    Action::Refuse {
        function,
        ticket,
        refusal: Refusal {
            reason: Reason::Removed,
            retry_after: Duration::ZERO,
        },
    }
}

#[cfg(test)]
mod tests;
