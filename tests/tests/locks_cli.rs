//! `hearth locks` as it is typed, and the locks in what `hearth trace` and `hearth run` tell, with
//! threads that do contend for them.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hearth_tests::cgroup::Cgroup;
use hearth_tests::child::Guard;
use hearth_tests::daemon::Daemon;
use hearth_tests::metrics::Sample;
use hearth_tests::storm::{Storm, THREADS, Told};
use hearth_tests::{child, clock, machine, programs, requirement, trace};
use serde_json::Value;

/// Watches a storm from before its beginning on; what both said, and whose it was.
fn watched(parents: &str, work: &str) -> Result<(Value, Told, u32, String)> {
    let mut line = Command::new(trace::hearth()?);
    line.args(["locks", "--json", "--interval", "500ms", "--worst", "50"])
        .stdout(Stdio::piped());
    let mut hearth = Guard(line.spawn()?);
    let out = hearth.0.stdout.take().context("its output")?;
    let mut reports = BufReader::new(out)
        .lines()
        .map(|line| Ok::<Value, anyhow::Error>(serde_json::from_str(&line?)?));
    // Its first words mean that everything is attached.
    reports.next().context("it said nothing")??;
    let storm = Storm::start(parents, work, 6_000)?;
    let (pid, path) = (storm.pid(), storm.home.path.clone());
    let until = clock::boottime_ns() + 4_500_000_000;
    // While the cgroup exists its name can be found.
    let report = loop {
        let report = reports.next().context("it ended by itself")??;
        if number(&report, "/end_ns")? >= until {
            break report;
        }
    };
    let told = storm.finish()?;
    let id = rustix::process::Pid::from_child(&hearth.0);
    rustix::process::kill_process(id, rustix::process::Signal::INT)?;
    // What it still says must not stop it.
    for report in reports {
        report?;
    }
    let status = hearth.wait(Duration::from_secs(30))?;
    ensure!(status.success(), "asked to end, it ended with {status}");
    Ok((report, told, pid, path))
}

fn number(value: &Value, pointer: &str) -> Result<u64> {
    value
        .pointer(pointer)
        .and_then(Value::as_u64)
        .with_context(|| format!("no number {pointer} in {value:#}"))
}

fn items<'a>(value: &'a Value, name: &str) -> Result<&'a Vec<Value>> {
    value[name]
        .as_array()
        .with_context(|| format!("no list {name} in {value:#}"))
}

/// The row of one lock and operation.
fn row<'a>(report: &'a Value, lock: &str, operation: &str) -> Result<&'a Value> {
    items(report, "locks")?
        .iter()
        .find(|line| line["lock"] == lock && line["operation"] == operation)
        .with_context(|| format!("no {lock} {operation} in {report:#}"))
}

/// The row of the storm's cgroup.
fn storms<'a>(report: &'a Value, path: &str) -> Result<&'a Value> {
    items(report, "cgroups")?
        .iter()
        .find(|line| line["path"] == path)
        .with_context(|| format!("no {path} in {:#}", report["cgroups"]))
}

#[test]
fn a_storm_on_own_parents_waits_for_cgroup_mutex() -> Result<()> {
    requirement::root()?;
    let _machine = machine::quiet()?;
    let (report, told, pid, path) = watched("own", "make")?;
    for operation in ["mkdir", "rmdir"] {
        let line = row(&report, "cgroup_mutex", operation)?;
        let waits = number(line, "/wait/count")?;
        ensure!(waits > 0, "{line:#}");
        let figures = ["p50_ns", "p99_ns", "max_ns", "sum_ns"]
            .map(|name| number(line, &format!("/wait/{name}")));
        let [p50, p99, max, sum] = figures;
        let (p50, p99, max, sum) = (p50?, p99?, max?, sum?);
        ensure!(p50 <= p99 && p99 <= max && max <= sum, "{line:#}");
    }
    // The threads cannot have waited longer than they were there.
    let own = storms(&report, &path)?;
    let waited = number(own, "/wait_ns")?;
    ensure!(number(own, "/waits")? > 0, "{own:#}");
    ensure!(
        waited <= told.time(),
        "{waited} of {}: {own:#}",
        told.time()
    );
    ensure!(own["lock"] == "cgroup_mutex", "{own:#}");

    let worst = items(&report, "worst")?;
    let lengths: Vec<u64> = worst
        .iter()
        .map(|wait| number(wait, "/wait_ns"))
        .collect::<Result<_>>()?;
    ensure!(lengths.is_sorted_by(|a, b| a >= b), "{lengths:?}");
    let of_storm = |task: &Value| task["pid"] == pid && task["cgroup"] == *path;
    let mutex: Vec<&Value> = worst
        .iter()
        .filter(|wait| wait["lock"] == "cgroup_mutex" && of_storm(&wait["waiter"]))
        .collect();
    ensure!(!mutex.is_empty(), "{worst:#?}");
    for wait in &mutex {
        let begin = number(wait, "/begin_ns")?;
        let end = begin + number(wait, "/wait_ns")?;
        ensure!(
            told.begin_ns <= begin && end <= told.end_ns,
            "{wait:#} is not of {told:?}"
        );
        let stack = items(wait, "stack")?;
        let names = |word: &str| {
            let mut frames = stack.iter().filter_map(Value::as_str);
            frames.any(|frame| frame.contains(word))
        };
        ensure!(names("mutex") && names("sys_"), "{wait:#}");
    }
    // Who had it is known of most, and was another thread.
    let held: Vec<&&Value> = mutex
        .iter()
        .filter(|wait| wait["holder"].is_object())
        .collect();
    ensure!(2 * held.len() >= mutex.len(), "{mutex:#?}");
    for wait in held {
        ensure!(wait["holder"]["tid"] != wait["waiter"]["tid"], "{wait:#}");
    }
    Ok(())
}

#[test]
fn a_storm_on_a_shared_parent_waits_for_the_directory() -> Result<()> {
    requirement::root()?;
    let _machine = machine::quiet()?;
    let (report, told, _, path) = watched("shared", "make")?;
    let own = storms(&report, &path)?;
    ensure!(own["lock"] == "parent_directory", "{own:#}");
    ensure!(number(own, "/wait_ns")? <= told.time(), "{own:#}");
    row(&report, "parent_directory", "mkdir")?;
    row(&report, "parent_directory", "rmdir")?;
    Ok(())
}

#[test]
fn people_get_a_table_and_machines_an_object_an_interval() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    // Longer than attaching takes; it is ended with its guard.
    let storm = Storm::start("own", "make", 60_000)?;
    let told = trace::run(&["locks", "--once", "--for", "2s"])?.success()?;
    drop(storm);
    for words in [
        "cgroup locks, ",
        "LOCK",
        "cgroup_mutex",
        "CGROUP",
        "THE WORST",
    ] {
        ensure!(
            told.stdout.contains(words),
            "no {words:?} in {}",
            told.stdout
        );
    }
    let escapes = told.stdout.contains('\x1b');
    ensure!(!escapes, "no terminal, and yet: {}", told.stdout);
    let told = trace::run(&["locks", "--json", "--interval", "300ms", "--for", "2s"])?.success()?;
    let reports: Vec<Value> = told
        .stdout
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    ensure!(reports.len() >= 2, "{}", told.stdout);
    let first = &reports[0];
    for report in &reports {
        ensure!(report["begin_ns"] == first["begin_ns"], "{report:#}");
    }
    Ok(())
}

#[test]
fn a_traced_program_says_which_lock_it_waited_for_and_who_had_it() -> Result<()> {
    requirement::root()?;
    let _machine = machine::quiet()?;
    let field = Cgroup::create("field")?;
    let program = programs::c("cgroup_storm")?.to_string_lossy().into_owned();
    let parent = field.directory.to_string_lossy().into_owned();
    let line = [
        &program,
        &parent,
        "own",
        "make",
        &THREADS.to_string(),
        "1500",
    ];
    let line: Vec<String> = line.iter().map(ToString::to_string).collect();
    let traced = trace::trace(&["--ready", "exit"], &line)?;
    // What else it printed are its own words, and no start.
    let start = traced.starts.first().context("no start")?;
    start.is_sound()?;
    let waits: Vec<_> = start
        .phases
        .iter()
        .flat_map(|phase| phase.parts_of("lock"))
        .collect();
    let mutex: Vec<_> = waits
        .iter()
        .filter(|part| part.lock.as_deref() == Some("cgroup_mutex"))
        .collect();
    ensure!(!mutex.is_empty(), "{}", start.outline());
    let operations = ["mkdir", "rmdir"];
    ensure!(
        mutex.iter().any(|part| {
            let operation = part.operation.as_deref();
            operation.is_some_and(|operation| operations.contains(&operation))
        }),
        "{mutex:#?}"
    );
    let by_itself = |part: &&&&hearth_tests::start::Part| {
        let holder = part.holder.as_ref();
        holder.is_some_and(|holder| holder.pid == start.identity.pid)
    };
    ensure!(
        mutex.iter().filter(by_itself).count() > 0,
        "nobody else makes cgroups: {mutex:#?}"
    );

    let mut words = Command::new(trace::hearth()?);
    words.args(["trace", "--ready", "exit", "--"]).args(&line);
    let told = child::run(&mut words, Duration::from_mins(1))?.success()?;
    ensure!(
        told.stdout.contains("was waiting for") && told.stdout.contains("cgroup_mutex"),
        "{}",
        told.stdout
    );
    Ok(())
}

#[test]
fn the_daemon_tells_waits_as_histograms_and_by_cgroup() -> Result<()> {
    requirement::root()?;
    let _machine = machine::quiet()?;
    let daemon = Daemon::start("mode = \"sandbox\"\ncgroups = false\n")?;
    // As long as the daemon needs to read its counts.
    let storm = Storm::start("own", "make", 12_000)?;
    let path = storm.home.path.clone();
    let labels = [("lock", "cgroup_mutex"), ("operation", "mkdir")];
    let deadline = Instant::now() + Duration::from_secs(40);
    let (name, by_cgroup) = (
        "hearth_cgroup_lock_wait_seconds",
        "hearth_cgroup_lock_wait_time_seconds_total",
    );
    let scrape = loop {
        let scrape = daemon.scrape()?;
        let of_storm = [("cgroup", path.as_str())];
        if scrape.matching(by_cgroup, &of_storm).next().is_some() {
            break scrape;
        }
        if Instant::now() > deadline {
            bail!(
                "no {path} in {:#?}",
                scrape.matching(by_cgroup, &[]).collect::<Vec<_>>()
            );
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    let told = storm.finish()?;
    let count = scrape.count(&format!("{name}_count"), &labels)?;
    let mut all = labels.to_vec();
    all.push(("le", "+Inf"));
    ensure!(count > 0, "nobody waited");
    ensure!(scrape.count(&format!("{name}_bucket"), &all)? == count);
    let bucket = format!("{name}_bucket");
    let buckets: Vec<u64> = scrape
        .matching(&bucket, &labels)
        .map(|sample| sample.value.parse().context("a count"))
        .collect::<Result<_>>()?;
    ensure!(buckets.is_sorted(), "buckets are cumulative: {buckets:?}");
    let seconds = |labels: &[(&str, &str)]| -> Result<f64> {
        let found = scrape.matching(by_cgroup, labels);
        let values = found.map(|sample| sample.value.parse::<f64>().context("seconds"));
        Ok(values.collect::<Result<Vec<_>>>()?.iter().sum())
    };
    let waited = seconds(&[("cgroup", path.as_str())])?;
    let most = Duration::from_nanos(told.time()).as_secs_f64();
    ensure!(waited > 0.0 && waited <= most, "{waited} s of {most} s");
    let whole: f64 = scrape
        .matching(&format!("{name}_sum"), &[])
        .map(|sample| sample.value.parse::<f64>().unwrap_or_default())
        .sum();
    let told = seconds(&[])?;
    // All cgroups together are the whole; the rest never shrinks, so that it may be a little more.
    ensure!(told >= whole * 0.999, "{told} s of {whole} s");
    // So many cgroups at once are more than the agent keeps names of; nothing else may be lost.
    let losses = daemon.losses()?;
    let names = [Some("cgroup_names")];
    let lost = |sample: &&Sample| !names.contains(&sample.labels.get("queue").map(String::as_str));
    let others: Vec<&Sample> = losses.iter().filter(lost).collect();
    ensure!(others.is_empty(), "{others:?}");
    daemon.stop()
}

#[test]
fn doctor_says_what_the_node_could_do() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let told = trace::run(&["doctor", "--json"])?.success()?;
    let findings: Value = serde_json::from_str(told.stdout.trim())?;
    let hierarchies = items(&findings["cgroups"], "hierarchies")?;
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let mounted = |kind: &str| {
        let kinds = mounts.lines().filter_map(|line| line.split(' ').nth(2));
        kinds.filter(|found| *found == kind).count()
    };
    let of = |version: u64| {
        let versions = hierarchies.iter().filter_map(|one| one["version"].as_u64());
        versions.filter(|found| *found == version).count()
    };
    ensure!(of(1) == mounted("cgroup"), "{hierarchies:#?}");
    ensure!(of(2) == mounted("cgroup2"), "{hierarchies:#?}");
    let advice = items(&findings["cgroups"], "advice")?;
    let favoured = mounts.contains("favordynmods");
    let advised = advice
        .iter()
        .filter_map(Value::as_str)
        .any(|text| text.contains("favordynmods is off"));
    ensure!(advised != favoured, "{advice:#?}");
    Ok(())
}

#[test]
fn wrong_options_are_refused_with_what_is_right() -> Result<()> {
    for (arguments, words) in [
        (["locks", "--for", "10"], "unit"),
        (["locks", "--worst", "0"], "--worst"),
        (["locks", "--threshold", "soon"], "--threshold"),
    ] {
        let told = trace::run(&arguments)?;
        ensure!(!told.status.success(), "{told:?}");
        ensure!(
            told.stderr.contains(words),
            "no {words:?} in {}",
            told.stderr
        );
    }
    Ok(())
}
