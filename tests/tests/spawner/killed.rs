//! The spawner is killed right before and right after each of its writes to the journal, and right
//! before its other calls that change anything, from its start to the end of a claimed sandbox,
//! while a function is at work. The next one finds all of what is left, and the function's answer
//! arrives.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use hearth_runtime::id::{RequestId, SandboxId};
use hearth_runtime::journal;
use hearth_runtime::sandbox::backend::{Backend as _, Cancel, Outcome};
use hearth_runtime::sandbox::spawner::Spawner;
use hearth_tests::guest;
use hearth_tests::machine;
use hearth_tests::node::{Language, Node, PATIENCE, Remains};
use hearth_tests::whole::Whole;
use rustix::process::{Pid, Signal, kill_process};

use crate::scene::until;
use crate::tracer::{Calls, Came, Point, Traced};

/// Spawners that are killed beside each other: they wait more than they work.
const AT_ONCE: usize = 3;

#[test]
fn killed_at_any_step_it_leaves_nothing_that_the_next_one_does_not_find() -> Result<()> {
    let _hold = machine::shared()?;
    let node = format!("hearth-test-killed-{}-", std::process::id());
    let before = Whole::now(&node)?;
    let entries = walk(Calls::Journal, 1, 1)?;
    for kind in ["header", "begin", "spawned", "claimed", "end"] {
        for is_made in [false, true] {
            ensure!(
                entries.contains(&(kind.to_owned(), is_made)),
                "never killed at {kind}, made: {is_made}: {entries:?}"
            );
        }
    }
    // Some of the others each time, in the end all; `HEARTH_EACH_CALL` has them all at once.
    let stride = match std::env::var_os("HEARTH_EACH_CALL") {
        Some(_) => 1,
        None if machine::is_emulated() => 29,
        None => 7,
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    walk(Calls::All, 1 + now.as_secs() % stride, stride)?;
    until("the machine is as it was", || {
        Ok(Whole::now(&node)?.more_than(&before).is_empty())
    })
    .with_context(|| format!("{:?}", Whole::now(&node).map(|now| now.more_than(&before))))
}

/// Kills one after the other, the first at call `from`, until one came to the end of its story.
/// The kinds of entries that they were killed at.
fn walk(of: Calls, from: u64, stride: u64) -> Result<BTreeSet<(String, bool)>> {
    let next = AtomicU64::new(0);
    let entries = Mutex::new(BTreeSet::new());
    let worker = || -> Result<()> {
        loop {
            let step = next.fetch_add(1, Ordering::Relaxed);
            // What comes after a call that is not the journal's is before the next.
            let (nth, is_made) = match of {
                Calls::Journal => (from + step / 2 * stride, step % 2 == 1),
                Calls::All => (from + step * stride, false),
            };
            let point = Point { of, nth, is_made };
            let came = killed_at(point).with_context(|| format!("killed at {point:?}"))?;
            if !came.is_there {
                eprintln!("unharmed after {} calls", came.calls);
                ensure!(came.calls >= 10, "it made too few calls to tell anything");
                return Ok(());
            }
            let kinds = came.entry.as_deref().map(kinds).unwrap_or_default();
            let mut entries = entries.lock().expect("no panic");
            entries.extend(kinds.into_iter().map(|kind| (kind, is_made)));
        }
    };
    thread::scope(|scope| {
        let all: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(worker)).collect();
        let mut ended = all.into_iter().map(|one| one.join().expect("no panic"));
        ended.try_for_each(|ended| ended)
    })?;
    Ok(entries.into_inner().expect("no panic"))
}

/// Of what is written to the journal at once: a header, or an entry.
fn kinds(text: &str) -> Vec<String> {
    if text.contains("\"boot\":") {
        return vec!["header".to_owned()];
    }
    let mut parts = text.split("\"entry\":\"").skip(1);
    let kinds = parts.by_ref().filter_map(|part| part.split('"').next());
    kinds.map(str::to_owned).collect()
}

/// What was told to who asked, before the spawner was killed.
#[derive(Debug, Default)]
struct Told {
    /// It is there, and perhaps at work.
    claimed: Option<(SandboxId, Option<RequestId>)>,
    ended: Option<SandboxId>,
}

fn killed_at(point: Point) -> Result<Came> {
    let mut node = Node::new("killed", None)?;
    let traced = Traced::start(node.command(1)?, point)?;
    let mut told = Told::default();
    // Whatever fails does because it was killed; what was answered counts.
    let story = story(&node, &traced, &mut told);
    let came = traced.kill()?;
    if !came.is_there {
        story.context("nobody killed it")?;
    }

    node.start_spawner(1)?;
    // A child that had just begun keeps the socket of the former one open for a moment.
    until("the next one answers", || {
        Ok(node
            .spawner()
            .is_ok_and(|mut spawner| spawner.slots().is_ok()))
    })?;
    node.parked(1).context("park")?;
    let all = node.spawner()?.list()?;
    if let Some((sandbox, request)) = told.claimed {
        let mut listed = all.iter();
        let listed = listed.find(|one| one.sandbox == sandbox && one.adopted);
        let listed = listed.with_context(|| format!("{sandbox} is not adopted: {all:?}"))?;
        // One that nothing was started in yet is as good as a new one.
        let request = request.map_or_else(|| guest::at_work(&node, listed), Ok)?;
        let (mut sandbox, _) = node.sandboxes().find(listed)?;
        let outcome = sandbox.outcome(request, PATIENCE, &Cancel::new()?, &mut |_| {})?;
        assert_eq!(outcome, Outcome::Answered(b"\"slept\"".to_vec()));
    }
    let ended = all.iter().any(|one| Some(one.sandbox) == told.ended);
    ensure!(!ended, "an ended one is listed");
    // One that was claimed by the journal only ends by itself.
    until("those that are listed are there", || {
        let mut all = node.spawner()?.list()?.into_iter();
        Ok(all.all(|one| node.sandboxes().find(&one).is_ok()))
    })?;
    for one in node.spawner()?.list()? {
        node.spawner()?.end(one.sandbox)?;
    }
    until("all but the parked one is gone", || {
        let slots = node.spawner()?.slots()?;
        let left = node.remains()?;
        Ok(left.processes.len() == 1 && left.sockets.len() == 1 && slots.waiting == 0)
    })?;
    let pid = Pid::from_raw(node.spawner_pid()?.try_into()?).context("a process")?;
    kill_process(pid, Signal::TERM)?;
    ensure!(
        node.wait_for_spawner()?.success(),
        "it could not take all of it away"
    );
    assert_eq!(node.remains()?, Remains::default());
    ensure!(
        copies(node.name())?.is_empty(),
        "a child is left that never ran its program"
    );
    let journal = journal::read(&fs::read(node.places().journal().join("journal"))?);
    ensure!(
        journal.lives.is_empty() && journal.damaged == 0,
        "{journal:?}"
    );
    Ok(came)
}

/// Start, park, claim, have a function work, park, claim another, end that, clean its slot.
fn story(node: &Node, traced: &Traced, told: &mut Told) -> Result<()> {
    let patience = Duration::from_secs(20);
    let mut spawner = loop {
        match Spawner::connect(&node.places(), patience) {
            Ok(spawner) => break spawner,
            Err(error) if traced.is_dead() => return Err(error.into()),
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    };
    let function = Language::Rust.start()?.function;
    let first = spawner.claim(function.clone(), guest::resources())?;
    told.claimed = Some((first.sandbox, None));
    let listed = guest::listed(&first, &function);
    let request = guest::at_work(node, &listed)?;
    told.claimed = Some((first.sandbox, Some(request)));
    while spawner.slots()?.parked < 1 {
        thread::sleep(Duration::from_millis(1));
    }
    let second = spawner.claim(function, guest::resources())?;
    spawner.end(second.sandbox)?;
    told.ended = Some(second.sandbox);
    // Until its slot is clean again.
    while spawner.slots()?.waiting > 0 {
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Processes with the command line of a spawner of this node.
fn copies(name: &str) -> Result<Vec<String>> {
    let lines = fs::read_dir("/proc")?.map(|entry| Ok(entry?.path().join("cmdline")));
    let lines = lines.collect::<Result<Vec<_>>>()?.into_iter();
    let lines = lines.filter_map(|path| fs::read(path).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).into_owned());
    Ok(lines.filter(|line| line.contains(name)).collect())
}
