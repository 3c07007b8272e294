//! The VM tiers: test programs under other kernels, emulated, all kernels at the same time.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::agent::{self, Profile};
use crate::kernels::Kernel;
use crate::libtest::Counts;
use crate::workspace::Workspace;
use crate::{guest_image, layers, program, sandboxes, vm};

/// Test programs of `hearth-tests` that run in the VM tiers (and in the kernel tier).
const LADDER: &[&str] = &[
    "calibration",
    "cgroup_lock",
    "cgroup_runtime",
    "demo",
    "faults",
    "functions",
    "kernel_ladder",
    "near_limit",
    "oom",
    "retransmit",
    "sandbox",
    "spawner",
];

/// Of these, those that deploy functions, and the kernel that each runs on: both have cgroup v2 and
/// the same calls, and the rest of the ladder waits for them.
const WITH_FUNCTIONS: &[(&str, Kernel)] = &[
    ("demo", Kernel::V6_1),
    ("faults", Kernel::V6_12),
    ("functions", Kernel::V6_12),
    ("sandbox", Kernel::V6_1),
    ("spawner", Kernel::V6_12),
];

/// Those of `hearth-vmm`, and the kernel that each runs on: their machines are in a machine, emulated.
const WITH_MICROVMS: &[(&str, Kernel)] = &[
    ("flat", Kernel::V6_12),
    ("machine", Kernel::V6_1),
    (super::LINUX_OF_VMM, Kernel::V6_1),
];

/// Test programs of the agent that take root and run in the VM tiers too.
const AS_ROOT_LADDER: &[&str] = &["oom_recorder"];

/// How long the emulated tests of one kernel may take: twice what they do on two cores.
const VM_DEADLINE: Duration = Duration::from_mins(20);

/// Where the VM has the tests' own programs.
const PROGRAMS: &str = "/usr/lib/hearth-programs";
/// Where it has the layers of functions.
const FUNCTIONS: &str = "/functions";
/// Where it has what its microVMs boot.
const GUEST: &str = "/guest";

/// What is put into VMs, built once for all kernels.
pub(super) struct Guest {
    /// Test programs by name, in the order in which they run.
    tests: Vec<(&'static str, PathBuf)>,
    programs: PathBuf,
    functions: PathBuf,
}

impl Guest {
    pub(super) fn build(workspace: &Workspace) -> Result<Self> {
        let mut built = super::executables(workspace, "hearth-tests")?;
        built.extend(super::executables(workspace, "hearth")?);
        built.extend(super::executables(workspace, "hearth-vmm")?);
        let microvms = WITH_MICROVMS.iter().map(|(name, _)| name);
        let tests = LADDER
            .iter()
            .chain(AS_ROOT_LADDER)
            .chain(microvms)
            .map(|&name| {
                let executable = built.remove(name);
                let executable =
                    executable.with_context(|| format!("there is no test program {name}"));
                Ok((name, executable?))
            });
        let tests = tests.collect::<Result<_>>()?;
        let programs = workspace.vm().join("programs");
        program::run(
            super::cargo(workspace)?
                .args(["run", "--quiet", "--package", "hearth-tests"])
                .args(["--bin", "hearth-programs", "--"])
                .arg(&programs),
        )?;
        Ok(Self {
            tests,
            programs,
            functions: layers::pack(workspace)?,
        })
    }

    /// Runs them under a kernel, or `only` some as their arguments say.
    pub(super) fn run(&self, workspace: &Workspace, kernel: Kernel, only: &[&str]) -> Counts {
        let mut counts = Counts::default();
        if only.is_empty() {
            counts += brings_back(workspace, kernel);
        }
        let runs_here = |name: &str| {
            let mut some = WITH_FUNCTIONS.iter().chain(WITH_MICROVMS);
            let of = some.find(|(with, _)| *with == name);
            of.is_none_or(|(_, on)| *on == kernel)
        };
        for (name, executable) in self.tests.iter().filter(|(name, _)| runs_here(name)) {
            eprintln!("kernel {kernel}: {name}");
            counts += match self.job(workspace, kernel, name, executable, only) {
                Ok(job) => counted(workspace, &job),
                Err(error) => {
                    eprintln!("{error:#}");
                    Counts::check(&format!("{name}: it can be put into a VM"), false)
                }
            };
        }
        counts
    }

    fn job(
        &self,
        workspace: &Workspace,
        kernel: Kernel,
        name: &str,
        executable: &Path,
        only: &[&str],
    ) -> Result<vm::Job> {
        let guest = format!("/usr/bin/{name}");
        // Emulated processors are slow: tests beside each other would wait for each other.
        let mut command = vec![guest.clone(), "--test-threads=1".to_owned()];
        let more = only.iter().filter(|&&only| only != "--test-threads=1");
        command.extend(more.map(|&only| only.to_owned()));
        let agent = agent::path(workspace, Profile::Dev);
        let mut files = vec![
            (agent.clone(), vm::AGENT.into()),
            (executable.to_path_buf(), guest.into()),
            (self.programs.clone(), PROGRAMS.into()),
        ];
        for name in [sandboxes::SPAWNER, sandboxes::INIT, sandboxes::FLAT_GUEST] {
            let beside = Path::new(vm::AGENT).with_file_name(name);
            files.push((agent.with_file_name(name), beside));
        }
        if WITH_FUNCTIONS.iter().any(|(with, _)| *with == name) {
            let packed = format!("{FUNCTIONS}.tar");
            let unpack = format!("mkdir {FUNCTIONS} && tar -xf {packed} -C {FUNCTIONS}");
            let run = format!("{unpack} && exec {}", command.join(" "));
            command = ["/bin/busybox", "sh", "-c", &run].map(str::to_owned).into();
            files.push((self.functions.clone(), packed.into()));
        }
        let runs_microvms = WITH_MICROVMS.iter().any(|(with, _)| *with == name);
        if name == super::LINUX_OF_VMM {
            files.push((guest_image::build(workspace, kernel)?, GUEST.into()));
        }
        let variables = [
            ("HEARTH_PROGRAMS", PROGRAMS),
            ("HEARTH_FUNCTIONS", FUNCTIONS),
            ("HEARTH_GUEST", GUEST),
            ("HEARTH_TARGET", "/tmp"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Ok(vm::Job {
            kernel,
            command,
            environment: variables.into(),
            files,
            runs_microvms,
            deadline: VM_DEADLINE,
        })
    }
}

/// Whether output, files and exit status come back from the VM: all that its tests say comes so.
fn brings_back(workspace: &Workspace, kernel: Kernel) -> Counts {
    let script = "echo told; echo complained >&2; echo kept > /out/kept; exit 7";
    let job = vm::Job {
        kernel,
        command: ["/bin/busybox", "sh", "-c", script]
            .map(str::to_owned)
            .into(),
        environment: Vec::new(),
        files: Vec::new(),
        runs_microvms: false,
        deadline: VM_DEADLINE,
    };
    let mut said = (Vec::new(), Vec::new());
    let ended = vm::run(workspace, &job, &mut |bytes, stream| {
        match stream {
            vm::Stream::Out => said.0.extend_from_slice(bytes),
            vm::Stream::Err => said.1.extend_from_slice(bytes),
        }
        Ok(())
    });
    let kept = fs::read_to_string(vm::out(workspace, kernel).join("kept")).unwrap_or_default();
    let is_whole = matches!(ended, Ok(7))
        && said == (b"told\n".to_vec(), b"complained\n".to_vec())
        && kept == "kept\n";
    if !is_whole {
        eprintln!("the VM ended with {ended:?}, said {said:?} and left {kept:?}");
    }
    let name = "the VM brings back output, files and exit status";
    Counts::check(name, is_whole)
}

/// What it says is printed when it has ended: another VM speaks at the same time.
fn counted(workspace: &Workspace, job: &vm::Job) -> Counts {
    let mut said = Vec::new();
    let mut all = Vec::new();
    let ended = vm::run(workspace, job, &mut |bytes, stream| {
        if stream == vm::Stream::Out {
            said.extend_from_slice(bytes);
        }
        all.extend_from_slice(bytes);
        Ok(())
    });
    print!("{}", String::from_utf8_lossy(&all));
    let mut counts = Counts::default();
    String::from_utf8_lossy(&said)
        .lines()
        .for_each(|line| counts.read(line));
    let why = match ended {
        Ok(0) => return counts,
        Ok(code) => format!("{} ended with {code}", job.command.join(" ")),
        Err(error) => {
            eprintln!("{error:#}");
            format!("the VM with kernel {} failed", job.kernel)
        }
    };
    if counts.failed == 0 {
        counts += Counts::check(&why, false);
    }
    counts
}
