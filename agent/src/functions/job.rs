//! One request at work in an instance. It waits, so it runs on a thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hearth_runtime::id::RequestId;
use hearth_runtime::sandbox::ask::Ended;
use hearth_runtime::sandbox::backend::{Cancel, Outcome, SandboxError, Work};
use hearth_runtime::sandbox::message::{Ask, fault};

use super::failure::{Unanswered, error_body, exited, failed, ran_out};
use super::invocation::{Ending, Invoked, Origin, Step};
use super::pool::{Cause, Death, During, Lease, Live, Pools, why_not};
use super::problem::{Kind, Problem};
use super::store::Deployed;
use super::tally::Came;
use crate::heal::fault::Interrupted;

/// A request for a function.
pub(super) struct Job {
    pub(super) request: RequestId,
    pub(super) ask: Ask,
    pub(super) timeout: Duration,
    pub(super) payload: Vec<u8>,
    pub(super) cancel: Cancel,
    /// When the request came in.
    pub(super) began: Instant,
    /// How often an instance was lost with it, where it may be done again.
    pub(super) replays: Option<u32>,
}

/// What became of a request that was given an instance.
pub(super) enum Worked {
    /// It is over.
    Over(Ending),
    /// The instance was gone before it heard of it, or it is to be done again.
    Lost(Job),
}

impl Job {
    /// Does it with this instance.
    pub(super) fn run(mut self, lease: Lease) -> Worked {
        let live = Arc::clone(lease.live());
        if live.listen().is_err() {
            let ended = lease.pools().take_away(&live);
            lease.ended(Death {
                during: During::Idle,
                cause: Cause::Exited.or_memory(ended.as_ref()),
                ended,
                elapsed: Duration::ZERO,
                interrupted: None,
            });
            return Worked::Lost(self);
        }
        let now = Instant::now();
        let mut steps = vec![Step {
            name: "wait".to_owned(),
            begin: Duration::ZERO,
            length: lease
                .birth()
                .map_or(now - self.began, |birth| birth.begin(self.began)),
        }];
        let mut origin = Origin::Warm;
        if let Some(birth) = lease.birth() {
            origin = birth.origin;
            steps.extend(birth.steps(self.began));
        }
        let outcome = self.invoke(&live);
        steps.push(Step {
            name: "invoke".to_owned(),
            begin: now - self.began,
            length: now.elapsed(),
        });
        let pools = Arc::clone(lease.pools());
        let Some(ending) = self.end(outcome, origin, steps, lease, now) else {
            self.replays = self.replays.map(|replays| replays + 1);
            self.timeout = self.timeout.saturating_sub(now.elapsed());
            return Worked::Lost(self);
        };
        self.was_replayed(&pools, &ending);
        Worked::Over(ending)
    }

    /// Tells what became of one that was done again.
    pub(super) fn was_replayed(&self, pools: &Pools, ending: &Ending) {
        let Some(healer) = pools.healer().filter(|_| self.replays > Some(0)) else {
            return;
        };
        match ending {
            Ok(invoked) => healer.replayed(self.request, why_not(&invoked.outcome)),
            Err(problem) => healer.replayed(self.request, Some(&problem.to_string())),
        }
    }

    /// What is lost with an instance that ends now.
    fn interrupted(&self, began: Instant) -> Option<Interrupted> {
        let left = self.timeout.saturating_sub(began.elapsed());
        self.replays.map(|replays| Interrupted {
            id: self.request,
            left_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            replays,
        })
    }

    /// What became of it, unless it is to be done again; the instance goes back, or to its end.
    pub(super) fn end(
        &self,
        outcome: Result<Outcome, SandboxError>,
        origin: Origin,
        steps: Vec<Step>,
        lease: Lease,
        began: Instant,
    ) -> Option<Ending> {
        let live = Arc::clone(lease.live());
        let work = began.elapsed();
        let claimed = lease.birth().and_then(|birth| birth.claimed);
        let cause = match &outcome {
            Ok(Outcome::Failed { kind, .. }) => ending(kind),
            Ok(Outcome::Answered(_)) => None,
            Err(SandboxError::Gone) => Some(Cause::Killed),
            Err(_) => Some(Cause::Lost),
        };
        let unanswered = if let Some(cause) = cause {
            let ended = lease.pools().take_away(&live);
            let told = self.told(outcome, &live, ended.as_ref());
            let again = lease.ended(Death {
                during: During::Work(self.request),
                cause: match cause {
                    Cause::Exited | Cause::Killed => cause.or_memory(ended.as_ref()),
                    cause => cause,
                },
                ended,
                elapsed: work,
                interrupted: self.interrupted(began),
            });
            if again {
                return None;
            }
            told
        } else {
            lease.served(work);
            outcome.map(said).map_err(|error| lost(&error))
        };
        let came = match (&unanswered, cause) {
            (Ok(Outcome::Answered(_)), _) => Came::Answered,
            (_, Some(Cause::TimedOut)) => Came::TimedOut,
            _ => Came::Failed,
        };
        live.function.state().tally.over(came, Some(work));
        let outcome = match unanswered {
            Ok(outcome) => outcome,
            Err(problem) => return Some(Err(problem)),
        };
        Some(Ok(Arc::new(Invoked {
            request: self.request,
            function: live.deployed.name.clone(),
            version: live.deployed.version,
            sandbox: live.id(),
            origin,
            claimed,
            steps,
            outcome,
        })))
    }

    fn invoke(&self, live: &Live) -> Result<Outcome, SandboxError> {
        let mut sandbox = live.sandbox();
        let (Some(sandbox), Some(id)) = (sandbox.as_mut(), live.id()) else {
            return Err(SandboxError::Gone);
        };
        let work = Work {
            request: self.request,
            ask: Ask {
                arn: arn(&live.deployed),
                ..self.ask.clone()
            },
            left: self.timeout,
            payload: &self.payload,
        };
        sandbox.invoke(work, &self.cancel, &mut |told| live.function.hear(id, told))
    }

    /// What is told of one that ended its sandbox.
    fn told(
        &self,
        outcome: Result<Outcome, SandboxError>,
        live: &Live,
        ended: Option<&Ended>,
    ) -> Unanswered {
        let (kind, body) = match outcome {
            Ok(Outcome::Failed { kind, body }) => (kind, body),
            Ok(answered) => return Ok(answered),
            Err(SandboxError::Gone) => return Ok(exited(live.limit(), ended)),
            Err(error) => return Err(lost(&error)),
        };
        Ok(if kind == fault::TIMED_OUT {
            let message = format!(
                "Task timed out after {:.2} seconds",
                self.timeout.as_secs_f64()
            );
            failed(&kind, &message)
        } else if kind == fault::CANCELLED {
            let message = if live.function.state().is_removed {
                "the function was removed"
            } else {
                "nobody waited for the answer any more"
            };
            failed(&kind, message)
        } else if body.is_empty() || ran_out(ended) {
            exited(live.limit(), ended)
        } else {
            Outcome::Failed { kind, body }
        })
    }
}

/// Whether the sandbox ends with such a failure, and why.
pub(super) fn ending(kind: &str) -> Option<Cause> {
    match kind {
        fault::TIMED_OUT => Some(Cause::TimedOut),
        fault::CANCELLED => Some(Cause::Cancelled),
        fault::EXITED => Some(Cause::Exited),
        _ => None,
    }
}

/// What was left unsaid is filled in.
fn said(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Failed { kind, body } if body.is_empty() => {
            let body = error_body(&kind, "the function said no more than that");
            Outcome::Failed { kind, body }
        }
        said => said,
    }
}

/// The sandbox was lost with it.
fn lost(error: &SandboxError) -> Problem {
    Problem::new(
        Kind::Lost,
        error.to_string(),
        "the function may have done its work or not: see its logs",
    )
}

/// What functions know themselves by.
pub(super) fn arn(deployed: &Deployed) -> String {
    format!(
        "arn:hearth:lambda:local:000000000000:function:{}:{}",
        deployed.name, deployed.version
    )
}
