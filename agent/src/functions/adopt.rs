//! Sandboxes of an agent before this one: what they were at work on is waited for, what cannot be
//! used any more is ended.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use hearth_runtime::id::RequestId;
use hearth_runtime::sandbox::ask::Listed;
use hearth_runtime::sandbox::backend::{Backend as _, Cancel, Hello, Sandbox, SandboxError};
use hearth_runtime::sandbox::message::{Ask, State};

use super::failure::no_sandbox;
use super::invocation::Origin;
use super::job::Job;
use super::manager::{Manager, blocking, lock};
use super::node::Node as _;
use super::pool::{About, Found, Lease};
use super::problem::Problem;

/// Sandboxes that are spoken with at once.
const AT_ONCE: usize = 64;
/// Of a thread that waits for one: it needs little.
const STACK: usize = 256 << 10;
/// Times that one is spoken to.
const ATTEMPTS: u32 = 4;
/// Time between them.
const PAUSE: Duration = Duration::from_millis(50);

/// What can be used of one, and the request that it is at work on.
type Usable = (Found, Option<RequestId>);

impl Manager {
    /// Looks for them, once; whoever comes meanwhile waits until it is done.
    pub(super) async fn adopt(&self) -> Result<(), Problem> {
        let find = || async {
            let manager = self.clone();
            blocking(move || manager.find_all()).await?
        };
        self.0.adopted.get_or_try_init(find).await.copied()
    }

    fn find_all(&self) -> Result<(), Problem> {
        let listed = self.0.node.list();
        let listed = listed.map_err(|error| no_sandbox(&error))?;
        let pools = &self.0.pools;
        // Whoever is deployed from now on has a pool; those that were before get one here.
        pools.open();
        for function in self.functions() {
            pools.expect(&function, false);
            pools.resume(&function);
        }
        let (mut idle, mut busy, mut old) = (Vec::new(), Vec::new(), Vec::new());
        for (one, found) in self.find_each(&listed) {
            match found {
                Some((found, request)) => {
                    let current = found.function.state().deployed.version;
                    match request {
                        Some(request) if current == found.deployed.version => {
                            busy.push((found, request));
                        }
                        Some(request) => old.push((found, request)),
                        None if current == found.deployed.version => idle.push(found),
                        None => self.0.end(one.sandbox),
                    }
                }
                None => self.0.end(one.sandbox),
            }
        }
        let kept = idle.len() + busy.len() + old.len();
        for (found, request) in old {
            let function = Arc::clone(&found.function);
            self.wait_for(found, request);
            // It goes when it is done.
            pools.expect(&function, true);
        }
        for (found, request) in busy {
            let (function, version) = (Arc::clone(&found.function), found.deployed.version);
            self.wait_for(found, request);
            if function.state().deployed.version != version {
                // Another one was deployed meanwhile.
                pools.expect(&function, true);
            }
        }
        for found in idle {
            pools.found(found);
        }
        // Only now is it known how many are missing.
        for function in self.functions() {
            pools.deploy(&function, false);
        }
        if !listed.is_empty() {
            let all = listed.len();
            tracing::info!("found {all} sandboxes that were there before; {kept} of them go on");
        }
        Ok(())
    }

    /// Speaks with all of them at once: one that does not answer takes a while, and everybody waits
    /// for the last one.
    fn find_each<'a>(&self, listed: &'a [Listed]) -> Vec<(&'a Listed, Option<Usable>)> {
        let next = AtomicUsize::new(0);
        let all = Mutex::new(Vec::with_capacity(listed.len()));
        let find = || {
            while let Some(one) = listed.get(next.fetch_add(1, Ordering::Relaxed)) {
                let found = self.find(one);
                lock(&all).push((one, found));
            }
        };
        thread::scope(|scope| {
            for _ in 1..listed.len().min(AT_ONCE) {
                let thread = thread::Builder::new().stack_size(STACK);
                // Those that are there do it, if need be this one alone.
                if thread.spawn_scoped(scope, find).is_err() {
                    break;
                }
            }
            find();
        });
        all.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Speaks with it. Where its socket is busy that is tried again before it counts as lost; one
    /// that takes no notice of who is connected had its time.
    fn reach(&self, listed: &Listed) -> Option<(Box<dyn Sandbox>, Hello)> {
        for attempt in 1.. {
            match self.0.node.find(listed) {
                Ok(found) => return Some(found),
                Err(SandboxError::Gone) => return None,
                Err(error) if attempt >= ATTEMPTS || matches!(error, SandboxError::Silent(_)) => {
                    tracing::warn!("sandbox {} is given up: {error}", listed.sandbox);
                    return None;
                }
                Err(_) => thread::sleep(PAUSE),
            }
        }
        None
    }

    /// What can be used of it, and the request that it is at work on.
    fn find(&self, listed: &Listed) -> Option<Usable> {
        let (sandbox, hello) = self.reach(listed)?;
        let (name, version) = hello.function?;
        let function = self.function(&name).ok()?;
        let request = match hello.state {
            State::Idle => None,
            State::Work { request } | State::Answered { request } => Some(request),
            State::Parked | State::Starting | State::Over => return None,
        };
        let found = Found {
            deployed: self.0.version(&name, version)?,
            function,
            about: About {
                id: listed.sandbox,
                slot: listed.slot.to_string(),
                cgroup: None,
                pid: listed.init.pid,
                began: SystemTime::now(),
                claimed: None,
            },
            sandbox,
        };
        Some((found, request))
    }

    /// Waits for what becomes of a request that an agent before this one gave it.
    fn wait_for(&self, found: Found, request: RequestId) {
        let id = found.about.id;
        let Ok(cancel) = Cancel::new() else {
            return self.0.end(id);
        };
        if lock(&self.0.outcomes).begin(request).is_err() {
            return self.0.end(id);
        }
        let lease = self.0.pools.found_at_work(found, cancel.clone());
        let Some(lease) = lease else {
            return;
        };
        let job = Job {
            request,
            ask: Ask::default(),
            // The sandbox knows when its time is over; this is for the case that it does not say.
            timeout: lease.live().deployed.definition.timeout.0,
            payload: Vec::new(),
            cancel,
            began: Instant::now(),
            // What it was asked is not known here.
            replays: None,
        };
        let manager = self.clone();
        let work = move || manager.hear_out(&job, lease);
        if self.0.working.run(work).is_err() {
            // The lease went with the work: nothing is known of the request any more.
            lock(&self.0.outcomes).abandon(request);
        }
    }

    fn hear_out(&self, job: &Job, lease: Lease) {
        let live = Arc::clone(lease.live());
        let outcome = match (live.sandbox().as_mut(), live.id()) {
            (Some(sandbox), Some(id)) => {
                sandbox.outcome(job.request, job.timeout, &job.cancel, &mut |told| {
                    live.function.hear(id, told);
                })
            }
            _ => Err(SandboxError::Gone),
        };
        let ending = job.end(outcome, Origin::Found, Vec::new(), lease, job.began);
        if let Some(ending) = ending {
            lock(&self.0.outcomes).end(job.request, ending, Instant::now());
        }
    }
}
