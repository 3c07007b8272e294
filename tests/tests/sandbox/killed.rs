//! Whoever has a part in a sandbox goes away, at each point of its life: what is told to the
//! others, and that nothing is left.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hearth_runtime::id::SandboxId;
use hearth_runtime::sandbox::ask::{Ended, Listed};
use hearth_runtime::sandbox::backend::{Backend as _, Cancel, Outcome, Sandbox, SandboxError};
use hearth_runtime::sandbox::message::{Exit, NotStarted, State, fault};
use hearth_runtime::sandbox::spawner::Watch;
use hearth_runtime::sandbox::start::Start;
use hearth_tests::guest;
use hearth_tests::node::{Language, Node, PATIENCE, Remains};
use hearth_tests::whole::Whole;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::scene::{Instance, resources};

/// A node on which all that comes and goes is told.
struct Watched {
    node: Node,
    watch: Watch,
    before: Remains,
    whole: Whole,
}

impl Watched {
    fn new(what: &str) -> Result<Self> {
        let whole = Whole::now(&format!("hearth-test-{what}-"))?;
        let node = Node::start(what, 1)?;
        node.parked(1)?;
        Ok(Self {
            watch: node.spawner()?.watch()?,
            before: node.remains()?,
            node,
            whole,
        })
    }

    /// One that was claimed.
    fn claimed(&self, start: &Start) -> Result<Listed> {
        let claimed = self
            .node
            .spawner()?
            .claim(start.function.clone(), resources())?;
        Ok(guest::listed(&claimed, &start.function))
    }

    /// One in which the function is ready.
    fn idle(&self) -> Result<Instance> {
        Instance::ready(&self.node, &Language::Rust.start()?)
    }

    /// The same sandbox for somebody else, or again.
    fn find(&self, listed: &Listed) -> Result<(Box<dyn Sandbox>, State)> {
        let (sandbox, hello) = self.node.sandboxes().find(listed)?;
        Ok((sandbox, hello.state))
    }

    /// Waits until it has answered, and nobody was there.
    fn answered(&self, listed: &Listed) -> Result<()> {
        loop {
            match self.find(listed)?.1 {
                State::Answered { .. } => return Ok(()),
                State::Work { .. } => thread::sleep(Duration::from_millis(20)),
                other => anyhow::bail!("{other:?}"),
            }
        }
    }

    /// Waits for the word that it has ended by itself; nothing of it is left then.
    fn ended(&mut self, sandbox: SandboxId) -> Result<Ended> {
        let ended = self.watch.next(PATIENCE)?.context("nothing was told")?;
        ensure!(ended.sandbox == sandbox, "{ended:?}");
        let listed = self.node.spawner()?.list()?;
        ensure!(listed.is_empty(), "{listed:?}");
        self.node.parked(1)?;
        self.node.settled(&self.before)?;
        Ok(ended)
    }

    /// All of it goes, and the machine is as it was.
    fn nothing_is_left(self) -> Result<()> {
        let Self {
            node, watch, whole, ..
        } = self;
        let name = node.name().to_owned();
        drop((node, watch));
        let more = Whole::now(&name)?.more_than(&whole);
        // Namespaces of a process that others start just now have another process the next time.
        let again = Whole::now(&name)?.more_than(&whole);
        ensure!(more.iter().all(|one| !again.contains(one)), "{again:?}");
        Ok(())
    }
}

fn kill(pid: u32) -> Result<()> {
    Ok(kill_process(
        Pid::from_raw(pid.try_into()?).context("a process")?,
        Signal::KILL,
    )?)
}

/// The function's first process: the only child of `hearth-init`.
fn function(init: u32) -> Result<u32> {
    let children = fs::read_to_string(format!("/proc/{init}/task/{init}/children"))?;
    let child = children.split_whitespace().next();
    Ok(child.context("hearth-init has no child")?.parse()?)
}

fn asleep() -> Result<Start> {
    let mut start = Language::Rust.start()?;
    start.program.environment = vec![("START".into(), "never".into())];
    Ok(start)
}

/// Waits until the function's process is there.
fn starting(watched: &Watched, start: &Start) -> Result<(Listed, u32)> {
    let listed = watched.claimed(start)?;
    // Whoever begins it goes away at once.
    drop(guest::begin(&watched.node, &listed, start)?);
    let (_, state) = watched.find(&listed)?;
    assert_eq!(state, State::Starting);
    let function = function(listed.init.pid)?;
    Ok((listed, function))
}

#[test]
fn hearth_init_killed_at_any_point_is_told_and_leaves_nothing() -> Result<()> {
    let mut watched = Watched::new("init-killed")?;
    let killed = Exit::Signal(9);
    // Parked: nobody's yet, and another one takes its place.
    let (parked, _) = watched.before.processes.first().context("none is parked")?;
    let parked = *parked;
    kill(parked)?;
    while watched
        .node
        .remains()?
        .processes
        .iter()
        .any(|(pid, _)| *pid == parked)
    {
        thread::sleep(Duration::from_millis(5));
    }
    watched.node.parked(1)?;
    watched.node.settled(&watched.before)?;

    // Claimed.
    let start = Language::Rust.start()?;
    let mut instance = Instance::claim(&watched.node, &start, resources())?;
    kill(instance.claimed.init.pid)?;
    let told = instance.start(&start, PATIENCE);
    ensure!(matches!(told, Err(SandboxError::Gone)), "{told:?}");
    assert_eq!(watched.ended(instance.claimed.sandbox)?.how, killed);

    // Starting.
    let (listed, _) = starting(&watched, &asleep()?)?;
    kill(listed.init.pid)?;
    assert_eq!(watched.ended(listed.sandbox)?.how, killed);

    // Idle.
    let mut instance = watched.idle()?;
    kill(instance.claimed.init.pid)?;
    let told = instance.answer(&json!({})).map(|_| ());
    ensure!(told.is_err(), "{told:?}");
    assert_eq!(watched.ended(instance.claimed.sandbox)?.how, killed);

    // At work.
    let listed = watched.claimed(&start)?;
    let request = guest::at_work(&watched.node, &listed)?;
    let (mut sandbox, _) = watched.find(&listed)?;
    kill(listed.init.pid)?;
    let told = sandbox.outcome(request, PATIENCE, &Cancel::new()?, &mut |_| {});
    ensure!(matches!(told, Err(SandboxError::Gone)), "{told:?}");
    assert_eq!(watched.ended(listed.sandbox)?.how, killed);

    // It has answered, and the answer goes with it.
    let listed = watched.claimed(&start)?;
    guest::at_work(&watched.node, &listed)?;
    watched.answered(&listed)?;
    kill(listed.init.pid)?;
    assert_eq!(watched.ended(listed.sandbox)?.how, killed);
    ensure!(watched.find(&listed).is_err());
    watched.nothing_is_left()
}

#[test]
fn a_function_killed_at_any_point_is_told_and_leaves_nothing() -> Result<()> {
    let mut watched = Watched::new("function-killed")?;
    // Starting.
    let start = asleep()?;
    let mut instance = Instance::claim(&watched.node, &start, resources())?;
    let init = instance.claimed.init.pid;
    let told = thread::scope(|scope| {
        let told = scope.spawn(|| instance.start(&start, PATIENCE));
        while function(init).is_err() && !told.is_finished() {
            thread::sleep(Duration::from_millis(5));
        }
        kill(function(init)?)?;
        told.join().ok().context("no panic")
    })?;
    match told {
        Err(SandboxError::NotStarted {
            why: NotStarted::Exited { how },
            ..
        }) => assert_eq!(how, Exit::Signal(9)),
        other => anyhow::bail!("{other:?}"),
    }
    watched.ended(instance.claimed.sandbox)?;

    // Idle.
    let mut instance = watched.idle()?;
    kill(function(instance.claimed.init.pid)?)?;
    let told = instance.answer(&json!({})).map(|_| ());
    ensure!(told.is_err(), "{told:?}");
    watched.ended(instance.claimed.sandbox)?;

    // At work.
    let start = Language::Rust.start()?;
    let listed = watched.claimed(&start)?;
    let request = guest::at_work(&watched.node, &listed)?;
    let (mut sandbox, _) = watched.find(&listed)?;
    kill(function(listed.init.pid)?)?;
    match sandbox.outcome(request, PATIENCE, &Cancel::new()?, &mut |_| {})? {
        Outcome::Failed { kind, body } => {
            assert_eq!(kind, fault::EXITED);
            let said = String::from_utf8(body)?;
            ensure!(said.contains("signal 9"), "{said}");
        }
        other @ Outcome::Answered(_) => anyhow::bail!("{other:?}"),
    }
    drop(sandbox);
    watched.ended(listed.sandbox)?;

    // It has answered: the answer is kept for who comes.
    let listed = watched.claimed(&start)?;
    let request = guest::at_work(&watched.node, &listed)?;
    watched.answered(&listed)?;
    kill(function(listed.init.pid)?)?;
    while watched.find(&listed)?.1 != State::Over {
        thread::sleep(Duration::from_millis(5));
    }
    let (mut sandbox, _) = watched.find(&listed)?;
    let outcome = sandbox.outcome(request, PATIENCE, &Cancel::new()?, &mut |_| {})?;
    assert_eq!(outcome, Outcome::Answered(b"\"slept\"".to_vec()));
    drop(sandbox);
    watched.ended(listed.sandbox)?;
    watched.nothing_is_left()
}

#[test]
fn who_loses_the_connection_at_any_point_finds_the_sandbox_again_or_it_ends() -> Result<()> {
    let mut watched = Watched::new("dropped")?;
    let start = Language::Rust.start()?;
    // At work, then idle: who finds it again gets the answer, and it may be given more.
    let listed = watched.claimed(&start)?;
    let request = guest::at_work(&watched.node, &listed)?;
    let (mut sandbox, state) = watched.find(&listed)?;
    ensure!(
        matches!(state, State::Work { request: of } | State::Answered { request: of } if of == request),
        "{state:?}"
    );
    let outcome = sandbox.outcome(request, PATIENCE, &Cancel::new()?, &mut |_| {})?;
    assert_eq!(outcome, Outcome::Answered(b"\"slept\"".to_vec()));
    drop(sandbox);
    loop {
        match watched.find(&listed)?.1 {
            // That it was taken is still on its way.
            State::Answered { .. } => {}
            state => {
                assert_eq!(state, State::Idle);
                break;
            }
        }
    }
    watched.node.spawner()?.end(listed.sandbox)?;

    // It has answered, and nobody was there: the answer waits.
    let listed = watched.claimed(&start)?;
    let request = guest::at_work(&watched.node, &listed)?;
    watched.answered(&listed)?;
    let (mut sandbox, _) = watched.find(&listed)?;
    let outcome = sandbox.outcome(request, PATIENCE, &Cancel::new()?, &mut |_| {})?;
    assert_eq!(outcome, Outcome::Answered(b"\"slept\"".to_vec()));
    drop(sandbox);
    watched.node.spawner()?.end(listed.sandbox)?;

    // Starting: it goes on, and its end is told to who watches.
    let (listed, pid) = starting(&watched, &asleep()?)?;
    kill(pid)?;
    watched.ended(listed.sandbox)?;

    // Claimed, and who claimed it never comes: it ends by itself.
    let listed = watched.claimed(&start)?;
    let ended = watched.ended(listed.sandbox)?;
    assert_eq!(ended.how, Exit::Code(0));
    watched.nothing_is_left()
}
