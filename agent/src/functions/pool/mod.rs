//! The pools of this node: what happens to instances is told to the [`Fleet`], and what it wants done
//! is done.
//!
//! - [`live`]: one instance; [`lease`]: one that is at work on a request.
//! - [`start`]: how one comes up, [`measure`]: and how long that took; [`memory`]: what one has;
//!   [`ended`]: how one ends, whatever the reason; [`heal`]: what is done about that.
//! - [`record`]: what happened, to be decided once more.
//!
//! The lock is held while the fleet decides, and for nothing that waits: what is to be done is done
//! after it. So inputs are in the order of their moments, and the same ones give the same actions
//! again.

mod ended;
mod heal;
mod lease;
mod live;
mod measure;
mod memory;
mod record;
mod start;
#[cfg(test)]
mod tests;
mod told;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use hearth_runtime::id::{FunctionName, SandboxId};
use hearth_runtime::pool::{
    Action, Fleet, Input, Instance, Moment, Reason, Refusal, Served, Settings, Ticket,
};
use hearth_runtime::sandbox::ask::Ended;
use hearth_runtime::sandbox::backend::{Backend as _, Cancel};
use tokio::sync::{Notify, oneshot};

use super::clock::Clock;
use super::function::Function;
use super::manager::lock;
use super::node::Ends;
use super::schedule::Said;
use super::starts::Watcher;
use super::store::Deployed;
use super::tally::function_of;
use super::workers::Workers;
use crate::heal::{Healer, Mode};
pub(super) use ended::{Cause, Death, During, Failure};
pub(super) use heal::why_not;
pub(super) use lease::{Lease, Unserved};
use live::Doing;
pub(super) use live::{About, Found, Live};
use measure::Measuring;
use memory::Budget;
use record::Recorder;
pub use record::Recording;

/// Instances that start at once.
const STARTS: usize = 32;
/// Instances that are ended at once.
const ENDS: usize = 16;
/// How long what was counted of a function that was removed is told yet, and of how many.
const TOLD: Duration = Duration::from_mins(1);
const GONE: usize = 16;

/// The pools.
pub(super) struct Pools {
    pub(super) node: Arc<Ends>,
    watcher: Option<Arc<dyn Watcher>>,
    healer: OnceLock<Healer>,
    clock: Arc<dyn Clock>,
    starting: Workers,
    ending: Workers,
    inner: Mutex<Inner>,
    budget: Mutex<Budget>,
    measuring: Mutex<Measuring>,
    /// The fleet wants to be asked earlier than it said last.
    sooner: Notify,
}

#[derive(Default)]
struct Inner {
    fleet: Fleet,
    /// Nothing is started before.
    is_open: bool,
    /// Functions that have a pool.
    functions: BTreeMap<FunctionName, Arc<Function>>,
    /// Functions that were removed a moment ago: what was counted of them is told yet, and one of
    /// the same name counts on.
    gone: VecDeque<(Moment, Arc<Function>)>,
    live: BTreeMap<Instance, Entry>,
    waiting: HashMap<Ticket, Waiter>,
    tickets: u64,
    /// Who has not come up, while the fleet is told of it.
    failed: Option<Arc<Failure>>,
    recorder: Option<Recorder>,
    /// When the fleet wants to be asked, as who looks after it knows.
    next: Option<Moment>,
}

struct Entry {
    live: Arc<Live>,
    doing: Doing,
}

/// Who waits for an instance.
struct Waiter {
    cancel: Cancel,
    tell: oneshot::Sender<Answer>,
}

/// What who waits is told.
enum Answer {
    Serve(Lease),
    Refuse(Refusal, Option<Arc<Failure>>),
}

/// What is to be done once the lock is free.
#[derive(Default)]
struct Todo {
    answers: Vec<(oneshot::Sender<Answer>, Told)>,
    start: Vec<Arc<Live>>,
    end: Vec<Arc<Live>>,
    /// Whoever starts it sees that it is gone.
    interrupt: Vec<Arc<Live>>,
    cancel: Vec<Cancel>,
}

enum Told {
    Serve(Arc<Live>, Served),
    Refuse(Refusal, Option<Arc<Failure>>),
}

/// What an instance does, for who looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Starting,
    Idle,
    Busy,
}

impl Pools {
    pub(super) fn new(
        node: Arc<Ends>,
        watcher: Option<Arc<dyn Watcher>>,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        Arc::new(Self {
            node,
            watcher,
            healer: OnceLock::new(),
            clock,
            starting: Workers::new("hearth-start", STARTS),
            ending: Workers::new("hearth-end", ENDS),
            inner: Mutex::default(),
            budget: Mutex::default(),
            measuring: Mutex::default(),
            sooner: Notify::new(),
        })
    }

    /// Tells the fleet what `note` makes of what happened, and does what it wants.
    fn tell(self: &Arc<Self>, note: impl FnOnce(&mut Inner, Moment, &mut Todo) -> Option<Input>) {
        self.carry_out(self.decide(note));
    }

    fn decide(&self, note: impl FnOnce(&mut Inner, Moment, &mut Todo) -> Option<Input>) -> Todo {
        let mut todo = Todo::default();
        let mut inner = lock(&self.inner);
        // Taken inside, so that no input is older than the one before.
        let now = self.clock.now();
        if let Some(input) = note(&mut inner, now, &mut todo) {
            inner.apply(now, input, &mut todo);
        }
        let next = inner.fleet.next();
        let is_sooner = next.is_some_and(|next| inner.next.is_none_or(|known| next < known));
        if is_sooner {
            inner.next = next;
        }
        drop(inner);
        if is_sooner {
            self.sooner.notify_one();
        }
        todo
    }

    fn carry_out(self: &Arc<Self>, mut todo: Todo) {
        for live in std::mem::take(&mut todo.end) {
            let (pools, ending) = (Arc::clone(self), Arc::clone(&live));
            if self.ending.run(move || pools.end(&ending)).is_err() {
                // Without a thread for it, this one has to.
                self.end(&live);
            }
        }
        self.carry_out_here(todo);
    }

    /// As [`carry_out`](Self::carry_out), but what is to end has ended when this returns.
    fn carry_out_here(self: &Arc<Self>, todo: Todo) {
        for (tell, told) in todo.answers {
            let answer = match told {
                Told::Serve(live, how) => Answer::Serve(Lease::new(Arc::clone(self), live, how)),
                Told::Refuse(refusal, failure) => Answer::Refuse(refusal, failure),
            };
            // Where nobody waits any more the lease is given back.
            drop(tell.send(answer));
        }
        for cancel in todo.cancel {
            cancel.cancel();
        }
        for live in todo.start {
            let (pools, starting) = (Arc::clone(self), Arc::clone(&live));
            if let Err(error) = self.starting.run(move || pools.start_guarded(&starting)) {
                self.has_no_thread(&live, &error);
            }
        }
        for live in todo.interrupt {
            self.end_sandbox(&live);
        }
        for live in todo.end {
            self.end(&live);
        }
    }

    /// Ends one that is retired.
    fn end(&self, live: &Live) {
        self.end_sandbox(live);
        lock(&self.inner).live.remove(&live.instance);
        live.function.tell_change();
    }

    /// From now on functions get pools.
    pub(super) fn open(&self) {
        lock(&self.inner).is_open = true;
    }

    /// A function is there, or another version of it. When this returns the old version's instances
    /// have ended, unless they are at work or starting.
    pub(super) fn deploy(self: &Arc<Self>, function: &Arc<Function>, renew: bool) {
        self.deploy_with(function, renew, settings);
    }

    /// A function is there whose instances are looked for: none is started yet.
    pub(super) fn expect(self: &Arc<Self>, function: &Arc<Function>, renew: bool) {
        self.deploy_with(function, renew, |deployed| expected(&settings(deployed)));
    }

    fn deploy_with(
        self: &Arc<Self>,
        function: &Arc<Function>,
        renew: bool,
        settings: impl FnOnce(&Deployed) -> Settings,
    ) {
        let deployed = Arc::clone(&function.state().deployed);
        // Asked outside of the lock: who decides about faults may be writing.
        let memory_bytes = self.memory_of(&deployed);
        let todo = self.decide(|inner, now, _| {
            let (is_removed, is_current) = {
                let state = function.state();
                (state.is_removed, Arc::ptr_eq(&state.deployed, &deployed))
            };
            // Whoever deployed another one meanwhile tells of that.
            if !inner.is_open || is_removed || !is_current {
                return None;
            }
            let name = deployed.name.clone();
            let settings = Settings {
                memory_bytes,
                ..settings(&deployed)
            };
            inner.go_on_counting(now, &name, function);
            inner.functions.insert(name.clone(), Arc::clone(function));
            Some(Input::Deploy {
                function: name,
                settings: Box::new(settings),
                renew,
            })
        });
        self.carry_out_here(todo);
    }

    /// Tells what the schedules say by now.
    pub(super) fn look_at_schedules(self: &Arc<Self>) {
        let functions: Vec<_> = lock(&self.inner).functions.values().cloned().collect();
        let now = self.clock.wall();
        for function in functions {
            let deployed = Arc::clone(&function.state().deployed);
            let windows = &deployed.definition.schedule;
            let mut known = lock(&function.said);
            if windows.is_empty() && known.is_none() {
                continue;
            }
            let said = Said::now(*known, deployed.version, windows, now);
            let before = known.replace(said).map_or(0, |said| said.instances);
            drop(known);
            if said.instances != before {
                self.tell(|_, _, _| {
                    Some(Input::Scheduled {
                        function: deployed.name.clone(),
                        instances: said.instances,
                    })
                });
            }
        }
    }

    /// A function is gone, and so are its instances soon.
    pub(super) fn remove(self: &Arc<Self>, name: &FunctionName) {
        let mut todo = Todo::default();
        let mut inner = lock(&self.inner);
        let (now, function) = (self.clock.now(), name.clone());
        // What it comes to is counted for the function still.
        inner.apply(now, Input::Remove { function }, &mut todo);
        if let Some(function) = inner.functions.remove(name) {
            *lock(&function.said) = None;
            if inner.gone.len() >= GONE {
                inner.gone.pop_front();
            }
            inner.gone.push_back((now, function));
        }
        drop(inner);
        self.carry_out_here(todo);
    }

    /// Whether nothing is left of it.
    pub(super) fn is_gone(&self, function: &Arc<Function>) -> bool {
        self.look(|live, _| Arc::ptr_eq(&live.function, function).then_some(()))
            .is_empty()
    }

    /// Ends what is left of it at once, without waiting for what it is at work on.
    pub(super) fn force(&self, function: &Arc<Function>) {
        let left =
            self.look(|live, _| Arc::ptr_eq(&live.function, function).then(|| Arc::clone(live)));
        for live in left {
            // Who is at work with it sees that it is gone.
            self.end_sandbox(&live);
        }
    }

    /// Ends the sandbox of one, if there is one; what is known of it then.
    fn end_sandbox(&self, live: &Live) -> Option<Ended> {
        let id = live.id()?;
        let ended = self.node.end(id);
        if let Err(error) = &ended {
            tracing::warn!("sandbox {id} is not ended yet: {error}");
        }
        ended.ok()
    }

    /// One that was there before, and is idle.
    pub(super) fn found(self: &Arc<Self>, found: Found) {
        self.take_in(found, None);
    }

    /// One that was there before, and is at work on a request.
    pub(super) fn found_at_work(self: &Arc<Self>, found: Found, cancel: Cancel) -> Option<Lease> {
        let live = self.take_in(found, Some(cancel))?;
        Some(Lease::new(Arc::clone(self), live, Served::Hit))
    }

    fn take_in(self: &Arc<Self>, found: Found, busy: Option<Cancel>) -> Option<Arc<Live>> {
        let mut taken = None;
        let mut old = None;
        let todo = self.decide(|inner, _, _| {
            let current = found.function.state().deployed.version;
            if busy.is_none() && current != found.deployed.version {
                // Another one was deployed since it was looked for.
                old = Some(found.about.id);
                return None;
            }
            let instance = inner.fleet.number();
            let function = found.deployed.name.clone();
            let is_busy = busy.is_some();
            let doing = busy.map_or(Doing::Idle, Doing::Busy);
            let live = Arc::new(Live::found(instance, found));
            let entry = Entry {
                live: Arc::clone(&live),
                doing,
            };
            inner.live.insert(instance, entry);
            taken = Some(live);
            Some(Input::Found {
                function,
                instance,
                busy: is_busy,
            })
        });
        self.carry_out(todo);
        if let Some(sandbox) = old
            && let Err(error) = self.node.end(sandbox)
        {
            tracing::warn!("sandbox {sandbox} is not ended yet: {error}");
        }
        if let Some(live) = &taken {
            live.is_limited(self.memory(live));
        }
        taken
    }

    /// One waits for work from now on, as `input` tells; unless it was retired meanwhile.
    fn is_idle(
        self: &Arc<Self>,
        live: &Arc<Live>,
        input: impl FnOnce(FunctionName, Instance) -> Input,
    ) {
        self.tell(|inner, _, todo| {
            let entry = inner.live.get_mut(&live.instance)?;
            if matches!(entry.doing, Doing::Retired) {
                // Of this one the fleet expects nothing more.
                todo.end.push(Arc::clone(live));
                return None;
            }
            entry.doing = Doing::Idle;
            live.is_to_be_weighed();
            Some(input(live.deployed.name.clone(), live.instance))
        });
    }

    /// Time has passed.
    pub(super) fn tick(self: &Arc<Self>) {
        self.tell(|_, _, _| Some(Input::Tick));
    }

    /// Takes in what idle ones say; those that have ended are taken away.
    pub(super) fn listen(self: &Arc<Self>) {
        let idle = self.look(|live, look| (look == Look::Idle).then(|| Arc::clone(live)));
        for live in idle {
            self.listen_to(&live);
        }
    }

    /// The node tells that one has ended by itself. Who is at work with it, or starts it, sees that.
    pub(super) fn is_told_ended(self: &Arc<Self>, sandbox: SandboxId) {
        let idle = self.look(|live, look| {
            (look == Look::Idle && live.id() == Some(sandbox)).then(|| Arc::clone(live))
        });
        for live in idle {
            self.listen_to(&live);
        }
    }

    fn listen_to(self: &Arc<Self>, live: &Arc<Live>) {
        if live.listen().is_ok() || !self.ended_idle(live) {
            return;
        }
        // One takes a while: who asks the node, and who writes down what is decided.
        let (pools, dead) = (Arc::clone(self), Arc::clone(live));
        if self.ending.run(move || pools.bury(&dead)).is_err() {
            // Without a thread for it, this one has to.
            self.bury(live);
        }
    }

    /// One has ended while it was idle.
    fn bury(self: &Arc<Self>, live: &Arc<Live>) {
        let ended = self.take_away(live);
        let cause = Cause::Exited.or_memory(ended.as_ref());
        let death = Death {
            during: During::Idle,
            cause,
            ended,
            elapsed: Duration::ZERO,
            interrupted: None,
        };
        self.is_over(live, death);
    }

    /// Waits until the fleet wants to be asked, at most so long.
    pub(super) async fn due(&self, most: Duration) {
        let left = {
            let mut inner = lock(&self.inner);
            inner.next = inner.fleet.next();
            inner.next.map(|next| next.since(self.clock.now()))
        };
        let wait = left.unwrap_or(most).min(most);
        // Sooner: who waits comes again, and waits for less.
        let _ = tokio::time::timeout(wait, self.sooner.notified()).await;
    }

    /// What `look` makes of each instance.
    pub(super) fn look<T>(&self, look: impl Fn(&Arc<Live>, Look) -> Option<T>) -> Vec<T> {
        let inner = lock(&self.inner);
        let all = inner.live.values().filter_map(|entry| {
            let doing = match entry.doing {
                Doing::Starting => Look::Starting,
                Doing::Idle => Look::Idle,
                Doing::Busy(_) | Doing::Retired => Look::Busy,
            };
            look(&entry.live, doing)
        });
        all.collect()
    }

    /// What the pool of a function is like now.
    pub(super) fn of<T>(
        &self,
        name: &FunctionName,
        look: impl FnOnce(&hearth_runtime::pool::Pool, Moment) -> T,
    ) -> Option<T> {
        let inner = lock(&self.inner);
        let now = self.clock.now();
        inner.fleet.pool(name).map(|pool| look(pool, now))
    }
}

impl Inner {
    /// One of this name that was removed a moment ago did what it did.
    fn go_on_counting(&mut self, now: Moment, name: &FunctionName, function: &Arc<Function>) {
        self.gone.retain(|(at, _)| now.since(*at) < TOLD);
        let is_it = |(_, gone): &(Moment, Arc<Function>)| gone.state().deployed.name == *name;
        let Some(at) = self.gone.iter().position(is_it) else {
            return;
        };
        if let Some((_, gone)) = self.gone.remove(at)
            && !Arc::ptr_eq(&gone, function)
        {
            let before = gone.state().tally.clone();
            function.state().tally.add(&before);
        }
    }

    fn apply(&mut self, now: Moment, input: Input, todo: &mut Todo) {
        let recorded = self.recorder.is_some().then(|| input.clone());
        let actions = self.fleet.apply(now, input);
        if let (Some(recorder), Some(input)) = (&self.recorder, recorded)
            && !recorder.take(now, input, &actions)
        {
            self.recorder = None;
        }
        for action in actions {
            if let Some(function) = self.functions.get(function_of(&action)) {
                function.state().tally.decided(&action);
            }
            self.take(action, todo);
        }
        self.failed = None;
    }

    fn take(&mut self, action: Action, todo: &mut Todo) {
        match action {
            Action::Start { function, instance } => {
                // Every pool has its function here.
                if let Some(function) = self.functions.get(&function) {
                    let live = Arc::new(Live::new(instance, function));
                    let entry = Entry {
                        live: Arc::clone(&live),
                        doing: Doing::Starting,
                    };
                    self.live.insert(instance, entry);
                    todo.start.push(live);
                }
            }
            Action::Serve {
                ticket,
                instance,
                how,
                ..
            } => {
                if let Some(waiter) = self.waiting.remove(&ticket)
                    && let Some(entry) = self.live.get_mut(&instance)
                {
                    entry.doing = Doing::Busy(waiter.cancel);
                    let told = Told::Serve(Arc::clone(&entry.live), how);
                    todo.answers.push((waiter.tell, told));
                }
            }
            Action::Refuse {
                ticket, refusal, ..
            } => {
                if let Some(waiter) = self.waiting.remove(&ticket) {
                    let failure = match refusal.reason {
                        Reason::NotStarted { .. } => self.failed.clone(),
                        _ => None,
                    };
                    let told = Told::Refuse(refusal, failure);
                    todo.answers.push((waiter.tell, told));
                }
            }
            Action::Retire { instance, why, .. } => {
                let Some(entry) = self.live.get_mut(&instance) else {
                    return;
                };
                tracing::debug!(
                    "an instance of {} is retired: {}",
                    entry.live.deployed.name,
                    why.word()
                );
                match std::mem::replace(&mut entry.doing, Doing::Retired) {
                    Doing::Idle => todo.end.push(Arc::clone(&entry.live)),
                    // Who is at work with it ends it.
                    Doing::Busy(cancel) => todo.cancel.push(cancel),
                    Doing::Starting => todo.interrupt.push(Arc::clone(&entry.live)),
                    Doing::Retired => {}
                }
            }
        }
    }
}

/// The same where nothing is started yet.
fn expected(settings: &Settings) -> Settings {
    Settings {
        min: 0,
        reserved: 0,
        ..settings.clone()
    }
}

/// How the pool of a version is to be.
fn settings(deployed: &Deployed) -> Settings {
    let definition = &deployed.definition;
    Settings {
        min: definition.min_instances,
        max: definition.max_instances,
        reserved: definition.reserved_instances,
        queue: definition.queue,
        // Where it is healed a failure is no answer yet.
        hold: definition.heal == Mode::Act,
        policy: definition.policy,
        memory_bytes: definition.memory.0,
    }
}
