//! The locks of cgroups on every kernel: which lock it is, what an attach waits for beside locks,
//! and how well each way to measure does. Run on the host, and in VMs on the older kernels.

use std::fs;
use std::io::{BufRead as _, BufReader, Lines};
use std::process::{ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hearth_tests::cgroup::Cgroup;
use hearth_tests::child::Guard;
use hearth_tests::clock::boottime_ns;
use hearth_tests::storm::{Storm, THREADS};
use hearth_tests::{machine, requirement, trace};
use serde_json::Value;

/// `hearth locks`, which tells every now and then what it has seen since its beginning.
struct Locks {
    child: Guard,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Locks {
    /// Begins to watch; attached when this returns.
    fn start() -> Result<Self> {
        let mut child = Command::new(trace::hearth()?)
            .args(["locks", "--json", "--interval", "200ms", "--worst", "20"])
            .stdout(Stdio::piped())
            .spawn()
            .context("start hearth locks")?;
        let out = child.stdout.take().context("its output")?;
        let mut locks = Self {
            child: Guard(child),
            lines: BufReader::new(out).lines(),
        };
        locks.next()?;
        Ok(locks)
    }

    fn next(&mut self) -> Result<Value> {
        let line = self.lines.next().context("it ended")??;
        serde_json::from_str(&line).with_context(|| line)
    }

    /// Everything up to now.
    fn finish(mut self) -> Result<Value> {
        let now = boottime_ns();
        loop {
            let report = self.next()?;
            if report["end_ns"].as_u64().context("no end")? > now {
                let _ = self.child.0.kill();
                return Ok(report);
            }
        }
    }
}

/// Sum and count of the waits for `lock` in any of `operations`.
fn waits(report: &Value, lock: &str, operations: &[&str]) -> (u64, u64) {
    let rows = report["locks"].as_array().into_iter().flatten();
    let of = rows.filter(|row| {
        row["lock"] == lock && operations.iter().any(|name| row["operation"] == *name)
    });
    of.fold((0, 0), |(sum, count), row| {
        let number = |name: &str| row["wait"][name].as_u64().unwrap_or(0);
        (sum + number("sum_ns"), count + number("count"))
    })
}

#[test]
fn a_storm_on_own_parents_and_one_on_a_shared_parent_are_told_apart() -> Result<()> {
    requirement::root()?;
    let _machine = machine::quiet()?;
    for parents in ["own", "shared"] {
        let locks = Locks::start()?;
        let told = Storm::start(parents, "make", 3_000)?.finish()?;
        let report = locks.finish()?;
        let making = ["mkdir", "rmdir"];
        let mutex = waits(&report, "cgroup_mutex", &making);
        let directory = waits(&report, "parent_directory", &making);
        println!(
            "{parents}: {told:?}; cgroup_mutex {} ns in {}, parent_directory {} ns in {}",
            mutex.0, mutex.1, directory.0, directory.1
        );
        let (more, less) = match parents {
            "own" => (mutex, directory),
            _ => (directory, mutex),
        };
        ensure!(more.1 >= 10 && more.0 > 4 * less.0, "{parents}: {report:#}");
    }
    Ok(())
}

#[test]
fn an_attach_that_waits_for_rcu_only_is_named_so() -> Result<()> {
    const MOVES: u64 = 6;
    requirement::root()?;
    let _machine = machine::quiet()?;
    let cgroups = [Cgroup::create("from")?, Cgroup::create("to")?];
    let moved = Guard(Command::new("/bin/sleep").arg("600").spawn()?);
    let locks = Locks::start()?;
    let mut took = 0;
    for turn in 0..MOVES {
        let cgroup = &cgroups[usize::try_from(turn)? % 2];
        // After a while the next writer has to wait for RCU anew.
        thread::sleep(Duration::from_millis(200));
        let begin = boottime_ns();
        fs::write(
            cgroup.directory.join("cgroup.procs"),
            moved.0.id().to_string(),
        )?;
        took += boottime_ns() - begin;
    }
    let report = locks.finish()?;
    drop(moved);
    let (rcu, count) = waits(&report, "rcu", &["attach"]);
    let (other, _) = waits(&report, "threadgroup_rwsem", &["attach"]);
    let (process, _) = waits(&report, "process_rwsem", &["attach"]);
    println!("{MOVES} attaches took {took} ns, of which {count} waited for RCU, {rcu} ns");
    ensure!(count > 0 && rcu > 0, "{report:#}");
    // Others on this machine may attach too, hardly ever for longer.
    ensure!(count <= 4 * MOVES && rcu <= 4 * took, "{report:#}");
    ensure!(other + process < rcu, "RCU is told as a lock: {report:#}");
    let named = report["worst"].as_array().context("the worst")?;
    let waiter = std::process::id();
    let own: Vec<&Value> = named
        .iter()
        .filter(|wait| wait["lock"] == "rcu" && wait["waiter"]["pid"] == waiter)
        .collect();
    ensure!(!own.is_empty(), "none of this process's own: {report:#}");
    for wait in own {
        ensure!(wait["holder"].is_null(), "nobody holds RCU: {wait:#}");
    }
    Ok(())
}

/// That all times that a report tells lie between `begin` and `end`.
fn is_within(report: &Value, storm: &Storm, begin: u64, end: u64) -> Result<()> {
    let number = |value: &Value| {
        value
            .as_u64()
            .with_context(|| format!("{value}: {report:#}"))
    };
    let longest = end - begin;
    for row in report["locks"].as_array().context("the rows")? {
        for times in [&row["wait"], &row["hold"]] {
            if times.is_null() {
                continue;
            }
            let (count, sum) = (number(&times["count"])?, number(&times["sum_ns"])?);
            let (p50, max) = (number(&times["p50_ns"])?, number(&times["max_ns"])?);
            // The longest may be the end of its bucket.
            ensure!(p50 <= max && max <= 2 * longest, "{longest} ns: {row:#}");
            ensure!(sum <= count * longest, "{longest} ns: {row:#}");
        }
    }
    for cgroup in report["cgroups"].as_array().context("the cgroups")? {
        ensure!(number(&cgroup["wait_max_ns"])? <= longest, "{cgroup:#}");
        if cgroup["path"] == *storm.home.path {
            ensure!(
                number(&cgroup["wait_ns"])? <= THREADS * longest,
                "{longest} ns: {cgroup:#}"
            );
        }
    }
    for wait in report["worst"].as_array().context("the worst")? {
        let (from, ns) = (number(&wait["begin_ns"])?, number(&wait["wait_ns"])?);
        ensure!(
            begin <= from && from + ns <= end,
            "{begin}, {end}: {wait:#}"
        );
        if let Some(held) = wait["holder"]["held_ns"].as_u64() {
            ensure!(held <= from - begin, "{begin}: {wait:#}");
        }
    }
    Ok(())
}

#[test]
fn of_waits_under_way_at_either_end_nothing_is_told_that_cannot_be() -> Result<()> {
    const STORM_MS: u64 = 20_000;
    requirement::root()?;
    let _machine = machine::quiet()?;
    let storm = Storm::start("own", "attach", STORM_MS)?;
    let half = boottime_ns() + STORM_MS * 1_000_000 / 2;
    let (mut waits_of_mutex, mut rounds) = (0, 0);
    // Each attaches to a storm that runs, and leaves it running.
    while boottime_ns() < half {
        let begin = boottime_ns();
        let once = [
            "locks", "--once", "--for", "500ms", "--json", "--worst", "50",
        ];
        let told = trace::run(&once)?.success()?;
        let end = boottime_ns();
        let report: Value = serde_json::from_str(&told.stdout).context("its JSON")?;
        is_within(&report, &storm, begin, end)?;
        waits_of_mutex += waits(&report, "cgroup_mutex", &["mkdir", "rmdir", "attach"]).1;
        rounds += 1;
    }
    storm.finish()?;
    println!("{rounds} rounds, {waits_of_mutex} waits for cgroup_mutex");
    ensure!(waits_of_mutex > 0);
    Ok(())
}

/// Whether this kernel has fentry: that of a VM, or one that is free.
fn has_fentry() -> bool {
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy();
    release.starts_with("6.1.") || release.starts_with("6.12.")
}

#[test]
fn each_way_to_measure_is_compared_with_the_lock_itself() -> Result<()> {
    requirement::root()?;
    let _machine = machine::quiet()?;
    let mut hearth = Command::new(trace::hearth()?);
    let hearth = hearth.args(["compare-locks", "--for", "6"]);
    let mut child = Guard(
        hearth
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?,
    );
    let mut said = BufReader::new(child.0.stderr.take().context("its messages")?).lines();
    said.find(|line| line.as_ref().is_ok_and(|line| line.contains("every way")))
        .context("it never attached")??;
    Storm::start("own", "attach", 7_000)?.finish()?;
    let told = BufReader::new(child.0.stdout.take().context("its output")?).lines();
    let mut rows: Vec<Value> = Vec::new();
    for line in told {
        rows.push(serde_json::from_str(&line?)?);
    }
    ensure!(child.wait(Duration::from_mins(1))?.success());
    let refused = |way: &str| {
        let row = rows.iter().find(|row| row["way"] == way);
        row.is_some_and(|row| row["refused"].is_string())
    };
    if !has_fentry() {
        // Nothing to compare with; but nothing is said to be measured, either.
        ensure!(refused("reference") == refused("fentry"), "{rows:#?}");
        if refused("reference") {
            return Ok(());
        }
    }
    let holds = |way: &str| -> Result<[u64; 2]> {
        let row = rows.iter().find(|row| {
            row["way"] == way && row["lock"] == "cgroup_mutex" && row["operation"].is_null()
        });
        let row = row.with_context(|| format!("no {way} in {rows:#?}"))?;
        let number = |name: &str| row["hold"][name].as_u64().unwrap_or(0);
        Ok([number("count"), number("sum_ns")])
    };
    let mean = |[count, sum]: [u64; 2]| sum / count.max(1);
    let reference = holds("reference")?;
    ensure!(reference[0] >= 100, "{rows:#?}");
    for (way, least_percent) in [("fentry", 90), ("kprobe", 70)] {
        let measured = holds(way)?;
        println!(
            "{way}: {} of {} holds, mean {} ns where the lock says {} ns",
            measured[0],
            reference[0],
            mean(measured),
            mean(reference)
        );
        ensure!(
            measured[0] * 100 >= reference[0] * least_percent && measured[0] <= reference[0] + 8,
            "{way}: {rows:#?}"
        );
    }
    let tracepoints = holds("tracepoint")?;
    let bound = rows
        .iter()
        .find(|row| row["way"] == "bound" && row["operation"].is_null())
        .with_context(|| format!("no bound in {rows:#?}"))?;
    let longer = bound["hold"]["count"].as_u64().unwrap_or(0);
    let shorter = bound["wait"]["count"].as_u64().unwrap_or(0);
    println!(
        "tracepoints: a bound of {} of {} holds; of {} that the lock measured too {} were shorter, \
         the others longer by {} ns at p50 and {} ns at p99",
        tracepoints[0],
        reference[0],
        longer + shorter,
        shorter,
        bound["hold"]["p50_ns"],
        bound["hold"]["p99_ns"]
    );
    ensure!(longer >= 10, "{rows:#?}");
    // The two see the begin and the end of a hold some hundred nanoseconds apart.
    ensure!(shorter * 20 <= longer, "a bound is no bound: {rows:#?}");
    Ok(())
}
