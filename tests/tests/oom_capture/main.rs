//! Kills for want of memory, through the daemon: what becomes a capture, and what becomes of
//! captures when the disk is full, the store is full, the directory is not ours, or the agent dies.

mod death;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use hearth_tests::daemon::Daemon;
use hearth_tests::pen::{LIMIT, Pen};
use hearth_tests::programs::{self, Leak};
use hearth_tests::{machine, requirement, trace};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::Value;
use tempfile::TempDir;

fn leak() -> Result<Leak> {
    programs::leaks()?.into_iter().next().context("a leak")
}

/// A cgroup to be killed in, a program for that, and a place for captures.
struct Scene {
    pen: Pen,
    leak: Leak,
    /// Where the captures go; it does not exist yet.
    dir: PathBuf,
    folder: TempDir,
    _machine: machine::Hold,
}

impl Scene {
    fn new(name: &str) -> Result<Self> {
        requirement::root()?;
        let machine = machine::shared()?;
        let folder = TempDir::with_prefix("hearth-oom-")?;
        Ok(Self {
            pen: Pen::new(name)?,
            leak: leak()?,
            dir: folder.path().join("captures"),
            folder,
            _machine: machine,
        })
    }

    /// An agent that keeps its captures there; `more` are settings of its section `oom`.
    fn observe(&self, more: &str) -> Result<Daemon> {
        let dir = self.dir.display();
        Daemon::start(&format!(
            "mode = \"process\"\n[oom]\ndir = \"{dir}\"\n{more}\n"
        ))
    }

    fn kill(&self) -> Result<u32> {
        self.pen.kill(&self.leak)
    }
}

/// What `hearth oom` prints.
fn oom(dir: &Path, arguments: &[&str]) -> Result<String> {
    let dir = dir.to_str().context("a path")?;
    let line: Vec<_> = ["oom"]
        .into_iter()
        .chain(arguments.iter().copied())
        .collect();
    let finished = trace::run(&[&line[..], &["--dir", dir]].concat())?.success()?;
    Ok(finished.stdout)
}

/// The names of the files in `dir`.
fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(dir)?.filter_map(Result::ok);
    Ok(entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect())
}

/// The captures of `pids`, as `hearth oom list` has them.
fn captures_of(dir: &Path, pids: &[u32]) -> Result<Vec<Value>> {
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let text = oom(dir, &["list", "--json", "--last", "100000"])?;
    let all: Vec<Value> = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let of = |value: &Value| pids.iter().any(|pid| value["pid"] == u64::from(*pid));
    for capture in &all {
        ensure!(capture["error"].is_null(), "damaged: {capture}");
    }
    Ok(all.into_iter().filter(of).collect())
}

/// Waits until each of `pids` has its capture.
fn wait_for_captures(dir: &Path, pids: &[u32]) -> Result<Vec<Value>> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let captures = captures_of(dir, pids)?;
        if captures.len() >= pids.len() {
            ensure!(
                captures.len() == pids.len(),
                "more than one a kill: {captures:#?}"
            );
            return Ok(captures);
        }
        ensure!(
            Instant::now() < deadline,
            "{captures:#?} are not those of {pids:?}"
        );
        thread::sleep(Duration::from_millis(100));
    }
}

fn show(dir: &Path, capture: &Value) -> Result<Value> {
    let id = capture["id"].as_str().context("an id")?;
    Ok(serde_json::from_str(&oom(dir, &["show", id, "--json"])?)?)
}

fn wait_until(daemon: &Daemon, name: &str, labels: &[(&str, &str)], at_least: u64) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while daemon.scrape()?.count(name, labels).unwrap_or(0) < at_least {
        ensure!(
            Instant::now() < deadline,
            "{name}{labels:?} never got to {at_least}"
        );
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Kills of one program until its stack has to be seen whole.
const ATTEMPTS: usize = 3;

/// Names of the functions in the user stack, with that which made no frame.
fn functions(shown: &Value) -> Result<Vec<String>> {
    let stacks = shown["stacks"].as_array().context("stacks")?;
    // The one that touched: its stack has the functions, others of Go's threads have not.
    let mut best = Vec::new();
    for stack in stacks {
        let frames = stack["user"]["value"].as_array().into_iter().flatten();
        let mut names: Vec<_> = frames.map(|frame| &frame["function"]["value"]).collect();
        if !stack["leaf"].is_null() && !names.is_empty() {
            names.insert(1, &stack["leaf"]["function"]["value"]);
        }
        let names = names
            .into_iter()
            .filter_map(Value::as_str)
            .map(str::to_owned);
        let names: Vec<_> = names.collect();
        if names.iter().any(|name| name.contains("leak")) {
            return Ok(names);
        }
        if names.len() > best.len() {
            best = names;
        }
    }
    Ok(best)
}

/// Whether `wanted` occur in `names` in this order.
fn in_order(names: &[String], wanted: &[&str]) -> bool {
    // Rust's have a hash behind them, C++'s their parameters.
    let is = |name: &str, wanted: &str| {
        name.strip_prefix(wanted)
            .is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
    };
    let mut names = names.iter();
    wanted
        .iter()
        .all(|wanted| names.any(|name| is(name, wanted)))
}

#[test]
fn a_kill_of_each_language_is_captured_with_the_frames_that_the_program_knows() -> Result<()> {
    let scene = Scene::new("oom-languages")?;
    let (dir, pen) = (&scene.dir, &scene.pen);
    let leaks = programs::leaks()?;
    let daemon = scene.observe("")?;
    for leak in &leaks {
        let (mut shown, mut names) = (Value::Null, Vec::new());
        // A kill between two instructions of a call finds a stack that is just being made.
        for _ in 0..ATTEMPTS {
            let pid = pen.kill(leak)?;
            let summary = wait_for_captures(dir, &[pid])?.remove(0);
            ensure!(
                summary["constraint"] == "cgroup" && summary["limit_bytes"] == LIMIT,
                "{summary}"
            );
            ensure!(summary["completeness"] == "complete", "{summary}");
            ensure!(summary["cgroup"] == pen.cgroup.path.as_str(), "{summary}");
            shown = show(dir, &summary)?;
            names = functions(&shown)?;
            if in_order(&names, &leak.functions) {
                break;
            }
        }
        ensure!(in_order(&names, &leak.functions), "{leak:?}: {names:#?}");
        let victim = &shown["capture"]["victim"];
        let program = leak.program.to_str().context("a path")?;
        ensure!(victim["exe"]["value"] == program, "{victim:#}");
        let command = victim["command"]["value"]
            .as_array()
            .context("a command line")?;
        ensure!(
            command[0] == program && command[1] == "--token=***",
            "{command:?}"
        );
        ensure!(
            victim["memory"]["anon_bytes"]["value"].as_u64() > Some(LIMIT / 2),
            "{victim:#}"
        );
        let trace = &shown["capture"]["trace"]["value"]["trace_id"];
        // A storm of other tests can take the marks of a start; then that is counted.
        let is_linked = trace.as_str().is_some_and(|id| id.len() == 32);
        ensure!(
            is_linked || !daemon.losses()?.is_empty(),
            "no trace: {trace}"
        );
        // What is printed for people says the same.
        let report = oom(dir, &["show", "last"])?;
        ensure!(report.contains("of 24 MiB"), "{report}");
        ensure!(!report.contains("hunter2"), "{report}");
    }
    let scrape = daemon.scrape()?;
    let count = |name, labels| scrape.count(name, labels);
    let kills = leaks.len() as u64;
    let complete = [("completeness", "complete")];
    ensure!(count("hearth_oom_captures_total", &complete)? >= kills);
    ensure!(count("hearth_oom_kills_total", &[("constraint", "cgroup")])? >= kills);
    daemon.stop()
}

#[test]
fn a_kill_by_the_limit_of_memory_and_swap_together_says_so() -> Result<()> {
    let scene = Scene::new("oom-memsw")?;
    let dir = &scene.dir;
    let both = scene
        .pen
        .cgroup
        .directory
        .join("memory.memsw.limit_in_bytes");
    if !both.exists() {
        eprintln!("this kernel does not limit memory and swap together");
        return Ok(());
    }
    fs::write(both, LIMIT.to_string())?;
    let daemon = scene.observe("")?;
    let pid = scene.kill()?;
    let shown = show(dir, &wait_for_captures(dir, &[pid])?[0])?;
    let summary = shown["summary"].as_str().context("a sentence")?;
    ensure!(
        summary.contains("of 24 MiB for memory and swap"),
        "{summary}"
    );
    let enough = &shown["enough"]["value"];
    ensure!(enough["limit"] == "memory_and_swap", "{enough:#}");
    ensure!(enough["try_bytes"].as_u64() > Some(LIMIT), "{enough:#}");
    daemon.stop()
}

#[test]
fn what_was_captured_before_the_end_is_kept() -> Result<()> {
    let scene = Scene::new("oom-end")?;
    let daemon = scene.observe("")?;
    let pids = (0..5).map(|_| scene.kill()).collect::<Result<Vec<_>>>()?;
    // At once: the last ones are still being put together.
    daemon.stop()?;
    ensure!(captures_of(&scene.dir, &pids)?.len() == pids.len());
    Ok(())
}

#[test]
fn a_full_store_makes_room_and_counts_what_went() -> Result<()> {
    let scene = Scene::new("oom-full")?;
    let daemon = scene.observe("max_captures = 2")?;
    let pids = (0..6).map(|_| scene.kill()).collect::<Result<Vec<_>>>()?;
    wait_until(&daemon, "hearth_oom_captures_evicted_total", &[], 4)?;
    let files = fs::read_dir(&scene.dir)?.count();
    ensure!(files == 2, "{files} files");
    // Other programs of this machine may be killed, too; ours are told all the same.
    let scrape = daemon.scrape()?;
    ensure!(scrape.count("hearth_oom_captures_total", &[])? >= pids.len() as u64);
    daemon.stop()
}

/// A file system with very little room; it is unmounted when dropped.
struct Small {
    at: PathBuf,
}

impl Small {
    fn mount(at: PathBuf) -> Result<Self> {
        fs::create_dir(&at)?;
        fs::set_permissions(&at, fs::Permissions::from_mode(0o700))?;
        let options = c"size=64k,mode=0700";
        mount("hearth-small", &at, "tmpfs", MountFlags::empty(), options).context("mount")?;
        Ok(Self { at })
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        if let Err(error) = unmount(&self.at, UnmountFlags::DETACH) {
            eprintln!("{} stays mounted: {error}", self.at.display());
        }
    }
}

#[test]
fn a_full_disk_loses_files_and_nothing_silently() -> Result<()> {
    let scene = Scene::new("oom-disk")?;
    let dir = &scene.dir;
    let _small = Small::mount(dir.clone())?;
    let filler = dir.join("filler");
    fs::write(&filler, vec![1; 63 << 10]).context("fill it")?;
    let daemon = scene.observe("")?;
    scene.kill()?;
    wait_until(
        &daemon,
        "hearth_oom_captures_lost_total",
        &[("reason", "disk_full")],
        1,
    )?;
    ensure!(
        daemon.scrape()?.count("hearth_oom_captures_total", &[])? >= 1,
        "not told"
    );
    ensure!(
        daemon.errors().contains("told and not kept"),
        "{}",
        daemon.errors()
    );
    // There is room again, and no restart is needed.
    fs::remove_file(&filler)?;
    let pid = scene.kill()?;
    wait_for_captures(dir, &[pid])?;
    // Neither a note nor half a capture stays. Kills of other tests are noted here, too.
    let of_kill = format!("-{pid}.");
    let is_left = |name: &String| name.starts_with('.') && name.contains(&of_kill);
    let deadline = Instant::now() + Duration::from_secs(30);
    while names(dir)?.iter().any(is_left) {
        ensure!(Instant::now() < deadline, "{:?}", names(dir)?);
        thread::sleep(Duration::from_millis(10));
    }
    daemon.stop()
}

#[test]
fn a_directory_that_is_a_link_or_open_to_others_is_not_written_to() -> Result<()> {
    let scene = Scene::new("oom-link")?;
    let dir = &scene.dir;
    let target = scene.folder.path().join("target");
    fs::create_dir(&target)?;
    symlink(&target, dir)?;
    let daemon = scene.observe("")?;
    scene.kill()?;
    wait_until(
        &daemon,
        "hearth_oom_captures_lost_total",
        &[("reason", "unsafe_directory")],
        1,
    )?;
    ensure!(fs::read_dir(&target)?.count() == 0, "it followed the link");
    ensure!(
        daemon.errors().contains("symbolic link"),
        "{}",
        daemon.errors()
    );
    if let Ok(text) = oom(dir, &["list"]) {
        bail!("it read through the link: {text}");
    }
    fs::remove_file(dir)?;
    let pid = scene.kill()?;
    wait_for_captures(dir, &[pid])?;
    let mode =
        |path: &Path| Ok::<_, std::io::Error>(fs::metadata(path)?.permissions().mode() & 0o7777);
    ensure!(mode(dir)? == 0o700);
    for file in fs::read_dir(dir)?.filter_map(Result::ok) {
        ensure!(mode(&file.path())? == 0o600, "{}", file.path().display());
    }
    daemon.stop()
}
