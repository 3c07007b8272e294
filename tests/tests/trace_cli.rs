//! `hearth trace` as it is typed: its options, its answers, its refusals.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hearth_tests::child::{self, Finished};
use hearth_tests::programs::{self, Language};
use hearth_tests::report::ReportFile;
use hearth_tests::trace::{self, Traced, trace};
use hearth_tests::{daemon, machine, requirement};
use serde_json::Value;

fn oracle(file: &ReportFile, mode: &str) -> Result<Vec<String>> {
    Ok(programs::oracle(Language::CDynamic)?.with(&[mode, &file.path().to_string_lossy()]))
}

#[test]
fn json_is_all_that_standard_output_has() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let traced = trace(&[], &["/bin/echo".into(), "from the program".into()])?;
    traced.only()?;
    ensure!(
        traced.other.is_empty(),
        "standard output has {:?}, too",
        traced.other
    );
    ensure!(
        traced.finished.stderr.contains("from the program"),
        "what the program says is lost: {:?}",
        traced.finished
    );
    Ok(())
}

#[test]
fn people_get_every_phase_and_the_total() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let file = ReportFile::new()?;
    let command = oracle(&file, "exit")?;
    let mut arguments = vec!["trace", "--"];
    arguments.extend(command.iter().map(String::as_str));
    let told = trace::run(&arguments)?.success()?;
    let text = format!("{}{}", told.stdout, told.stderr);
    for word in [
        "create",
        "exec",
        "link",
        "runtime_init",
        "user_init",
        "oracle",
    ] {
        ensure!(text.contains(word), "no {word} in:\n{text}");
    }
    Ok(())
}

#[test]
fn a_repeated_trace_tells_every_start() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let file = ReportFile::new()?;
    let traced = trace(&["--repeat", "5"], &oracle(&file, "listen")?)?;
    ensure!(traced.starts.len() == 5, "{:?}", traced.finished);
    let reports = file.reports()?;
    ensure!(reports.len() == 5, "it ran {} times", reports.len());
    for (start, report) in traced.starts.iter().zip(&reports) {
        start.hands_over(report)?;
    }
    Ok(())
}

/// A program's file that nothing else has mapped, written to the disk.
fn own_copy(file: &ReportFile) -> Result<PathBuf> {
    let copy = machine::target().canonicalize()?.join(format!(
        "hearth-cold-program-{}",
        file.folder()
            .file_name()
            .context("a name")?
            .to_string_lossy()
    ));
    fs::copy(programs::oracle(Language::Go)?.exe(), &copy)?;
    fs::File::open(&copy)?.sync_all()?;
    Ok(copy)
}

fn bytes_read(traced: &Traced) -> Result<u64> {
    let phases = &traced.only()?.phases;
    phases
        .iter()
        .map(|phase| phase.read_bytes.context("read_bytes is not measured"))
        .sum()
}

#[test]
fn a_cold_trace_reads_the_program_from_the_disk() -> Result<()> {
    requirement::root()?;
    let _machine = machine::quiet()?;
    let file = ReportFile::new()?;
    let copy = own_copy(&file)?;
    let line = [
        copy.to_string_lossy().into_owned(),
        "exit".into(),
        file.path().to_string_lossy().into_owned(),
    ];
    let traces = (|| Ok::<_, anyhow::Error>([trace(&["--cold"], &line)?, trace(&[], &line)?]))();
    fs::remove_file(&copy)?;
    let [cold, warm] = traces?;
    let (cold, warm) = (bytes_read(&cold)?, bytes_read(&warm)?);
    ensure!(
        cold > 100_000,
        "only {cold} bytes were read though it was cold"
    );
    ensure!(warm == 0, "{warm} bytes were read though it was warm");
    Ok(())
}

#[test]
fn a_file_for_perfetto_has_the_phases() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let file = ReportFile::new()?;
    let picture = file
        .folder()
        .join("trace.json")
        .to_string_lossy()
        .into_owned();
    let traced = trace(&["--perfetto", &picture], &oracle(&file, "listen")?)?;
    let start = traced.only()?;
    let picture: Value = serde_json::from_str(&fs::read_to_string(&picture)?)
        .context("the file is no JSON trace")?;
    let events = picture["traceEvents"]
        .as_array()
        .context("no traceEvents")?;
    for phase in &start.phases {
        let name = phase.names().join("+");
        let event = events
            .iter()
            .find(|event| event["ph"] == "X" && event["name"] == *name)
            .with_context(|| format!("no event {name} in {events:#?}"))?;
        let drawn = event["dur"].as_f64().context("an event has no duration")?;
        let drawn_ns = Duration::from_secs_f64(drawn / 1e6).as_nanos();
        ensure!(
            drawn_ns.abs_diff(phase.duration_ns().into()) <= 1_000,
            "{name} is drawn {drawn} us long: {phase:?}"
        );
    }
    Ok(())
}

#[test]
fn the_program_can_join_the_trace() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    // Nobody is there: the program is told of its trace before it is sent.
    let collector = format!("http://{}", daemon::free_address()?);
    let script = r#"echo "parent=$TRACEPARENT" >&2"#.to_owned();
    let traced = trace(
        &["--otlp", &collector],
        &["/bin/sh".into(), "-c".into(), script],
    )?;
    traced.only()?;
    let errors = &traced.finished.stderr;
    let parent = errors
        .split("parent=")
        .nth(1)
        .and_then(|rest| rest.lines().next());
    let parent: Vec<&str> = parent
        .context("the program said nothing")?
        .split('-')
        .collect();
    let lengths: Vec<usize> = parent.iter().map(|field| field.len()).collect();
    ensure!(lengths == [2, 32, 16, 2], "TRACEPARENT is {parent:?}");
    ensure!(
        parent[1].bytes().any(|digit| digit != b'0'),
        "TRACEPARENT is {parent:?}"
    );
    Ok(())
}

#[test]
fn other_rules_of_ready_are_kept() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let file = ReportFile::new()?;
    let marker = file.folder().join("ready").to_string_lossy().into_owned();
    let script = format!("sleep 0.05; : > {marker}; sleep 0.1");
    let rule = format!("file:{marker}");
    let traced = trace(
        &["--ready", &rule],
        &["/bin/sh".into(), "-c".into(), script],
    )?;
    let start = traced.only()?;
    ensure!(start.ready == "file", "{start:#?}");
    ensure!(start.total_ns >= 50_000_000, "{}", start.outline());

    let traced = trace(&["--ready", "exit"], &oracle(&file, "listen")?)?;
    let start = traced.only()?;
    ensure!(start.ready == "exit", "{start:#?}");
    // It stays for 200 ms after it listens.
    ensure!(start.total_ns >= 200_000_000, "{}", start.outline());

    let program = programs::c("uprobe")?.to_string_lossy().into_owned();
    let rule = format!("uprobe:{program}:serve");
    let traced = trace(&["--ready", &rule], &[program])?;
    ensure!(traced.only()?.ready == "uprobe", "{:#?}", traced.starts);
    Ok(())
}

#[test]
fn accept_and_notify_are_ready_too() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let script = "import socket, time
s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); time.sleep(0.05)
s.settimeout(0.1)
try:
    s.accept()
except OSError:
    pass";
    let python = requirement::tool("python3", "python3-minimal")?;
    let python = python.to_string_lossy().into_owned();
    let traced = trace(
        &["--ready", "accept"],
        &[python.clone(), "-c".into(), script.into()],
    )?;
    let start = traced.only()?;
    ensure!(start.ready == "accept", "{start:#?}");
    ensure!(
        start.phase_with("user_init")?.duration_ns() >= 50_000_000,
        "{}",
        start.outline()
    );

    let script = "import os, socket, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
time.sleep(0.05)
s.sendto(b'READY=1', os.environ['NOTIFY_SOCKET'])
time.sleep(0.1)";
    let file = ReportFile::new()?;
    let socket = file.folder().join("notify");
    let _receiver = std::os::unix::net::UnixDatagram::bind(&socket)?;
    let mut line = Command::new(trace::hearth()?);
    line.args(["trace", "--json", "--ready", "notify", "--", "/usr/bin/env"])
        .arg(format!("NOTIFY_SOCKET={}", socket.display()))
        .args([&python, "-c", script]);
    let told = child::run(&mut line, Duration::from_mins(1))?;
    let start: Value =
        serde_json::from_str(told.stdout.trim()).with_context(|| format!("{told:?}"))?;
    ensure!(start["ready"] == "notify", "{start:#}");
    Ok(())
}

/// Kills a process when dropped, if it is still there.
struct Server(u32);

impl Server {
    fn is_gone(&self) -> bool {
        !std::path::Path::new("/proc")
            .join(self.0.to_string())
            .exists()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.0)
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

#[test]
fn a_server_that_is_ready_is_ended_with_its_wrapper() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let python = requirement::tool("python3", "python3-minimal")?;
    let python = python.to_string_lossy().into_owned();
    let server = "import os, socket, time
s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()
time.sleep(60)";
    let shell = r#""$0" "$@"; exit $?"#;
    for wrapper in [vec![], vec!["/bin/sh", "-c", shell]] {
        let mut line = Command::new(trace::hearth()?);
        line.args(["trace", "--json", "--"])
            .args(wrapper)
            .args([&python, "-c", server]);
        // The server would keep a pipe open for as long as it lives.
        let file = ReportFile::new()?;
        line.stdout(fs::File::create(file.path())?)
            .stderr(std::process::Stdio::null());
        ensure!(line.status()?.success(), "{line:?}");
        let start: Value = serde_json::from_str(&fs::read_to_string(file.path())?)?;
        ensure!(start["ready"] == "listen", "{start:#}");
        let pid = start["identity"]["pid"].as_u64().context("no pid")?;
        let server = Server(u32::try_from(pid)?);
        for _ in 0..100 {
            if server.is_gone() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        ensure!(server.is_gone(), "the server still runs after {line:?}");
    }
    Ok(())
}

/// Whoever ends `hearth trace` before the command is ready does not know what it started.
#[test]
fn what_was_started_ends_with_an_interrupted_trace() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let file = ReportFile::new()?;
    let path = file.path().to_string_lossy().into_owned();
    let script = "sleep 600 & echo $! > \"$0\"; sleep 600";
    let mut line = Command::new(trace::hearth()?);
    line.args(["trace", "--ready", "listen", "--", "/bin/sh", "-c", script])
        .arg(&path)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    let mut hearth = line.spawn()?;
    let mut started = None;
    for _ in 0..1000 {
        // Not there before the command has written it.
        let written = fs::read_to_string(&path).unwrap_or_default();
        started = written.trim().parse::<u32>().ok();
        if started.is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = rustix::process::Pid::from_child(&hearth);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    let status = hearth.wait()?;
    let sleeper = Server(started.context("the command did not start")?);
    ensure!(!status.success(), "an interrupted trace says {status}");
    for _ in 0..100 {
        if sleeper.is_gone() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    anyhow::bail!("process {} still runs", sleeper.0)
}

/// Fails unless `told` is a refusal that has all of `words`.
fn refuses(told: &Finished, words: &[&str]) -> Result<()> {
    ensure!(!told.status.success(), "it went through: {told:?}");
    for word in words {
        ensure!(
            told.stderr.contains(word),
            "no {word:?} in: {}",
            told.stderr
        );
    }
    ensure!(!told.stderr.contains("panicked"), "{}", told.stderr);
    Ok(())
}

#[test]
fn a_command_that_is_not_there_is_named() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let told = trace::run(&["trace", "--", "hearth-no-such-program"])?;
    refuses(&told, &["hearth-no-such-program"])?;
    let told = trace::run(&["trace", "--", "/etc/hostname"])?;
    refuses(&told, &["/etc/hostname"])
}

#[test]
fn a_wrong_ready_rule_is_told_with_the_right_ones() -> Result<()> {
    let told = trace::run(&["trace", "--ready", "lissen", "--", "/bin/true"])?;
    refuses(&told, &["lissen", "listen", "exit"])?;
    let told = trace::run(&["trace", "--ready", "file:relative", "--", "/bin/true"])?;
    refuses(&told, &["file:relative"])
}

#[test]
fn no_command_and_no_repeats_are_refused() -> Result<()> {
    refuses(&trace::run(&["trace"])?, &["CMD"])?;
    refuses(
        &trace::run(&["trace", "--repeat", "0", "--", "/bin/true"])?,
        &["--repeat"],
    )?;
    refuses(
        &trace::run(&["trace", "--repeat", "many", "--", "/bin/true"])?,
        &["--repeat"],
    )
}

#[test]
fn without_capabilities_it_says_which_it_needs() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    // Where anybody can read it, unlike a build's folder.
    let file = ReportFile::new()?;
    let copy = file.folder().join("hearth");
    fs::copy(trace::hearth()?, &copy)?;
    fs::set_permissions(
        file.folder(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )?;
    let mut line = Command::new(requirement::tool("setpriv", "util-linux")?);
    line.args([
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--inh-caps=-all",
    ])
    .args(["--bounding-set=-all"])
    .arg(&copy)
    .args(["trace", "--", "/bin/true"]);
    let told = child::run(&mut line, Duration::from_mins(1))?;
    refuses(&told, &["CAP_BPF", "CAP_PERFMON"])
}

#[test]
fn the_shell_is_told_how_the_command_ended() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    for (script, ready, code) in [
        ("exit 0", "listen,exit", 0),
        ("exit 7", "listen,exit", 7),
        ("kill -9 $$", "listen,exit", 128 + 9),
        // It ends well, and never was what it was to be.
        ("exit 0", "listen", 1),
    ] {
        let command = ["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()];
        let traced = trace(&["--ready", ready], &command)?;
        let told = traced.finished.status.code();
        ensure!(
            told == Some(code),
            "{script}, {ready}: {told:?} {:#?}",
            traced.finished
        );
    }
    // Ended by us, because it was not ready in time.
    let line = [
        "trace",
        "--deadline",
        "200ms",
        "--ready",
        "listen",
        "--",
        "/bin/sleep",
        "60",
    ];
    let told = hearth_tests::trace::run(&line)?;
    ensure!(told.status.code() == Some(1), "{told:?}");
    Ok(())
}
