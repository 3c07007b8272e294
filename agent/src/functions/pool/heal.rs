//! What is done about an instance that ended: told to who decides that, and told what came of it.

use std::sync::Arc;

use hearth_runtime::pool::{BackOff, Input, Moment};
use hearth_runtime::sandbox::ask::Ended;
use hearth_runtime::sandbox::backend::Outcome;

use super::ended::{Cause, Death, During};
use super::live::{Birth, Doing};
use super::{Live, Pools};
use crate::functions::function::Function;
use crate::functions::manager::lock;
use crate::functions::store::Deployed;
use crate::heal::decide::PoolNow;
use crate::heal::fault::{Failing, Lost};
use crate::heal::healer::CameUp;
use crate::heal::{Fault, Healer, Verdict, What};
use crate::time::Boottime;

impl Pools {
    /// Who decides about faults, if somebody does.
    pub(in super::super) fn healer(&self) -> Option<&Healer> {
        self.healer.get()
    }

    /// Faults are decided about from now on.
    pub(in super::super) fn heal_by(&self, healer: Healer) {
        // It gets one once.
        let _ = self.healer.set(healer);
    }

    /// The memory that an instance which starts now is given.
    pub(super) fn memory(&self, live: &Live) -> u64 {
        self.memory_of(&live.deployed)
    }

    pub(super) fn memory_of(&self, deployed: &Deployed) -> u64 {
        let terms = deployed.definition.terms();
        self.healer().map_or(terms.memory, |healer| {
            healer.memory_of(&deployed.name, deployed.version, &terms)
        })
    }

    /// What is to be done about the end of an instance.
    pub(super) fn heal(self: &Arc<Self>, live: &Live, death: &Death) -> Verdict {
        let Some(healer) = self.healer() else {
            return Verdict::default();
        };
        let instance = live.instance.0;
        if let During::Start(failure) = &death.during {
            if live.about().is_some() {
                healer.not_started(instance, &failure.why());
            } else {
                healer.no_sandbox(instance);
            }
        }
        let Some(what) = what(live, death) else {
            return Verdict::default();
        };
        let Some((pool, failing)) = self.pool_after(live, death) else {
            return Verdict::default();
        };
        if let Some(again) = death.interrupted.filter(|again| again.replays > 0) {
            healer.replayed(again.id, Some("its next sandbox failed, too"));
        }
        let deployed = &live.deployed;
        let fault = Fault {
            what,
            function: deployed.name.clone(),
            version: deployed.version,
            instance,
            lost: live.about().map(|about| Lost {
                sandbox: about.id,
                slot: about.slot.clone(),
                cgroup: about.cgroup.clone(),
                claimed: about.claimed,
            }),
            request: death.interrupted,
            failing,
            at: Boottime::now(),
        };
        let terms = deployed.definition.terms();
        let verdict = healer.fault(fault, &terms, pool);
        if verdict.raise {
            self.weigh(&live.function);
        }
        verdict
    }

    /// The fleet counts with the memory that instances of a function are given from now on.
    pub(super) fn weigh(self: &Arc<Self>, function: &Function) {
        let deployed = Arc::clone(&function.state().deployed);
        let bytes = self.memory_of(&deployed);
        self.tell(|_, _, _| {
            Some(Input::Weighed {
                function: deployed.name.clone(),
                bytes,
            })
        });
    }

    /// How the pool is after this; none where it was retired, or is gone.
    fn pool_after(&self, live: &Live, death: &Death) -> Option<(PoolNow, Option<Failing>)> {
        let budget = lock(&self.budget).most();
        let inner = lock(&self.inner);
        let entry = inner.live.get(&live.instance)?;
        let pool = inner.fleet.pool(&live.deployed.name)?;
        let is_removed = live.function.state().is_removed;
        if matches!(entry.doing, Doing::Retired) || is_removed {
            return None;
        }
        let now = self.clock.now();
        let mut back_off: BackOff = pool.pause();
        // One that got no sandbox had no chance to fail.
        let is_start = matches!(death.during, During::Start(_)) && live.about().is_some();
        let is_old = pool.is_old(live.instance);
        if !is_old && (is_start || death.is_fault(live.deployed.definition.timeout.0)) {
            back_off.failed(now, live.instance);
        }
        let pool = PoolNow {
            pause: back_off.left(now),
            instances: pool.instances(),
            budget,
        };
        let failing = (!is_old && back_off.failures() > 0).then(|| Failing {
            failures: back_off.failures(),
            until: Boottime(back_off.until().into()),
        });
        Some((pool, failing))
    }

    /// A function that was failing before this agent began is left alone for as long as it was to be.
    pub(in super::super) fn resume(self: &Arc<Self>, function: &Function) {
        let Some(healer) = self.healer() else { return };
        let deployed = Arc::clone(&function.state().deployed);
        let Some(failing) = healer.failing(&deployed.name, deployed.version) else {
            return;
        };
        self.tell(|_, now, _| {
            let until = Moment::from(failing.until.0);
            Some(Input::Resumed {
                function: deployed.name.clone(),
                back_off: BackOff::resumed(now, failing.failures, until),
            })
        });
    }

    /// One is being started.
    pub(super) fn is_starting(&self, live: &Live) {
        if let Some(healer) = self.healer() {
            healer.starting(&live.deployed.name, live.instance.0);
        }
    }

    /// One came up.
    pub(super) fn came_up(&self, live: &Live, birth: Option<&Birth>) {
        if let (Some(healer), Some(about)) = (self.healer(), live.about()) {
            let came_up = CameUp {
                sandbox: about.id,
                claimed: about.claimed,
                memory_bytes: birth.and_then(|birth| birth.memory_bytes),
            };
            healer.started(live.instance.0, &came_up);
        }
    }
}

/// What happened to it, where that was a fault.
fn what(live: &Live, death: &Death) -> Option<What> {
    let ended = death.ended.as_ref();
    let how = how(ended);
    Some(match (death.cause, &death.during) {
        (Cause::Cancelled, _) => return None,
        (Cause::OutOfMemory, _) => What::OomKilled {
            limit_bytes: live.limit(),
            peak_bytes: ended.and_then(|ended| ended.peak_bytes),
        },
        (_, During::Start(failure)) => What::NotStarted { why: failure.why() },
        (Cause::TimedOut, _) => What::Hung {
            after_ms: u64::try_from(death.elapsed.as_millis()).unwrap_or(u64::MAX),
        },
        (Cause::Killed, _) => What::Killed { how },
        // Nobody asked anything of it: how it ended says who ended it.
        (Cause::Exited, During::Idle) if death.is_by_signal() => What::Killed { how },
        (Cause::Exited, _) => What::Crashed { how },
        (Cause::Lost | Cause::Refused | Cause::NoSandbox, _) => What::Silent { how },
    })
}

fn how(ended: Option<&Ended>) -> String {
    let nobody = || "nobody saw how".to_owned();
    ended.map_or_else(nobody, |ended| ended.how.to_string())
}

/// Whether a request that was done again was answered; else why not.
pub(in super::super) fn why_not(outcome: &Outcome) -> Option<&str> {
    match outcome {
        Outcome::Failed { kind, .. } if crate::functions::job::ending(kind).is_some() => Some(kind),
        // A function that says an error has answered.
        Outcome::Failed { .. } | Outcome::Answered(_) => None,
    }
}
