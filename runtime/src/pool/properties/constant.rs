//! A load that does not change.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::super::policy::Choice;
use super::super::{Action, Fleet, Input, Instance, Moment, Settings, Ticket};
use crate::id::FunctionName;

/// When it has settled,
const SETTLED: Duration = Duration::from_mins(45);
/// and until when it is looked at.
const END: Duration = Duration::from_mins(90);

/// So many requests at once, again and again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) at_once: u32,
    pub(super) every: Duration,
    pub(super) work: Duration,
    pub(super) start: Duration,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Served(Instance),
    Started(Instance),
    Arrive,
}

impl Load {
    /// The instances that started or ended after it had settled.
    pub(super) fn changes(self, policy: Choice) -> Vec<(Moment, Action)> {
        let function: FunctionName = "f".parse().unwrap();
        let mut fleet = Fleet::default();
        let mut events = BinaryHeap::from([Reverse((Moment::default(), Event::Arrive))]);
        let mut changes = Vec::new();
        let mut ticket = 0;
        let settings = Settings {
            min: 0,
            max: 100,
            reserved: 0,
            queue: 100,
            hold: false,
            policy,
            memory_bytes: 1 << 27,
        };
        let mut inputs = vec![Input::Deploy {
            function: function.clone(),
            settings: Box::new(settings),
            renew: false,
        }];
        let mut now = Moment::default();
        while now.0 < END {
            for input in inputs.drain(..) {
                for action in fleet.apply(now, input) {
                    match action {
                        Action::Serve { instance, .. } => {
                            events.push(Reverse((now.after(self.work), Event::Served(instance))));
                        }
                        Action::Refuse { .. } => panic!("{action:?}"),
                        Action::Start { instance, .. } => {
                            let ready = now.after(self.start);
                            events.push(Reverse((ready, Event::Started(instance))));
                            changes.push((now, action));
                        }
                        Action::Retire { .. } => changes.push((now, action)),
                    }
                }
            }
            let event = events.peek().map(|Reverse((at, _))| *at);
            let due = fleet
                .next()
                .filter(|due| event.is_none_or(|event| *due < event));
            if let Some(due) = due {
                now = due;
                inputs.push(Input::Tick);
                continue;
            }
            let Some(Reverse((at, event))) = events.pop() else {
                break;
            };
            now = at;
            let function = function.clone();
            match event {
                Event::Served(instance) => inputs.push(Input::Served {
                    function,
                    instance,
                    work: self.work,
                }),
                Event::Started(instance) => inputs.extend([
                    Input::Measured {
                        function: function.clone(),
                        start: self.start,
                    },
                    Input::Started { function, instance },
                ]),
                Event::Arrive => {
                    for _ in 0..self.at_once {
                        ticket += 1;
                        inputs.push(Input::Arrive {
                            function: function.clone(),
                            ticket: Ticket(ticket),
                            deadline: now.after(Duration::from_mins(10)),
                        });
                    }
                    events.push(Reverse((now.after(self.every), Event::Arrive)));
                }
            }
        }
        changes.retain(|(at, _)| at.0 > SETTLED);
        changes
    }
}
