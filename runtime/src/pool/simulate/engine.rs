//! The fleet in simulated time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use super::super::policy::Choice;
use super::super::{Action, Fleet, Input, Instance, Moment, Settings, Ticket};
use super::report::{Report, Tally};
use super::{Clairvoyant, Trace};
use crate::id::FunctionName;

/// Requests between two words on how far it is.
const STEP: usize = 4096;

/// How a trace is simulated.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The policy of every function.
    pub policy: Choice,
    /// Memory that all instances may have together, in bytes.
    pub memory_bytes: Option<u64>,
    /// Instances of one function at most.
    pub max: u32,
    /// Requests for one function that wait at most.
    pub queue: u32,
    /// How long a request waits at most.
    pub patience: Duration,
}

impl Options {
    /// As a node has it that is large enough.
    #[must_use]
    pub const fn new(policy: Choice) -> Self {
        Self {
            policy,
            memory_bytes: None,
            max: 1000,
            queue: 1000,
            patience: Duration::from_mins(1),
        }
    }
}

/// What happens by itself after an action, by the numbers of function and instance. What is done
/// goes before what begins, and both before the next request at the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Served(u32, u64, Duration),
    Started(u32, u64),
}

/// Simulates it; `progress` is told how many requests have come.
///
/// Instances start in the time that the trace has for their function, and are at work for as long as
/// the trace says of each request. Nothing fails.
pub fn run(
    trace: &Trace,
    options: &Options,
    clairvoyant: &Clairvoyant,
    progress: &mut dyn FnMut(usize),
) -> Report {
    let mut engine = Engine::new(trace, options);
    let mut arrivals = trace.arrivals().iter().copied().enumerate().peekable();
    loop {
        let event = engine.events.peek().map(|Reverse((at, _))| *at);
        let arrival = arrivals.peek().map(|(_, arrival)| arrival.at());
        let due = engine.fleet.next();
        let Some(now) = [event, arrival, due].into_iter().flatten().min() else {
            break;
        };
        if now > trace.end() {
            break;
        }
        if event == Some(now) {
            engine.happen(now);
        } else if arrival == Some(now)
            && let Some((ticket, arrival)) = arrivals.next()
        {
            if ticket.is_multiple_of(STEP) {
                progress(ticket);
            }
            engine.arrive(now, ticket, arrival.function());
        } else {
            engine.tell(now, Input::Tick);
        }
    }
    let tally = engine.finish();
    tally.report(options.policy, clairvoyant)
}

struct Engine<'a> {
    trace: &'a Trace,
    patience: Duration,
    fleet: Fleet,
    names: Vec<FunctionName>,
    events: BinaryHeap<Reverse<(Moment, Event)>>,
    /// Of which function which instance waits for work, and since when.
    idle: HashMap<u64, (u32, Moment)>,
    tally: Tally,
}

impl<'a> Engine<'a> {
    fn new(trace: &'a Trace, options: &Options) -> Self {
        let name = |index| format!("f{index}").parse().ok();
        let mut engine = Self {
            trace,
            patience: options.patience,
            fleet: Fleet::default(),
            names: (0..trace.functions().len()).filter_map(name).collect(),
            events: BinaryHeap::new(),
            idle: HashMap::new(),
            tally: Tally::new(trace.functions().len()),
        };
        let begin = Moment::default();
        if let Some(bytes) = options.memory_bytes {
            engine.tell(begin, Input::Budget { bytes });
        }
        for (name, function) in engine.names.clone().into_iter().zip(trace.functions()) {
            let settings = Settings {
                min: 0,
                max: options.max,
                reserved: 0,
                queue: options.queue,
                hold: false,
                policy: options.policy,
                memory_bytes: function.memory_bytes,
            };
            let deploy = Input::Deploy {
                function: name,
                settings: Box::new(settings),
                renew: false,
            };
            engine.tell(begin, deploy);
        }
        engine
    }

    fn arrive(&mut self, now: Moment, ticket: usize, function: usize) {
        self.tally.arrived(function);
        let Some(name) = self.names.get(function) else {
            return;
        };
        let arrive = Input::Arrive {
            function: name.clone(),
            ticket: Ticket(ticket as u64),
            deadline: now.after(self.patience),
        };
        self.tell(now, arrive);
    }

    fn happen(&mut self, now: Moment) {
        let Some(Reverse((_, event))) = self.events.pop() else {
            return;
        };
        let (Event::Served(index, instance, _) | Event::Started(index, instance)) = event;
        let Some(function) = self.names.get(index as usize).cloned() else {
            return;
        };
        self.idle.insert(instance, (index, now));
        let instance = Instance(instance);
        match event {
            Event::Served(_, _, work) => self.tell(
                now,
                Input::Served {
                    function,
                    instance,
                    work,
                },
            ),
            Event::Started(index, _) => {
                let start = self.start(index as usize);
                let measured = Input::Measured {
                    function: function.clone(),
                    start,
                };
                self.tell(now, measured);
                self.tell(now, Input::Started { function, instance });
            }
        }
    }

    fn start(&self, function: usize) -> Duration {
        let function = self.trace.functions().get(function);
        function.map_or(Duration::ZERO, |function| function.start)
    }

    fn tell(&mut self, now: Moment, input: Input) {
        for action in self.fleet.apply(now, input) {
            self.act(now, &action);
        }
    }

    fn act(&mut self, now: Moment, action: &Action) {
        match action {
            Action::Start { function, instance } => {
                let index = number(function);
                let start = self.start(index as usize);
                let ready = now.after(start);
                self.tally.started(start, self.weight(index));
                self.events
                    .push(Reverse((ready, Event::Started(index, instance.0))));
            }
            Action::Serve {
                function,
                ticket,
                instance,
                how,
            } => {
                self.used(now, *instance);
                self.tally.served(number(function) as usize, *how);
                let arrival = usize::try_from(ticket.0)
                    .ok()
                    .and_then(|ticket| self.trace.arrivals().get(ticket));
                let work = arrival.map_or(Duration::ZERO, |arrival| arrival.work());
                let served = Event::Served(number(function), instance.0, work);
                self.events.push(Reverse((now.after(work), served)));
            }
            Action::Refuse { function, .. } => self.tally.refused(number(function) as usize),
            Action::Retire { instance, .. } => self.used(now, *instance),
        }
    }

    /// It does not wait for work any more.
    fn used(&mut self, now: Moment, instance: Instance) {
        if let Some((function, since)) = self.idle.remove(&instance.0) {
            self.tally.idle(now.since(since), self.weight(function));
        }
    }

    fn weight(&self, function: u32) -> u64 {
        let function = self.trace.functions().get(function as usize);
        function.map_or(0, |function| function.memory_bytes)
    }

    /// What waits for work at the end did so until then.
    fn finish(mut self) -> Tally {
        for (function, since) in std::mem::take(&mut self.idle).into_values() {
            let idle = self.trace.end().since(since);
            self.tally.idle(idle, self.weight(function));
        }
        self.tally
    }
}

/// The number in the name of a function.
fn number(function: &FunctionName) -> u32 {
    let digits = function.as_str().get(1..).unwrap_or_default();
    digits.parse().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::{Builder, Function};
    use super::*;

    /// One function with an instance of a GiB that starts in two seconds, asked at these seconds for
    /// as many.
    fn trace(requests: &[(u64, u64)], end: u64) -> Trace {
        let mut builder = Builder::new(100);
        let function = builder.function(Function {
            name: "a".to_owned(),
            app: "a".to_owned(),
            trigger: None,
            memory_bytes: 1 << 30,
            start: Duration::from_secs(2),
        });
        for &(at, work) in requests {
            let at = Moment(Duration::from_secs(at));
            let arrived = builder.arrive(function, at, Duration::from_secs(work));
            arrived.expect("few of them");
        }
        builder.finish(Moment(Duration::from_secs(end)))
    }

    fn simulate(trace: &Trace, options: &Options) -> Report {
        run(trace, options, &Clairvoyant::of(trace), &mut |_| ())
    }

    fn fixed(seconds: u64) -> Options {
        Options::new(Choice::Fixed(Duration::from_secs(seconds)))
    }

    #[test]
    fn cold_starts_and_idle_memory_are_those_that_one_counts_by_hand() {
        // Cold at 0, done at 3; idle until 10: used again, done at 11; gone at 21. Cold at 50, done
        // at 53, and idle until the end.
        let trace = trace(&[(0, 1), (10, 1), (50, 1)], 60);
        let report = simulate(&trace, &fixed(10));
        assert_eq!(
            (report.requests, report.cold_starts, report.starts),
            (3, 2, 2)
        );
        let idle = f64::from((10 - 3) + (21 - 11) + (60 - 53));
        assert!((report.idle_memory_gib_s - idle).abs() < 1e-6, "{report:?}");
        // With as much, the gap of 9 is kept, and that of 39 is not.
        assert!(report.regret.abs() < 1e-9, "{report:?}");
        assert!((report.waited_share - 2.0 / 3.0).abs() < 1e-9);
        assert!((report.functions.p50 - 2.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn who_finds_all_at_work_starts_one_or_takes_the_first_that_is_done() {
        // The second one is served when the first is done, before its own has started.
        let report = simulate(&trace(&[(0, 1), (2, 9)], 20), &fixed(10));
        assert_eq!(
            (report.cold_starts, report.queued, report.starts),
            (1, 1, 2)
        );
        // Neither had one at once; the gap of a second between them could have been kept.
        assert!((report.cold_start_share - 0.5).abs() < 1e-9);
        assert!((report.waited_share - 1.0).abs() < 1e-9);
        assert!((report.regret - 0.5).abs() < 1e-9, "{report:?}");
    }

    #[test]
    fn memory_that_is_not_there_is_not_used() {
        let two_at_once = trace(&[(0, 30), (0, 30), (90, 1)], 200);
        let all = simulate(&two_at_once, &fixed(600));
        assert_eq!((all.refused, all.starts), (0, 2));
        let mut options = fixed(600);
        options.memory_bytes = Some(1 << 30);
        let one = simulate(&two_at_once, &options);
        assert_eq!((one.starts, one.queued), (1, 1));
        options.memory_bytes = Some(1 << 29);
        let none = simulate(&two_at_once, &options);
        // Who refuses all has no cold start, and does not look good for it.
        assert_eq!((none.refused, none.cold_starts), (3, 0));
        for share in [none.cold_start_share, none.waited_share, none.functions.p50] {
            assert!((share - 1.0).abs() < 1e-9, "{none:?}");
        }
    }
}
