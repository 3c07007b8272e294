//! Asking for an instance, and having it for one request.

use std::sync::Arc;
use std::time::Duration;

use hearth_runtime::id::FunctionName;
use hearth_runtime::pool::{Input, Moment, Reason, Refusal, Served, Ticket};
use hearth_runtime::sandbox::backend::Cancel;
use tokio::sync::oneshot;

use super::ended::Cause;
use super::live::Birth;
use super::{Answer, Death, During, Failure, Live, Pools, Waiter};

/// A request that waits for an instance: when this is dropped it does not any more.
pub(in super::super) struct Asked {
    pools: Arc<Pools>,
    function: FunctionName,
    cancel: Cancel,
    ticket: Ticket,
    deadline: Moment,
    answer: oneshot::Receiver<Answer>,
    is_answered: bool,
}

/// Why a request got no instance.
pub(in super::super) struct Unserved {
    pub(in super::super) refusal: Refusal,
    /// How the start failed that it waited for.
    pub(in super::super) failure: Option<Arc<Failure>>,
}

impl Pools {
    /// Asks for an instance, which is waited for so long.
    pub(in super::super) fn ask(
        self: &Arc<Self>,
        function: &FunctionName,
        patience: Duration,
        cancel: &Cancel,
    ) -> Asked {
        let (tell, answer) = oneshot::channel();
        let mut asked = Asked {
            pools: Arc::clone(self),
            function: function.clone(),
            cancel: cancel.clone(),
            ticket: Ticket::default(),
            deadline: Moment::default(),
            answer,
            is_answered: false,
        };
        self.tell(|inner, now, _| {
            inner.tickets += 1;
            asked.ticket = Ticket(inner.tickets);
            asked.deadline = now.after(patience);
            inner.waiting.insert(asked.ticket, asked.waiter(tell));
            Some(Input::Arrive {
                function: function.clone(),
                ticket: asked.ticket,
                deadline: asked.deadline,
            })
        });
        asked
    }
}

impl Asked {
    fn waiter(&self, tell: oneshot::Sender<Answer>) -> Waiter {
        Waiter {
            cancel: self.cancel.clone(),
            tell,
        }
    }

    /// Asks once more, before all others: what it had been given is lost.
    pub(in super::super) fn again(&mut self) {
        let (tell, answer) = oneshot::channel();
        self.answer = answer;
        self.is_answered = false;
        let (function, ticket) = (self.function.clone(), self.ticket);
        let deadline = self.deadline;
        self.pools.tell(|inner, _, _| {
            inner.waiting.insert(ticket, self.waiter(tell));
            // Who comes again to a function that is gone would not be told.
            Some(if inner.fleet.pool(&function).is_some() {
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
            })
        });
    }

    /// Waits for it.
    pub(in super::super) async fn answer(&mut self) -> Result<Lease, Unserved> {
        loop {
            let now = self.pools.clock.now();
            let left = self.deadline.since(now).max(Duration::from_millis(1));
            let answer = tokio::time::timeout(left, &mut self.answer).await;
            self.is_answered = answer.is_ok();
            match answer {
                Ok(Ok(Answer::Serve(lease))) => return Ok(lease),
                Ok(Ok(Answer::Refuse(refusal, failure))) => {
                    return Err(Unserved { refusal, failure });
                }
                // It cannot be: who waits is told before it is forgotten.
                Ok(Err(_)) => {
                    let refusal = Refusal {
                        reason: Reason::Removed,
                        retry_after: Duration::ZERO,
                    };
                    return Err(Unserved {
                        refusal,
                        failure: None,
                    });
                }
                // Then the fleet refuses it.
                Err(_) => self.pools.tick(),
            }
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        // Of one that has its answer nothing is known here any more.
        if self.is_answered {
            return;
        }
        let (function, ticket) = (self.function.clone(), self.ticket);
        self.pools.tell(|inner, _, _| {
            inner.waiting.remove(&ticket)?;
            Some(Input::Cancel { function, ticket })
        });
    }
}

/// An instance for one request. Whoever has it says what became of it; where it is dropped it was
/// not used.
pub(in super::super) struct Lease {
    pools: Arc<Pools>,
    live: Arc<Live>,
    birth: Option<Birth>,
    is_over: bool,
}

impl Lease {
    pub(super) fn new(pools: Arc<Pools>, live: Arc<Live>, how: Served) -> Self {
        let birth = live.take_birth();
        Self {
            pools,
            live,
            birth: birth.filter(|_| how == Served::Miss),
            is_over: false,
        }
    }

    /// The instance.
    pub(in super::super) const fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// How it came up, where the request had to wait for that.
    pub(in super::super) const fn birth(&self) -> Option<&Birth> {
        self.birth.as_ref()
    }

    /// The pools, for who ends it.
    pub(in super::super) const fn pools(&self) -> &Arc<Pools> {
        &self.pools
    }

    /// It is done with a request, which took so long, and waits for the next one.
    pub(in super::super) fn served(mut self, work: Duration) {
        self.is_over = true;
        self.pools
            .is_idle(&self.live, |function, instance| Input::Served {
                function,
                instance,
                work,
            });
    }

    /// It has ended; whether its request is to be done again.
    pub(in super::super) fn ended(mut self, death: Death) -> bool {
        self.is_over = true;
        self.pools.ended(&self.live, death)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        if std::thread::panicking() {
            // Nobody knows what it does.
            let ended = self.pools.take_away(&self.live);
            let death = Death {
                during: During::Idle,
                cause: Cause::Lost,
                ended,
                elapsed: Duration::ZERO,
                interrupted: None,
            };
            self.pools.ended(&self.live, death);
            return;
        }
        self.pools
            .is_idle(&self.live, |function, instance| Input::Unused {
                function,
                instance,
            });
    }
}
