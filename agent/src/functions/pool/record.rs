//! A recording of what the fleet is told and what it wants: the same inputs at the same moments give
//! the same actions again (`hearth_runtime::pool::simulate::recorded`).

use std::sync::Arc;

use hearth_runtime::pool::simulate::recorded::Record;
use hearth_runtime::pool::{Action, BackOff, Fleet, Input, Moment};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::live::Doing;
use super::{Inner, Pools, expected};
use crate::functions::manager::lock;
use crate::functions::problem::{Kind, Problem};

/// Records that wait to be written; one more, and the recording breaks off.
const WAITING: usize = 16 << 10;

/// Somebody records.
pub(super) struct Recorder(Sender<Record>);

/// What is recorded, as it comes. It ends without a [`None`] of its own where whoever reads is too
/// slow: what was read until then is whole.
pub struct Recording {
    records: Receiver<Record>,
    _pools: Arc<Pools>,
}

impl Recording {
    /// The next record; none where whoever reads was too slow.
    pub async fn next(&mut self) -> Option<Record> {
        self.records.recv().await
    }
}

impl Recorder {
    /// Takes note of one; false where there is no room for it, and no use in what comes after.
    pub(super) fn take(&self, at: Moment, input: Input, actions: &[Action]) -> bool {
        let record = Record {
            at,
            input,
            actions: actions.to_vec(),
        };
        self.0.try_send(record).is_ok()
    }
}

impl Pools {
    /// Records from now on; one at a time. First comes what there is, as a fleet would be told of it
    /// that knows nothing.
    pub(in super::super) fn record(self: &Arc<Self>) -> Result<Recording, Problem> {
        let mut inner = lock(&self.inner);
        let is_taken = |recorder: &Recorder| !recorder.0.is_closed();
        if inner.recorder.as_ref().is_some_and(is_taken) {
            let detail = "somebody else records the pools";
            return Err(Problem::new(Kind::Busy, detail, "try again later"));
        }
        let now = self.clock.now();
        let inputs = inner.as_it_is();
        let (to, records) = channel(WAITING.max(inputs.len()) + WAITING);
        let recorder = Recorder(to);
        let mut fleet = Fleet::default();
        for input in inputs {
            let actions = fleet.apply(now, input.clone());
            recorder.take(now, input, &actions);
        }
        inner.recorder = Some(recorder);
        Ok(Recording {
            records,
            _pools: Arc::clone(self),
        })
    }
}

impl Inner {
    /// What a fleet is to be told that knows nothing.
    fn as_it_is(&mut self) -> Vec<Input> {
        let mut inputs = Vec::new();
        if let Some(bytes) = self.fleet.budget() {
            inputs.push(Input::Budget { bytes });
        }
        let deploy = |function: &_, settings| Input::Deploy {
            function: Clone::clone(function),
            settings: Box::new(settings),
            renew: false,
        };
        let mut pools = Vec::new();
        for (name, pool) in self.fleet.pools() {
            let (scheduled, back_off) = (pool.wanted_by_schedule(), pool.pause());
            pools.push((name.clone(), pool.settings().clone(), scheduled, back_off));
            inputs.push(deploy(name, expected(pool.settings())));
            inputs.push(Input::Weighed {
                function: name.clone(),
                bytes: pool.weight(),
            });
        }
        for (instance, entry) in &self.live {
            let busy = match entry.doing {
                Doing::Idle => false,
                Doing::Busy(_) => true,
                Doing::Starting | Doing::Retired => continue,
            };
            inputs.push(Input::Found {
                function: entry.live.deployed.name.clone(),
                instance: *instance,
                busy,
            });
        }
        if let Some((name, ..)) = pools.first() {
            // Numbers go on from here.
            let instance = self.fleet.number();
            for input in [
                Input::Found {
                    function: name.clone(),
                    instance,
                    busy: true,
                },
                Input::Ended {
                    function: name.clone(),
                    instance,
                    fault: false,
                    replace: false,
                    outgrown: false,
                },
            ] {
                inputs.push(input);
            }
        }
        for (name, settings, scheduled, back_off) in pools {
            if scheduled > 0 {
                inputs.push(Input::Scheduled {
                    function: name.clone(),
                    instances: scheduled,
                });
            }
            if back_off != BackOff::default() {
                inputs.push(Input::Resumed {
                    function: name.clone(),
                    back_off,
                });
            }
            inputs.push(deploy(&name, settings));
        }
        inputs
    }
}
