//! `cargo xtask test`: every tier, counted, and what could not run said aloud.

mod emulated;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::ValueEnum;
use serde::Deserialize;

use crate::agent::{self, Profile};
use crate::kernels::Kernel;
use crate::libtest::Counts;
use crate::report::{End, Line};
use crate::setup::{self, Purpose};
use crate::workspace::Workspace;
use crate::{layers, lint, program};

use emulated::Guest;

/// A group of tests that need the same from a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Tier {
    /// Format, lints and licences.
    Lint,
    /// What needs no kernel and no other program.
    Unit,
    /// Any bytes and any marks, through the bodies of the fuzz targets.
    Fuzz,
    /// Real programs under this machine's kernel.
    Kernel,
    /// Machines on this machine's KVM.
    Kvm,
    /// Real collectors: rotel, Prometheus, promtool, Grafana's types.
    Telemetry,
    /// The kernel ladder on Debian 12's kernel, emulated.
    #[value(name = "vm-6.1")]
    Vm6_1,
    /// The kernel ladder on Debian 13's kernel, emulated.
    #[value(name = "vm-6.12")]
    Vm6_12,
}

/// Test programs of `hearth-tests` for the telemetry tier; all others are the kernel tier's.
const TELEMETRY: &[&str] = &["dashboards", "telemetry"];

/// Test programs of the agent that take root: the kernel tier's too.
const AS_ROOT: &[&str] = &["cri", "exits", "oom_recorder"];

/// The tests of the fuzz tier, in the agent's test program `cold_start`.
const FUZZ: &str = "any_marks";
/// The test program of the runtime that is all of the fuzz tier.
const FUZZ_OF_RUNTIME: &str = "any_bytes";
/// The test program of the VMM that is all of the fuzz tier: it takes no KVM.
const FUZZ_OF_VMM: &str = "any_descriptors";
/// The test program of the VMM that takes a KVM which boots Linux: the VM tiers have one.
const LINUX_OF_VMM: &str = "linux";

/// How many tests of a tier are run a second time: more failures than this have one cause.
const SECOND_RUNS: usize = 3;

/// Sets up, builds and runs these tiers; whether all of them ran and passed.
pub(crate) fn run(workspace: &Workspace, tiers: &[Tier], allowed: &[Tier]) -> Result<bool> {
    let tiers = if tiers.is_empty() {
        Tier::value_variants()
    } else {
        tiers
    };
    // What is missing for one tier must not keep the others from running.
    if let Err(error) = set_up(workspace, tiers) {
        eprintln!("{error:#}");
    }
    if tiers.iter().any(|tier| *tier != Tier::Lint) {
        agent::build(workspace, Profile::Dev)?;
    }
    if tiers.iter().any(|tier| tier.deploys_functions()) {
        layers::build(workspace)?;
    }
    let (emulated, here): (Vec<Tier>, Vec<Tier>) =
        tiers.iter().partition(|tier| tier.kernel().is_some());
    let mut lines = Vec::new();
    for tier in here {
        let mut line = tier.line(workspace, allowed, |only| tier.run(workspace, only));
        tier.run_again(&mut line, |only| tier.run(workspace, only));
        lines.push(line);
    }
    if !emulated.is_empty() {
        let guest = Guest::build(workspace);
        let run = |tier: Tier, only: &[&str]| match (&guest, tier.kernel()) {
            (Ok(guest), Some(kernel)) => Ok(guest.run(workspace, kernel, only)),
            (Err(error), _) => bail!("there is nothing to put into the VM: {error:#}"),
            (_, None) => bail!("{} is no VM tier", tier.name()),
        };
        // Each uses little more than one processor.
        let first = thread::scope(|scope| {
            let start = |tier: Tier| {
                scope.spawn(move || tier.line(workspace, allowed, |only| run(tier, only)))
            };
            let running: Vec<_> = emulated.iter().copied().map(start).collect();
            let lines = running.into_iter().map(thread::ScopedJoinHandle::join);
            lines.collect::<Result<Vec<_>, _>>()
        });
        let mut first = first.map_err(|_| anyhow!("a VM tier panicked"))?;
        for (tier, line) in emulated.iter().zip(&mut first) {
            tier.run_again(line, |only| run(*tier, only));
        }
        lines.append(&mut first);
    }
    print!("{}", crate::report::table(&lines));
    Ok(lines.iter().all(Line::is_well))
}

fn set_up(workspace: &Workspace, tiers: &[Tier]) -> Result<()> {
    let purposes: std::collections::BTreeSet<_> = tiers.iter().map(|tier| tier.purpose()).collect();
    purposes
        .iter()
        .try_for_each(|&purpose| setup::setup(workspace, purpose, false))
}

impl Tier {
    /// As on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    fn deploys_functions(self) -> bool {
        matches!(
            self,
            Self::Kernel | Self::Telemetry | Self::Vm6_1 | Self::Vm6_12
        )
    }

    fn purpose(self) -> Purpose {
        match self {
            Self::Lint | Self::Unit | Self::Fuzz | Self::Kvm => Purpose::Build,
            Self::Kernel | Self::Telemetry => Purpose::Test,
            Self::Vm6_1 | Self::Vm6_12 => Purpose::Vm,
        }
    }

    /// Why this tier cannot run on this machine, if it cannot.
    fn lacks(self, workspace: &Workspace) -> Option<String> {
        if let Err(error) = setup::setup(workspace, self.purpose(), true) {
            return Some(format!("{error:#}"));
        }
        match self {
            Self::Kernel | Self::Telemetry => lacks_bpf(),
            Self::Kvm => lacks_kvm(),
            _ => None,
        }
    }

    /// The kernel of a VM tier.
    fn kernel(self) -> Option<Kernel> {
        match self {
            Self::Vm6_1 => Some(Kernel::V6_1),
            Self::Vm6_12 => Some(Kernel::V6_12),
            _ => None,
        }
    }

    /// Runs it where it can be run.
    fn line(
        self,
        workspace: &Workspace,
        allowed: &[Self],
        run: impl FnOnce(&[&str]) -> Result<Counts>,
    ) -> Line {
        eprintln!("\n== {} ==", self.name());
        let begin = Instant::now();
        let end = match self.lacks(workspace) {
            Some(why) if allowed.contains(&self) => End::Allowed(why),
            Some(why) => End::CannotRun(why),
            None => End::Ran(told(run(&[]))),
        };
        Line {
            name: self.name(),
            end,
            took: begin.elapsed(),
        }
    }

    /// What failed on a machine that others use too is run once more, by itself.
    fn run_again(self, line: &mut Line, run: impl FnOnce(&[&str]) -> Result<Counts>) {
        let End::Ran(counts) = &mut line.end else {
            return;
        };
        let is_shared =
            matches!(self, Self::Kernel | Self::Kvm | Self::Telemetry) || self.kernel().is_some();
        let failures = counts.failures.len();
        if is_shared && (1..=SECOND_RUNS).contains(&failures) && counts.failed == failures as u64 {
            eprintln!("\n== {}, what failed, by itself ==", self.name());
            let begin = Instant::now();
            let mut only = vec!["--test-threads=1", "--exact"];
            only.extend(counts.failures.iter().map(String::as_str));
            let again = told(run(&only));
            counts.second_run(&again);
            line.took += begin.elapsed();
        }
    }

    /// Runs it, or `only` some of it as arguments of the test programs say.
    fn run(self, workspace: &Workspace, only: &[&str]) -> Result<Counts> {
        match self {
            Self::Lint => lint::run(workspace),
            Self::Unit => unit(workspace),
            Self::Fuzz => {
                let of_agent = ["--package", "hearth", "--test", "cold_start"];
                let of_runtime = ["--package", "hearth-runtime", "--test", FUZZ_OF_RUNTIME];
                let mut counts = cargo_test(workspace, &of_agent, &[FUZZ])?;
                counts += cargo_test(workspace, &of_runtime, &[])?;
                let of_vmm = ["--package", "hearth-vmm", "--test", FUZZ_OF_VMM];
                counts += cargo_test(workspace, &of_vmm, &[])?;
                Ok(counts)
            }
            Self::Kernel => {
                let mut counts = test_programs(workspace, |name| !TELEMETRY.contains(&name), only)?;
                for name in AS_ROOT {
                    counts +=
                        cargo_test(workspace, &["--package", "hearth", "--test", name], only)?;
                }
                counts += programs_of("hearth-runtime", workspace, only)?;
                Ok(counts)
            }
            Self::Kvm => programs_of("hearth-vmm", workspace, only),
            Self::Telemetry => test_programs(workspace, |name| TELEMETRY.contains(&name), only),
            Self::Vm6_1 | Self::Vm6_12 => bail!("{} runs in a VM", self.name()),
        }
    }
}

/// A tier that could not even begin is a failure of it.
fn told(counts: Result<Counts>) -> Counts {
    counts.unwrap_or_else(|error| {
        eprintln!("{error:#}");
        let first = format!("{error}");
        Counts::check(first.lines().next().unwrap_or_default(), false)
    })
}

/// What loading programs into this kernel needs and this process lacks.
fn lacks_bpf() -> Option<String> {
    const CAP_PERFMON: u32 = 38;
    const CAP_BPF: u32 = 39;
    if !rustix::process::geteuid().is_root() {
        return Some("it takes root".to_owned());
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok())
        .unwrap_or(0);
    for (bit, name) in [(CAP_PERFMON, "CAP_PERFMON"), (CAP_BPF, "CAP_BPF")] {
        if effective >> bit & 1 == 0 {
            return Some(format!("it takes {name}, which this process does not have"));
        }
    }
    let types = "/sys/kernel/btf/vmlinux";
    (!fs::exists(types).unwrap_or(false)).then(|| format!("this kernel has no {types}"))
}

/// Why this process cannot run machines.
fn lacks_kvm() -> Option<String> {
    let device = "/dev/kvm";
    let opened = fs::OpenOptions::new().read(true).write(true).open(device);
    opened.err().map(|error| format!("{device}: {error}"))
}

/// Cargo with what every test finds in its environment.
fn cargo(workspace: &Workspace) -> Result<Command> {
    let tools = workspace.tools().join("bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(tools).chain(std::env::split_paths(&path)))?;
    let mut cargo = program::cargo();
    cargo
        .current_dir(workspace.root())
        .env("PATH", path)
        .env("CARGO_TARGET_DIR", workspace.root().join("target"))
        .env("HEARTH_BIN", workspace.root().join("target/debug/hearth"));
    Ok(cargo)
}

fn cargo_test(workspace: &Workspace, what: &[&str], filter: &[&str]) -> Result<Counts> {
    let mut test = cargo(workspace)?;
    test.args(["test", "--no-fail-fast"])
        .args(what)
        .arg("--")
        .args(filter);
    counted(&mut test)
}

/// Runs a command that says what tests say, on the terminal and into the counts.
fn counted(command: &mut Command) -> Result<Counts> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", program::line(command)))?;
    let mut counts = Counts::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            counts.read(&line);
        }
    }
    let status = child.wait()?;
    if !status.success() && counts.failed == 0 {
        // It did not compile, or a test took its whole program down.
        counts += Counts::check(
            &format!("{} ended with {status}", program::line(command)),
            false,
        );
    }
    Ok(counts)
}

fn unit(workspace: &Workspace) -> Result<Counts> {
    const NOT_HERE: [&str; 3] = ["--workspace", "--exclude", "hearth-tests"];
    let names = executables(workspace, "hearth")?;
    let mut what = NOT_HERE.to_vec();
    what.extend(["--lib", "--bins"]);
    for name in names
        .keys()
        .filter(|name| !AS_ROOT.contains(&name.as_str()))
    {
        what.extend(["--test", name]);
    }
    let mut counts = cargo_test(workspace, &what, &["--skip", FUZZ])?;
    counts += cargo_test(workspace, &[&NOT_HERE[..], &["--doc"]].concat(), &[])?;
    Ok(counts)
}

fn test_programs(
    workspace: &Workspace,
    is_wanted: fn(&str) -> bool,
    only: &[&str],
) -> Result<Counts> {
    let names: Vec<_> = executables(workspace, "hearth-tests")?
        .into_keys()
        .filter(|name| is_wanted(name))
        .collect();
    if names.is_empty() {
        bail!("hearth-tests has no test program for this tier");
    }
    // With the tests of what they share.
    let mut what = vec!["--package", "hearth-tests", "--lib"];
    for name in &names {
        what.extend(["--test", name]);
    }
    cargo_test(workspace, &what, only)
}

/// A package's tests with real programs.
fn programs_of(package: &str, workspace: &Workspace, only: &[&str]) -> Result<Counts> {
    let names = executables(workspace, package)?;
    let mut what = vec!["--package", package];
    let elsewhere = [FUZZ_OF_RUNTIME, FUZZ_OF_VMM, LINUX_OF_VMM];
    for name in names
        .keys()
        .filter(|name| !elsewhere.contains(&name.as_str()))
    {
        what.extend(["--test", name]);
    }
    cargo_test(workspace, &what, only)
}

/// The part of cargo's messages that tells what it built.
#[derive(Deserialize)]
struct Message {
    reason: String,
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// The test programs of a package, by name.
fn executables(workspace: &Workspace, package: &str) -> Result<BTreeMap<String, PathBuf>> {
    let mut build = cargo(workspace)?;
    build.args(["test", "--no-run", "--package", package]);
    build
        .args(["--message-format", "json-render-diagnostics"])
        .stderr(Stdio::inherit());
    let said = program::output(&mut build)?;
    let mut found = BTreeMap::new();
    for line in said.lines() {
        let message: Message = serde_json::from_str(line).context("cargo's messages")?;
        if let (Some(target), Some(executable)) = (message.target, message.executable)
            && message.reason == "compiler-artifact"
            && target.kind.iter().any(|kind| kind == "test")
        {
            found.insert(target.name, executable);
        }
    }
    Ok(found)
}
