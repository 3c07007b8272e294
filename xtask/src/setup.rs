//! Brings a machine to all that building, running and testing need.
//!
//! What is needed is data: each need names the evidence that it is met, what
//! meets it, and what for. Nothing is asked of the package manager while all
//! evidence is there, so a second run takes milliseconds.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::kernels::Kernel;
use crate::workspace::Workspace;
use crate::{debian, layers, program, toolchain, vm};

/// What one sets up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Purpose {
    /// Compile the kernel object and the agent.
    Build,
    /// Start the agent: what building needs.
    Run,
    /// Every tier of the tests, and what the benches compare with.
    Test,
    /// Boot the kernels of the VM tiers.
    Vm,
}

/// What shows that a need is met.
#[derive(Debug, Clone, Copy)]
enum Evidence {
    /// A program on the path.
    Program(&'static str),
    /// A file at its place, with `*` for one path component.
    File(&'static str),
}

/// One Debian package that something here needs.
#[derive(Debug)]
struct Need {
    package: &'static str,
    evidence: Evidence,
    purposes: &'static [Purpose],
    why: &'static str,
}

const BUILD: &[Purpose] = &[Purpose::Build, Purpose::Run, Purpose::Test, Purpose::Vm];
const TEST: &[Purpose] = &[Purpose::Test];
const TEST_AND_VM: &[Purpose] = &[Purpose::Test, Purpose::Vm];

const NEEDS: &[Need] = &[
    need(
        "gcc",
        Evidence::Program("cc"),
        BUILD,
        "links Rust, compiles the C test programs",
    ),
    need(
        "g++",
        Evidence::Program("c++"),
        BUILD,
        "compiles libFuzzer for the fuzz targets",
    ),
    need(
        "libc6-dev",
        Evidence::File("/usr/include/stdio.h"),
        BUILD,
        "links Rust",
    ),
    need(
        "llvm-22-dev",
        Evidence::File("/usr/lib/llvm-22/include/llvm-c/Core.h"),
        BUILD,
        "bpf-linker is built on it",
    ),
    need(
        QEMU,
        Evidence::Program(vm::QEMU),
        TEST_AND_VM,
        "boots the VM",
    ),
    need(
        "busybox-static",
        Evidence::File("/bin/busybox"),
        TEST_AND_VM,
        "shell of the VM",
    ),
    need(
        "xz-utils",
        Evidence::Program("xz"),
        TEST_AND_VM,
        "unpacks kernel packages",
    ),
    need(
        "debian-archive-keyring",
        Evidence::File(debian::KEYRING),
        TEST_AND_VM,
        "checks kernels",
    ),
    need(
        "runc",
        Evidence::Program("runc"),
        TEST,
        "starts real containers",
    ),
    need(
        "iproute2",
        Evidence::Program("ip"),
        TEST,
        "connects network namespaces",
    ),
    need(
        "nftables",
        Evidence::Program("nft"),
        TEST,
        "loses packets between them",
    ),
    need(
        "golang-go",
        Evidence::Program("go"),
        TEST,
        "compiles the Go test programs",
    ),
    need(
        "nodejs",
        Evidence::Program("node"),
        TEST,
        "runs the Node test programs",
    ),
    need(
        "npm",
        Evidence::Program("npm"),
        TEST,
        "fetches Grafana's types, which dashboards are checked against",
    ),
    need(
        "default-jdk-headless",
        Evidence::Program("javac"),
        TEST,
        "runs the Java test programs",
    ),
    need(
        "python3",
        Evidence::Program("python3"),
        TEST_AND_VM,
        "runs the Python test programs, fetches a runtime for functions",
    ),
    need(
        "python3-venv",
        Evidence::File("/usr/lib/*/ensurepip/__init__.py"),
        TEST_AND_VM,
        "holds the collector of the telemetry tier, fetches a runtime for functions",
    ),
    need(
        "bpftrace",
        Evidence::Program("bpftrace"),
        TEST,
        "the peer of the benches",
    ),
];

const fn need(
    package: &'static str,
    evidence: Evidence,
    purposes: &'static [Purpose],
    why: &'static str,
) -> Need {
    Need {
        package,
        evidence,
        purposes,
        why,
    }
}

/// The emulator. Installed by itself, because its release has to fit that of `qemu-utils`.
const QEMU: &str = "qemu-system-x86";

/// Debian's compiler for the kernel side, where rustup has no nightly with `rust-src`.
const DEBIAN_RUST: &[&str] = &["rustc-web", "cargo-web", "rust-web-src"];

/// Release of the collector that receives what the agent exports in the telemetry tier.
const ROTEL: &str = "rotel==0.0.1a15";

/// A Debian package that is unpacked beside the system: installing it would start a service.
#[derive(Debug)]
struct Server {
    package: &'static str,
    programs: &'static [&'static str],
    why: &'static str,
}

const SERVERS: &[Server] = &[
    Server {
        package: "prometheus",
        programs: &["prometheus", "promtool"],
        why: "scrapes the agent, checks alerts",
    },
    Server {
        package: "containerd",
        programs: &["containerd", "containerd-shim-runc-v2", "ctr"],
        why: "tells pods, as Kubernetes asks for them",
    },
];

/// One thing that is not there yet.
#[derive(Debug)]
enum Step {
    /// Debian packages, by name, and why.
    Packages(Vec<(&'static str, &'static str)>),
    Qemu,
    BpfLinker,
    /// A server that tests start themselves.
    Server(&'static Server),
    Rotel,
    /// What the functions of the tests run on.
    Layers,
    Kernel(Kernel),
}

/// Does what is missing for the purpose, or with `check` only says what that is.
pub(crate) fn setup(workspace: &Workspace, purpose: Purpose, check: bool) -> Result<()> {
    let steps = missing(workspace, purpose);
    if steps.is_empty() {
        return Ok(());
    }
    if check {
        bail!("set-up is not complete:\n{}", describe(&steps));
    }
    for (done, step) in steps.iter().enumerate() {
        eprintln!("[{}/{}] {}", done + 1, steps.len(), step.title());
        step.take(workspace)?;
    }
    let left = missing(workspace, purpose);
    if !left.is_empty() {
        bail!(
            "set-up did what it could and this is still missing:\n{}",
            describe(&left)
        );
    }
    Ok(())
}

/// The steps that are left for a purpose, in the order in which they have to be taken.
fn missing(workspace: &Workspace, purpose: Purpose) -> Vec<Step> {
    let mut packages: Vec<_> = NEEDS
        .iter()
        .filter(|need| need.purposes.contains(&purpose) && !need.evidence.is_there())
        .map(|need| (need.package, need.why))
        .collect();
    if toolchain::Rust::find().is_none() {
        packages.extend(
            DEBIAN_RUST
                .iter()
                .map(|&name| (name, "builds the kernel side")),
        );
    }
    let all = packages.len();
    packages.retain(|(name, _)| *name != QEMU);
    let has_no_qemu = packages.len() < all;
    let mut steps = Vec::new();
    if !packages.is_empty() {
        steps.push(Step::Packages(packages));
    }
    if has_no_qemu {
        steps.push(Step::Qemu);
    }
    if toolchain::bpf_linker(workspace).is_none() {
        steps.push(Step::BpfLinker);
    }
    let bin = workspace.tools().join("bin");
    if purpose == Purpose::Test {
        let is_whole = |server: &Server| server.programs.iter().all(|name| bin.join(name).exists());
        let absent = SERVERS.iter().filter(|server| !is_whole(server));
        steps.extend(absent.map(Step::Server));
        if !bin.join("rotel").exists() {
            steps.push(Step::Rotel);
        }
    }
    if matches!(purpose, Purpose::Test | Purpose::Vm) && !layers::are_there(workspace) {
        steps.push(Step::Layers);
    }
    if matches!(purpose, Purpose::Test | Purpose::Vm) {
        let absent = Kernel::ALL
            .iter()
            .filter(|kernel| kernel.image(workspace).is_err());
        steps.extend(absent.map(|&kernel| Step::Kernel(kernel)));
    }
    steps
}

fn describe(steps: &[Step]) -> String {
    let lines: Vec<_> = steps
        .iter()
        .map(|step| format!("  - {}", step.title()))
        .collect();
    lines.join("\n")
}

impl Evidence {
    fn is_there(self) -> bool {
        match self {
            Self::Program(name) => on_path(name).is_some(),
            Self::File(pattern) => match pattern.split_once("/*/") {
                None => Path::new(pattern).exists(),
                Some((folder, rest)) => std::fs::read_dir(folder).is_ok_and(|mut all| {
                    all.any(|one| one.is_ok_and(|one| one.path().join(rest).exists()))
                }),
            },
        }
    }
}

/// The first program of that name on the path.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    // Administrators' folders are not on everybody's path, yet hold what is needed.
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

impl Step {
    fn title(&self) -> String {
        match self {
            Self::Packages(packages) => {
                // A package can be needed for more than one reason; it is installed once.
                let mut names = BTreeSet::new();
                let lines: Vec<_> = packages
                    .iter()
                    .filter(|(name, _)| names.insert(*name))
                    .map(|(name, why)| format!("{name} ({why})"))
                    .collect();
                format!("Debian packages: {}", lines.join(", "))
            }
            Self::Qemu => format!("Debian package {QEMU} (boots the VM)"),
            Self::BpfLinker => {
                format!(
                    "bpf-linker {}, compiled into target/tools (a minute)",
                    toolchain::BPF_LINKER
                )
            }
            Self::Server(server) => format!(
                "{} ({}), unpacked into target/tools",
                server.package, server.why
            ),
            Self::Rotel => format!("the OpenTelemetry collector {ROTEL}, into target/tools/venv"),
            Self::Layers => format!(
                "Debian's Python with {}, into target/functions",
                layers::PYTHON_RUNTIME
            ),
            Self::Kernel(kernel) => {
                format!("Debian's {kernel} kernel, unpacked into target/vm/kernel-{kernel}")
            }
        }
    }

    fn take(&self, workspace: &Workspace) -> Result<()> {
        match self {
            Self::Packages(packages) => {
                install(&packages.iter().map(|(name, _)| *name).collect::<Vec<_>>())
            }
            Self::Qemu => qemu(workspace),
            Self::BpfLinker => bpf_linker(workspace),
            Self::Server(server) => unpack(workspace, server),
            Self::Rotel => rotel(workspace),
            Self::Layers => layers::fetch(workspace, &pip(workspace)?),
            Self::Kernel(kernel) => kernel.fetch(workspace),
        }
    }
}

/// Installs from the machine's own sources.
fn install(packages: &[&str]) -> Result<()> {
    may_install(packages)?;
    program::run(apt_get()?.arg("update"))?;
    install_from(apt_get()?, packages)
}

/// Installs the emulator in the release of the `qemu-utils` that is there, if there is one:
/// Debian's newer `qemu-utils` does not go with an older emulator, and the other way round.
fn qemu(workspace: &Workspace) -> Result<()> {
    may_install(&[QEMU])?;
    let backports = debian::installed("qemu-utils").is_some_and(|version| version.contains("~bpo"));
    if !backports {
        // Named with it, one that is older than the sources' is brought up to them.
        return install(&[QEMU, "qemu-utils"]);
    }
    let suite = format!("{}-backports", debian::HOST_SUITE);
    let list = debian::source_list(workspace, &suite)?;
    let with_backports = || -> Result<_> {
        let mut apt = apt_get()?;
        apt.arg("-o")
            .arg(format!("Dir::Etc::sourcelist={}", list.display()));
        Ok(apt)
    };
    program::run(with_backports()?.arg("update"))?;
    let mut apt = with_backports()?;
    apt.arg(format!("--target-release={suite}"));
    install_from(apt, &[QEMU])
}

fn may_install(packages: &[&str]) -> Result<()> {
    let names = packages.join(" ");
    if on_path("apt-get").is_none() {
        bail!(
            "there is no apt-get here; install what Debian 12 calls\n    {names}\n\
             (for the Rust packages a rustup nightly with rust-src does as well) and run this again"
        );
    }
    if !rustix::process::geteuid().is_root() {
        bail!(
            "installing packages takes root; run this and then this command again:\n    sudo apt-get install --no-install-recommends {names}"
        );
    }
    Ok(())
}

fn install_from(mut apt: std::process::Command, packages: &[&str]) -> Result<()> {
    // Setting up must never take a program away from the machine.
    program::run(
        apt.args(["install", "--yes", "--no-install-recommends", "--no-remove"])
            .args(packages),
    )
    .with_context(|| format!("cannot install {}", packages.join(" ")))
}

fn apt_get() -> Result<std::process::Command> {
    let path = on_path("apt-get").context("there is no apt-get here")?;
    let mut apt = program::clean(path);
    apt.env("DEBIAN_FRONTEND", "noninteractive").args([
        "--quiet=2",
        "-o",
        "Dpkg::Use-Pty=0",
        "-o",
        "DPkg::Lock::Timeout=300",
    ]);
    Ok(apt)
}

fn bpf_linker(workspace: &Workspace) -> Result<()> {
    program::run(
        program::cargo()
            .current_dir(workspace.root())
            .args([
                "install",
                "--quiet",
                "--locked",
                "bpf-linker",
                "--version",
                toolchain::BPF_LINKER,
            ])
            .args(["--no-default-features", "--features", "llvm-22", "--root"])
            .arg(workspace.tools())
            .arg("--target-dir")
            .arg(workspace.tools().join("build"))
            .env("LLVM_PREFIX", "/usr/lib/llvm-22"),
    )?;
    // Half a gigabyte that nothing reads again.
    let _ = std::fs::remove_dir_all(workspace.tools().join("build"));
    Ok(())
}

fn unpack(workspace: &Workspace, server: &Server) -> Result<()> {
    let folder = workspace.tools().join(server.package);
    debian::download(workspace, debian::HOST_SUITE, server.package, &folder)?;
    for name in server.programs {
        link(workspace, &folder.join("usr/bin").join(name), name)?;
    }
    Ok(())
}

/// The installer of Python packages, of an environment of our own.
fn pip(workspace: &Workspace) -> Result<PathBuf> {
    let venv = workspace.tools().join("venv");
    let pip = venv.join("bin/pip");
    if !pip.exists() {
        let mut python = program::clean("/usr/bin/python3");
        program::run(python.args(["-m", "venv"]).arg(&venv))?;
    }
    Ok(pip)
}

fn rotel(workspace: &Workspace) -> Result<()> {
    let venv = workspace.tools().join("venv");
    let pip = pip(workspace)?;
    program::run(program::clean(pip).args(["install", "--quiet", "--pre", ROTEL]))?;
    // The collector is a program inside a Python package that only wraps it.
    let packages = std::fs::read_dir(venv.join("lib"))?;
    let program = packages
        .filter_map(|python| Some(python.ok()?.path().join("site-packages/rotel/rotel-agent")))
        .find(|program| program.exists())
        .with_context(|| format!("{ROTEL} brought no collector into {}", venv.display()))?;
    link(workspace, &program, "rotel")
}

/// Makes a tool reachable in `target/tools/bin`, which is on the path of every test.
fn link(workspace: &Workspace, file: &Path, name: &str) -> Result<()> {
    let bin = workspace.tools().join("bin");
    std::fs::create_dir_all(&bin).with_context(|| format!("cannot make {}", bin.display()))?;
    let link = bin.join(name);
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(file, &link)
        .with_context(|| format!("cannot link {} to {}", link.display(), file.display()))
}
