//! Where the time of a phase went, against what the scheduler charged the program with.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use hearth_tests::child::Guard;
use hearth_tests::report::{Charge, ReportFile};
use hearth_tests::start::Phase;
use hearth_tests::trace::trace;
use hearth_tests::{machine, programs, requirement};
use rustix::fs::{Advice, fadvise};

/// The phase in which a program of `cause` did what it does, and what it was charged with.
fn user_init(cause: &str, arguments: &[&str]) -> Result<(Phase, Charge)> {
    let file = ReportFile::new()?;
    let report = file.path().to_string_lossy().into_owned();
    let program = programs::c("cause")?.to_string_lossy().into_owned();
    let mut command = vec![program, cause.to_owned(), report];
    command.extend(arguments.iter().map(|word| (*word).to_owned()));
    let traced = trace(&[], &command)?;
    let start = traced.only()?;
    start.hands_over(&file.report()?)?;
    Ok((start.phase("user_init")?.clone(), file.only()?))
}

/// Fails unless the two agree within a twentieth of the phase: the phase has the program's
/// own bookkeeping around what it was charged with.
fn near(what: &str, told_ns: u64, charged_ns: u64, phase: &Phase, charge: &Charge) -> Result<()> {
    ensure!(
        told_ns.abs_diff(charged_ns) <= phase.duration_ns() / 20,
        "{what}: told {told_ns}, charged {charged_ns}: {phase:#?} {charge:#?}"
    );
    Ok(())
}

/// Time in which the program neither ran nor waited for a CPU.
fn waited_ns(charge: &Charge) -> u64 {
    (charge.end_ns - charge.begin_ns).saturating_sub(charge.run_ns + charge.delay_ns)
}

#[test]
fn one_that_spins_is_running() -> Result<()> {
    requirement::root()?;
    let _machine = machine::quiet()?;
    let (phase, charge) = user_init("spin", &["200"])?;
    let [running, queued, io, blocked] = phase.split()?;
    near("running", running, charge.run_ns, &phase, &charge)?;
    near("queued", queued, charge.delay_ns, &phase, &charge)?;
    near("io and blocked", io + blocked, 0, &phase, &charge)
}

/// Fails unless a program of `cause` was blocked for as long as it did not run and could not have.
fn is_blocked(cause: &str) -> Result<()> {
    requirement::root()?;
    let _machine = machine::quiet()?;
    let (phase, charge) = user_init(cause, &["200"])?;
    let [running, queued, io, blocked] = phase.split()?;
    near("blocked", blocked, waited_ns(&charge), &phase, &charge)?;
    let charged = charge.run_ns + charge.delay_ns;
    near("the rest", running + queued + io, charged, &phase, &charge)
}

#[test]
fn one_that_sleeps_is_blocked() -> Result<()> {
    is_blocked("sleep")
}

#[test]
fn one_behind_hogs_is_queued() -> Result<()> {
    requirement::root()?;
    let _machine = machine::quiet()?;
    let hog = programs::c("hog")?;
    let hogs: Vec<Guard> = (0..2)
        .map(|_| {
            let child = Command::new(&hog).arg("1").stdout(Stdio::null()).spawn();
            child.map(Guard).context("run a hog")
        })
        .collect::<Result<_>>()?;
    let (phase, charge) = user_init("queue", &["100", "1"])?;
    drop(hogs);
    ensure!(
        charge.delay_ns > charge.run_ns / 2,
        "the hogs did not hog: {charge:?}"
    );
    let [running, queued, io, blocked] = phase.split()?;
    near("running", running, charge.run_ns, &phase, &charge)?;
    near("queued", queued, charge.delay_ns, &phase, &charge)?;
    near("io and blocked", io + blocked, 0, &phase, &charge)
}

/// A file of this length on a disk, none of it in memory; removed when dropped.
struct ColdFile(PathBuf);

impl ColdFile {
    fn new(length: usize) -> Result<Self> {
        let cold = Self(machine::target().canonicalize()?.join("hearth-cold-file"));
        let mut file = File::create(&cold.0).context("make the cold file")?;
        let block: Vec<u8> = (0..=u8::MAX).cycle().take(1 << 20).collect();
        for _ in 0..length >> 20 {
            file.write_all(&block).context("fill the cold file")?;
        }
        file.sync_all().context("write the cold file back")?;
        fadvise(&file, 0, None, Advice::DontNeed).context("drop the cold file from memory")?;
        Ok(cold)
    }
}

impl AsRef<Path> for ColdFile {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Drop for ColdFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn one_that_reads_a_cold_file_is_in_io() -> Result<()> {
    const LENGTH: u64 = 256 << 20;
    requirement::root()?;
    let _machine = machine::quiet()?;
    let file = ColdFile::new(usize::try_from(LENGTH)?)?;
    let (phase, charge) = user_init("read", &[&file.as_ref().to_string_lossy()])?;
    ensure!(
        charge.read_bytes >= LENGTH,
        "the file was not cold, or {} is not on a disk: {charge:?}",
        file.as_ref().display()
    );
    let [running, queued, io, blocked] = phase.split()?;
    near("io", io, waited_ns(&charge), &phase, &charge)?;
    near("running", running, charge.run_ns, &phase, &charge)?;
    near("queued", queued, charge.delay_ns, &phase, &charge)?;
    near("blocked", blocked, 0, &phase, &charge)?;
    let read = phase.read_bytes.context("bytes read are not measured")?;
    ensure!(
        (charge.read_bytes..charge.read_bytes + (1 << 20)).contains(&read),
        "told {read}: {charge:?}"
    );
    Ok(())
}

#[test]
fn one_that_waits_for_a_sleeping_holder_of_a_lock_is_blocked() -> Result<()> {
    is_blocked("lock-idle")
}

#[test]
fn one_that_waits_for_a_running_holder_of_a_lock_is_running() -> Result<()> {
    requirement::root()?;
    let _machine = machine::quiet()?;
    let (phase, charge) = user_init("lock-busy", &["200"])?;
    // The process runs while any of its threads does: here the holder, while main waits.
    let [running, queued, io, blocked] = phase.split()?;
    near("running", running, charge.run_ns, &phase, &charge)?;
    near(
        "the rest",
        queued + io + blocked,
        phase.duration_ns() - charge.run_ns,
        &phase,
        &charge,
    )?;
    near("io", io, 0, &phase, &charge)
}
