//! Sandboxes of an agent before this one: what they were at work on is waited for, what cannot be
//! used any more is ended.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use hearth_runtime::id::{FunctionName, RequestId};
use hearth_runtime::sandbox::ask::Listed;
use hearth_runtime::sandbox::backend::{Backend as _, Cancel, Hello, Sandbox};
use hearth_runtime::sandbox::message::{Ask, State};

use super::function::{About, Busy, Function, Idle};
use super::invocation::Origin;
use super::job::{Job, no_sandbox};
use super::manager::{Manager, Shared, blocking, lock, on_thread};
use super::node::Node as _;
use super::problem::Problem;

impl Manager {
    /// Looks for them, once; whoever comes meanwhile waits until it is done.
    pub(super) async fn adopt(&self) -> Result<(), Problem> {
        let mut adopted = self.0.adopted.lock().await;
        if !*adopted {
            let manager = self.clone();
            blocking(move || manager.find_all()).await??;
            *adopted = true;
        }
        Ok(())
    }

    fn find_all(&self) -> Result<(), Problem> {
        let listed = self.0.node.list();
        let listed = listed.map_err(|error| no_sandbox(&error))?;
        let all = listed.len();
        let kept = listed.iter().filter(|one| self.find(one)).count();
        if all > 0 {
            tracing::info!("found {all} sandboxes that were there before; {kept} of them go on");
        }
        Ok(())
    }

    /// Whether this one can be used.
    fn find(&self, listed: &Listed) -> bool {
        let found = self.0.node.find(listed).ok();
        let used = found.is_some_and(|(sandbox, hello)| self.take_in(listed, sandbox, hello));
        if !used {
            self.0.end_all(&[listed.sandbox]);
        }
        used
    }

    fn take_in(&self, listed: &Listed, sandbox: Box<dyn Sandbox>, hello: Hello) -> bool {
        let Some((name, version)) = hello.function else {
            return false;
        };
        let Ok(function) = self.function(&name) else {
            return false;
        };
        let idle = Idle {
            sandbox,
            about: About {
                id: listed.sandbox,
                version,
                slot: listed.slot.to_string(),
                pid: listed.init.pid,
                began: SystemTime::now(),
            },
            since: Instant::now(),
        };
        match hello.state {
            State::Idle => {
                let mut state = function.state();
                let is_current = state.deployed.version == version;
                if is_current {
                    state.idle.push_back(idle);
                }
                is_current
            }
            State::Work { request } | State::Answered { request } => {
                self.wait_for(&name, &function, idle, request)
            }
            State::Parked | State::Starting | State::Over => false,
        }
    }

    /// Waits for what becomes of a request that an agent before this one gave it.
    fn wait_for(
        &self,
        name: &FunctionName,
        function: &Arc<Function>,
        mut idle: Idle,
        request: RequestId,
    ) -> bool {
        let deployed = self.0.version(name, idle.about.version);
        let (Some(deployed), Ok(cancel)) = (deployed, Cancel::new()) else {
            return false;
        };
        if lock(&self.0.outcomes).begin(request).is_err() {
            return false;
        }
        let busy = Busy {
            version: idle.about.version,
            cancel: cancel.clone(),
            about: Some(idle.about.clone()),
        };
        function.state().busy.insert(request, busy);
        let job = Job {
            node: Arc::clone(&self.0.node),
            function: Arc::clone(function),
            // The sandbox knows when its time is over; this is for the case that it does not say.
            timeout: deployed.definition.timeout.0,
            deployed,
            layers: Vec::new(),
            request,
            ask: Ask::default(),
            payload: Vec::new(),
            cancel,
            watcher: None,
            began: Instant::now(),
            steps: Vec::new(),
            claimed: None,
        };
        let (shared, of): (Arc<Shared>, _) = (Arc::clone(&self.0), Arc::clone(function));
        let work = move || {
            let id = idle.about.id;
            let outcome = idle
                .sandbox
                .outcome(request, job.timeout, &job.cancel, &mut |told| {
                    of.hear(id, told);
                });
            let (ending, idle) = job.end(outcome, Origin::Found, idle);
            let unused = of.give_back(request, idle);
            lock(&shared.outcomes).end(request, ending, Instant::now());
            shared.end_all(unused.as_slice());
            of.tell_change();
        };
        let started = on_thread(work).is_ok();
        if !started {
            function.state().busy.remove(&request);
            lock(&self.0.outcomes).abandon(request);
        }
        started
    }
}
