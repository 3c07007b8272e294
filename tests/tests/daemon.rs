//! The life of the daemon, and its ledger.

use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use hearth_abi::{Fate, Probe};
use hearth_tests::child;
use hearth_tests::daemon::{self, Daemon};
use hearth_tests::metrics::Scrape;
use hearth_tests::programs::{self, Language, Program};
use hearth_tests::report::ReportFile;
use hearth_tests::start::Start;
use hearth_tests::{machine, requirement, trace};
use rustix::process::Signal;

const SETTINGS: &str = "mode = \"process\"\n";

/// Runs the oracle and fails unless the daemon tells its start.
fn observes(daemon: &Daemon) -> Result<Start> {
    let oracle = programs::oracle(Language::CDynamic)?;
    observes_run_of(daemon, &oracle)
}

fn observes_run_of(daemon: &Daemon, oracle: &Program) -> Result<Start> {
    let file = ReportFile::new()?;
    let line = oracle.with(&["listen", &file.path().to_string_lossy()]);
    child::run(
        Command::new(&line[0]).args(&line[1..]),
        Duration::from_mins(1),
    )?
    .success()?;
    let report = file.report()?;
    let starts = daemon.wait_for(1, |start| {
        start.is_process(report.pid, report.start_ticks).is_ok()
    })?;
    starts[0].agrees(&report)?;
    ensure!(starts[0].ready == "listen", "{:#?}", starts[0]);
    ensure!(starts[0].identity.is_called(&line[0]), "{:#?}", starts[0]);
    Ok(starts[0].clone())
}

#[test]
fn a_file_seen_before_shows_its_hand_over() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let daemon = Daemon::start(SETTINGS)?;
    // The first start enrols the file; how many more come before that has happened is open.
    for _ in 0..20 {
        if observes(&daemon)?.phase("user_init").is_ok() {
            return daemon.stop();
        }
    }
    anyhow::bail!("no start of the same file shows its hand-over")
}

#[test]
fn it_keeps_no_capability_that_it_does_not_need() -> Result<()> {
    /// `CAP_DAC_READ_SEARCH`, `CAP_SYS_PTRACE`, `CAP_PERFMON`, `CAP_BPF`.
    const KEPT: [u32; 4] = [2, 19, 38, 39];
    /// `CAP_SYS_ADMIN`: in force only while a uprobe is attached.
    const IN_RESERVE: u32 = 21;
    requirement::root()?;
    let _machine = machine::shared()?;
    let daemon = Daemon::start(SETTINGS)?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid()))?;
    for set in ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:"] {
        let line = status.lines().find_map(|line| line.strip_prefix(set));
        let bits = u64::from_str_radix(line.unwrap_or_default().trim(), 16)?;
        let more: Vec<u32> = (0..64)
            .filter(|bit| bits >> bit & 1 == 1 && !KEPT.contains(bit))
            .filter(|bit| set != "CapPrm:" || *bit != IN_RESERVE)
            .collect();
        ensure!(more.is_empty(), "{set} still has {more:?}");
    }
    observes(&daemon)?;
    daemon.stop()
}

/// The types of a kernel and the symbols of what runs are tens of megabytes while they are read.
#[test]
fn what_its_start_took_is_not_in_its_heap() -> Result<()> {
    const MOST: u64 = 4 << 20;
    requirement::root()?;
    let _machine = machine::shared()?;
    let daemon = Daemon::start(SETTINGS)?;
    let heap = daemon.heap()?;
    println!("{heap} bytes");
    ensure!(heap < MOST, "{heap} bytes of heap");
    daemon.stop()
}

#[test]
fn it_ends_well_when_asked_to() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    for signal in [Signal::TERM, Signal::INT] {
        let mut daemon = Daemon::start(SETTINGS)?;
        observes(&daemon)?;
        daemon.signal(signal)?;
        let status = daemon.wait()?;
        ensure!(
            status.success(),
            "{signal:?} ended it with {status}: {}",
            daemon.errors()
        );
        ensure!(daemon.other().is_empty(), "it printed {:?}", daemon.other());
    }
    Ok(())
}

#[test]
fn it_works_after_one_that_was_killed() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let address = daemon::free_address()?;
    let mut killed = Daemon::start_at(address, SETTINGS)?;
    observes(&killed)?;
    killed.signal(Signal::KILL)?;
    let status = killed.wait()?;
    ensure!(status.signal() == Some(9), "it ended with {status}");
    let next = Daemon::start_at(address, SETTINGS)?;
    observes(&next)?;
    next.stop()
}

#[test]
fn a_second_one_beside_it_observes_too() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let first = Daemon::start(SETTINGS)?;
    let second = Daemon::start(SETTINGS)?;
    observes(&first)?;
    observes(&second)?;
    second.stop()?;
    observes(&first)?;
    first.stop()
}

#[test]
fn a_second_one_at_the_same_address_says_so() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let address = daemon::free_address()?;
    let first = Daemon::start_at(address, SETTINGS)?;
    let Err(refusal) = Daemon::start_at(address, SETTINGS) else {
        anyhow::bail!("both listen at {address}");
    };
    let refusal = format!("{refusal:#}");
    ensure!(refusal.contains(&address.to_string()), "{refusal}");
    ensure!(!refusal.contains("panicked"), "{refusal}");
    observes(&first)?;
    first.stop()
}

#[test]
fn its_metrics_are_served_on_loopback_and_tell_starts() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let address = daemon::free_address()?;
    let daemon = Daemon::start_at(address, SETTINGS)?;
    // Other tests run the oracle, too: a name that only this one has.
    let folder = ReportFile::new()?;
    let own = folder.folder().join("counted-once");
    std::fs::copy(programs::c("oracle")?, &own)?;
    observes_run_of(&daemon, &Program { command: vec![own] })?;
    let scrape = daemon.scrape()?;
    let oracle = [("faas_name", "counted-once"), ("ready", "listen")];
    let count = scrape.count("hearth_cold_start_duration_seconds_count", &oracle)?;
    ensure!(count == 1, "{count} starts are counted");
    for phase in ["exec", "user_init"] {
        let labels = [("faas_name", "counted-once"), ("phase", phase)];
        let sum = scrape.matching("hearth_cold_start_phase_duration_seconds_count", &labels);
        ensure!(sum.count() <= 1, "{phase} is there more than once");
    }
    ensure!(
        scrape.count("hearth_agent_memory_pss_bytes", &[])? > 0,
        "no memory"
    );
    // Another address of this machine must not answer.
    for host in std::fs::read_to_string("/proc/net/fib_trie")?
        .lines()
        .filter_map(|line| line.trim().strip_prefix("|-- "))
        .filter_map(|host| host.parse::<std::net::Ipv4Addr>().ok())
        .filter(|host| !host.is_loopback() && !host.is_unspecified())
    {
        let other = (host, address.port()).into();
        let reached = TcpStream::connect_timeout(&other, Duration::from_millis(200));
        ensure!(reached.is_err(), "its metrics are served at {other}");
    }
    daemon.stop()
}

/// Seen, and the sum of the other fates.
fn row(scrape: &Scrape, probe: Probe) -> Result<(u64, u64)> {
    let count = |fate: Fate| {
        let labels = [("probe", probe.name()), ("fate", fate.name())];
        scrape.count("hearth_probe_events_total", &labels)
    };
    let fates = Fate::ALL.into_iter().filter(|fate| *fate != Fate::Seen);
    Ok((count(Fate::Seen)?, fates.map(count).sum::<Result<u64>>()?))
}

#[test]
fn every_hit_of_every_probe_has_a_fate() -> Result<()> {
    requirement::root()?;
    let _machine = machine::quiet()?;
    let daemon = Daemon::start(SETTINGS)?;
    for _ in 0..3 {
        observes(&daemon)?;
    }
    // A hit may be under way while its row is read: it has its fate a moment later.
    let unequal = |scrape: &Scrape| -> Result<Vec<String>> {
        let rows = Probe::ALL
            .into_iter()
            .map(|probe| Ok((probe, row(scrape, probe)?)));
        let rows = rows.collect::<Result<Vec<_>>>()?.into_iter();
        let unequal = rows.filter(|(_, (seen, fates))| seen != fates);
        Ok(unequal
            .map(|(probe, row)| format!("{}: {row:?}", probe.name()))
            .collect())
    };
    let mut differences = Vec::new();
    for _ in 0..50 {
        let scrape = daemon.scrape()?;
        differences = unequal(&scrape)?;
        // The agent reads its ledger once a second, the first time before all of this.
        for probe in [Probe::Fork, Probe::Exec] {
            if row(&scrape, probe)?.0 == 0 {
                differences.push(format!("no {} was seen", probe.name()));
            }
        }
        if differences.is_empty() {
            return daemon.stop();
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    anyhow::bail!("seen is not the sum of the fates: {differences:#?}")
}

#[test]
fn starts_are_not_held_back_by_a_collector_that_is_away() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let nobody = daemon::free_address()?;
    let settings = format!("{SETTINGS}[otlp]\nendpoint = \"http://{nobody}\"\n");
    let daemon = Daemon::start(&settings)?;
    observes(&daemon)?;
    daemon.stop()
}

#[test]
fn a_wrong_configuration_is_refused_in_words() -> Result<()> {
    requirement::root()?;
    for (settings, words) in [
        ("mode = \"proces\"\n", ["mode", "proces", "process"]),
        (
            "deadlin = \"5min\"\n",
            ["deadlin", "deadline", "hearth.toml"],
        ),
        (
            "deadline = \"5 parsec\"\n",
            ["deadline", "5 parsec", "hearth.toml"],
        ),
    ] {
        let Err(refusal) = Daemon::start(settings) else {
            anyhow::bail!("it runs with {settings}");
        };
        let refusal = format!("{refusal:#}");
        for word in words {
            ensure!(refusal.contains(word), "no {word:?} in: {refusal}");
        }
    }
    let folder = ReportFile::new()?;
    let config = folder.folder().join("hearth.toml");
    std::fs::write(&config, SETTINGS)?;
    std::fs::set_permissions(&config, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
    let told = trace::run(&["run", "--config", &config.to_string_lossy()])?;
    ensure!(
        !told.status.success(),
        "it trusts a file that anybody can write"
    );
    ensure!(told.stderr.contains("hearth.toml"), "{}", told.stderr);
    ensure!(told.stderr.contains("chmod"), "no remedy: {}", told.stderr);
    Ok(())
}
