//! What is outside of a fleet, as far as the protocol goes: it knows what each request and each
//! instance is up to, answers the fleet's actions, and asserts of each what is promised.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::{
    Action, BackOff, Fleet, Input, Instance, Moment, Pool, Reason, Retired, Settings, Ticket,
};
use super::Step;
use crate::id::FunctionName;

#[derive(Default)]
pub(super) struct World {
    fleet: Fleet,
    now: Moment,
    functions: BTreeMap<FunctionName, Function>,
    instances: BTreeMap<Instance, One>,
    requests: BTreeMap<Ticket, Request>,
    budget: Option<u64>,
    next: u64,
    pub(super) recorded: Vec<(Moment, Input, Vec<Action>)>,
}

struct Function {
    settings: Settings,
    scheduled: u32,
    weight: u64,
}

struct One {
    function: FunctionName,
    state: State,
    is_old: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Starting,
    Ready,
    Busy(Option<Ticket>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Request {
    Waiting(FunctionName, Moment),
    AtWork(FunctionName),
    Over,
}

impl World {
    pub(super) fn step(&mut self, step: Step) {
        match step {
            Step::Deploy(function, settings, renew) => self.deploy(function, *settings, renew),
            Step::Remove(function) => {
                let function = name(function);
                self.functions.remove(&function);
                self.tell(Input::Remove { function });
            }
            Step::Arrive(function, patience) => {
                self.next += 1;
                let (function, ticket) = (name(function), Ticket(self.next));
                self.ask(function, ticket, patience, false);
            }
            Step::Cancel(which) => self.cancel(which),
            Step::Started(which) => {
                if let Some((instance, function)) = self.pick(which, |s| s == State::Starting) {
                    self.become_(instance, State::Ready);
                    self.tell(Input::Started { function, instance });
                }
            }
            Step::NotStarted(which) => {
                if let Some((instance, function)) = self.pick(which, |s| s == State::Starting) {
                    let outgrown = which.is_multiple_of(6);
                    self.lose(instance, true, outgrown);
                    self.tell(Input::NotStarted {
                        without: false,
                        function,
                        instance,
                        replace: which.is_multiple_of(2),
                        outgrown,
                    });
                }
            }
            Step::Served(which, is_used) => {
                let busy = |state| matches!(state, State::Busy(_));
                if let Some((instance, function)) = self.pick(which, busy) {
                    self.over(instance);
                    self.become_(instance, State::Ready);
                    let work = Duration::from_millis(50);
                    self.tell(if is_used {
                        Input::Served {
                            function,
                            instance,
                            work,
                        }
                    } else {
                        Input::Unused { function, instance }
                    });
                }
            }
            Step::Ended(which, fault, again) => self.ended(which, fault, again),
            Step::Found(function, busy) => {
                let function = name(function);
                let instance = self.fleet.number();
                let state = if busy {
                    State::Busy(None)
                } else {
                    State::Ready
                };
                let one = One {
                    function: function.clone(),
                    state,
                    is_old: false,
                };
                self.instances.insert(instance, one);
                self.tell(Input::Found {
                    function,
                    instance,
                    busy,
                });
            }
            Step::Resumed(function, failures, left) => self.resume(function, failures, left),
            Step::Measured(function, start) => self.tell(Input::Measured {
                function: name(function),
                start: Duration::from_millis(start.into()),
            }),
            Step::Weighed(function, bytes) => {
                let (function, bytes) = (name(function), u64::from(bytes % 40) + 1);
                if let Some(known) = self.functions.get_mut(&function) {
                    known.weight = bytes;
                }
                self.tell(Input::Weighed { function, bytes });
            }
            Step::Scheduled(function, instances) => {
                let (function, instances) = (name(function), u32::from(instances));
                if let Some(known) = self.functions.get_mut(&function) {
                    known.scheduled = instances;
                }
                self.tell(Input::Scheduled {
                    function,
                    instances,
                });
            }
            Step::Budget(bytes) => {
                let bytes = u64::from(bytes);
                self.budget = Some(bytes);
                self.tell(Input::Budget { bytes });
            }
            Step::Pass(milliseconds) => self.pass(Duration::from_millis(milliseconds.into())),
        }
    }

    fn resume(&mut self, function: u8, failures: u8, left: u16) {
        let until = self.now.after(Duration::from_millis(left.into()));
        let back_off = BackOff::resumed(self.now, failures.into(), until);
        let function = name(function);
        self.tell(Input::Resumed { function, back_off });
    }

    fn cancel(&mut self, which: u8) {
        let waits = |(ticket, request): (&Ticket, &Request)| match request {
            Request::Waiting(function, _) => Some((*ticket, function.clone())),
            _ => None,
        };
        let waiting: Vec<_> = self.requests.iter().filter_map(waits).collect();
        if let Some((ticket, function)) = pick(&waiting, which) {
            self.requests.insert(ticket, Request::Over);
            self.tell(Input::Cancel { function, ticket });
        }
    }

    /// All functions go: so does all else.
    pub(super) fn end(mut self) {
        for function in 0..3 {
            self.step(Step::Remove(function));
        }
        assert!(self.instances.is_empty(), "instances are left");
        let waits = |request: &&Request| !matches!(request, Request::Over);
        assert_eq!(self.requests.values().find(waits), None);
        assert_eq!(self.fleet.next(), None);
    }

    fn deploy(&mut self, function: u8, settings: Settings, renew: bool) {
        let function = name(function);
        let known = self.functions.get(&function);
        let same =
            known.filter(|known| !renew && known.settings.memory_bytes == settings.memory_bytes);
        let weight = same.map_or(settings.memory_bytes, |known| known.weight);
        let scheduled = known.map_or(0, |known| known.scheduled);
        if renew && known.is_some() {
            self.age(&function);
        }
        let now = Function {
            settings: settings.clone(),
            scheduled,
            weight,
        };
        self.functions.insert(function.clone(), now);
        self.tell(Input::Deploy {
            function,
            settings: Box::new(settings),
            renew,
        });
    }

    fn ask(&mut self, function: FunctionName, ticket: Ticket, patience: u8, again: bool) {
        let deadline = self
            .now
            .after(Duration::from_millis(u64::from(patience) * 200 + 1));
        self.requests
            .insert(ticket, Request::Waiting(function.clone(), deadline));
        self.tell(if again {
            Input::Again {
                function,
                ticket,
                deadline,
            }
        } else {
            Input::Arrive {
                function,
                ticket,
                deadline,
            }
        });
    }

    fn ended(&mut self, which: u8, fault: bool, again: bool) {
        let Some((instance, function)) = self.pick(which, |_| true) else {
            return;
        };
        let ticket = self.over(instance);
        let outgrown = which.is_multiple_of(6);
        self.lose(instance, fault, outgrown);
        self.tell(Input::Ended {
            function: function.clone(),
            instance,
            fault,
            replace: which.is_multiple_of(2),
            outgrown,
        });
        if let Some(ticket) = ticket.filter(|_| again && self.functions.contains_key(&function)) {
            self.ask(function, ticket, 50, true);
        }
    }

    /// All that there is of it is to make way.
    fn age(&mut self, function: &FunctionName) {
        for one in self.instances.values_mut() {
            one.is_old |= one.function == *function;
        }
    }

    /// One is gone; the others have too little memory where it had outgrown its own, and make way if
    /// others may take their places.
    fn lose(&mut self, instance: Instance, fault: bool, outgrown: bool) {
        let lost = self.instances.remove(&instance);
        let Some(lost) = lost.filter(|lost| outgrown && !lost.is_old) else {
            return;
        };
        let mut pause = self.fleet.pool(&lost.function).unwrap().pause();
        if fault {
            pause.failed(self.now, instance);
        }
        if pause.left(self.now).is_zero() {
            self.age(&lost.function);
        }
    }

    /// Whoever it served is done with.
    fn over(&mut self, instance: Instance) -> Option<Ticket> {
        let State::Busy(ticket) = self.instances[&instance].state else {
            return None;
        };
        let ticket = ticket?;
        self.requests.insert(ticket, Request::Over);
        Some(ticket)
    }

    fn become_(&mut self, instance: Instance, state: State) {
        self.instances.get_mut(&instance).unwrap().state = state;
    }

    fn pick(&self, which: u8, fits: impl Fn(State) -> bool) -> Option<(Instance, FunctionName)> {
        let some: Vec<_> = self
            .instances
            .iter()
            .filter(|(_, one)| fits(one.state))
            .map(|(instance, one)| (*instance, one.function.clone()))
            .collect();
        pick(&some, which)
    }

    /// Time passes, with a look whenever the fleet wants one.
    fn pass(&mut self, time: Duration) {
        let end = self.now.after(time);
        for _ in 0..20_000 {
            let Some(due) = self.fleet.next().filter(|due| *due <= end) else {
                self.now = end;
                return self.tell(Input::Tick);
            };
            assert!(due > self.now, "it wants to be asked again at once");
            self.now = due;
            self.tell(Input::Tick);
        }
        panic!("it wants to be asked all the time");
    }

    fn tell(&mut self, input: Input) {
        let actions = self.fleet.apply(self.now, input.clone());
        for action in &actions {
            self.judge(action);
        }
        self.recorded.push((self.now, input, actions));
        self.agree();
    }

    fn judge(&mut self, action: &Action) {
        match action {
            Action::Start { function, instance } => {
                let known = &self.functions[function];
                assert!(
                    self.count(function, |_| true) < known.settings.max,
                    "{action:?}"
                );
                let one = One {
                    function: function.clone(),
                    state: State::Starting,
                    is_old: false,
                };
                assert!(
                    self.instances.insert(*instance, one).is_none(),
                    "{action:?}"
                );
                let used = self.used();
                assert!(
                    self.budget.is_none_or(|budget| used <= budget),
                    "{action:?}"
                );
            }
            Action::Serve {
                function,
                ticket,
                instance,
                ..
            } => {
                let request = self
                    .requests
                    .insert(*ticket, Request::AtWork(function.clone()));
                let Some(Request::Waiting(whose, deadline)) = request else {
                    panic!("{action:?}: {request:?}");
                };
                assert!(whose == *function && deadline > self.now, "{action:?}");
                let one = self.instances.get_mut(instance).unwrap();
                assert_eq!((&one.function, one.state), (function, State::Ready));
                assert!(!one.is_old, "{action:?}");
                one.state = State::Busy(Some(*ticket));
            }
            Action::Refuse {
                function,
                ticket,
                refusal,
            } => {
                let request = self.requests.insert(*ticket, Request::Over);
                let Some(Request::Waiting(whose, _)) = request else {
                    panic!("{action:?}: {request:?}");
                };
                assert_eq!(whose, *function);
                let is_there = self.functions.contains_key(function);
                assert_eq!(is_there, refusal.reason != Reason::Removed, "{action:?}");
            }
            Action::Retire {
                function,
                instance,
                why,
            } => self.judge_retired(function, *instance, *why),
        }
    }

    fn judge_retired(&mut self, function: &FunctionName, instance: Instance, why: Retired) {
        // One that is at work ends with its function only.
        if why == Retired::Removed {
            self.over(instance);
        }
        let before = self.count(function, |one| !one.is_old);
        let one = self.instances.remove(&instance).unwrap();
        assert_eq!(one.function, *function);
        assert!(
            one.state == State::Ready || why == Retired::Removed,
            "{why:?}"
        );
        assert_eq!(one.is_old, why == Retired::Old || one.is_old, "{why:?}");
        match why {
            Retired::Idle | Retired::Evicted => {
                assert!(before > self.promised(function), "{why:?} {function}");
            }
            Retired::Surplus => assert!(before > self.functions[function].settings.max),
            Retired::Old => assert!(one.is_old),
            Retired::Removed => assert!(!self.functions.contains_key(function)),
        }
    }

    /// The fleet sees what there is, and nobody waits beside one that is idle.
    fn agree(&self) {
        for (function, known) in &self.functions {
            let pool = self.fleet.pool(function).unwrap();
            let size = pool.size();
            let of = |state: fn(State) -> bool| self.count(function, |one| state(one.state));
            assert_eq!(size.starting, of(|state| state == State::Starting));
            assert_eq!(size.ready, of(|state| state == State::Ready));
            assert_eq!(size.busy, of(|state| matches!(state, State::Busy(_))));
            let waits = |request: &&Request| matches!(request, Request::Waiting(whose, _) if whose == function);
            assert_eq!(
                size.waiting as usize,
                self.requests.values().filter(waits).count()
            );
            assert!(size.waiting == 0 || size.ready == 0);
            assert_eq!(pool.weight(), known.weight);
            self.keeps_promise(function, pool);
        }
        let pools: Vec<_> = self.fleet.pools().map(|(name, _)| name).collect();
        assert!(pools.into_iter().eq(self.functions.keys()));
    }

    /// Where there is memory, and the function does not keep failing.
    fn keeps_promise(&self, function: &FunctionName, pool: &Pool) {
        if self.budget.is_some() || pool.back_off(self.now).1 > 1 {
            return;
        }
        let max = self.functions[function].settings.max;
        let all = self.count(function, |_| true);
        let current = self.count(function, |one| !one.is_old);
        assert!(
            current >= self.promised(function) || all >= max,
            "{function}"
        );
    }

    fn promised(&self, function: &FunctionName) -> u32 {
        let known = &self.functions[function];
        let settings = &known.settings;
        let busy = self.count(function, |one| {
            !one.is_old && matches!(one.state, State::Busy(_))
        });
        let reserved = match settings.reserved {
            0 => 0,
            reserved => reserved + busy,
        };
        settings
            .min
            .max(known.scheduled)
            .max(reserved)
            .min(settings.max)
    }

    fn count(&self, function: &FunctionName, fits: impl Fn(&One) -> bool) -> u32 {
        let one_of = |one: &&One| one.function == *function && fits(one);
        u32::try_from(self.instances.values().filter(one_of).count()).unwrap()
    }

    fn used(&self) -> u64 {
        let weight = |one: &One| self.functions[&one.function].weight;
        self.instances.values().map(weight).sum()
    }
}

fn name(function: u8) -> FunctionName {
    ["a", "b", "c"][usize::from(function) % 3].parse().unwrap()
}

fn pick<T: Clone>(some: &[T], which: u8) -> Option<T> {
    some.get(usize::from(which) % some.len().max(1)).cloned()
}
