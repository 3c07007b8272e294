//! What a test needs from the machine; what is missing fails the test and says how to get it.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

/// The path of a tool, or an error that names the Debian package that brings it.
pub fn tool(name: &str, package: &str) -> Result<PathBuf> {
    // Debian's own first: a version manager's shim in PATH execs several programs before
    // the one that is asked for.
    let usual = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].map(PathBuf::from);
    let path = env::var_os("PATH").unwrap_or_default();
    usual
        .into_iter()
        .chain(env::split_paths(&path))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .with_context(|| format!("`{name}` is missing: apt-get install {package}"))
}

/// Fails unless this process is root with the capabilities to load programs into the kernel.
pub fn root() -> Result<()> {
    const CAP_PERFMON: u32 = 38;
    const CAP_BPF: u32 = 39;
    ensure!(
        rustix::process::geteuid().is_root(),
        "this test must be run as root"
    );
    let status = std::fs::read_to_string("/proc/self/status").context("read own status")?;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .context("/proc/self/status has no CapEff")?;
    let effective = u64::from_str_radix(effective.trim(), 16).context("parse CapEff")?;
    for (bit, name) in [(CAP_PERFMON, "CAP_PERFMON"), (CAP_BPF, "CAP_BPF")] {
        ensure!(effective >> bit & 1 == 1, "this test needs {name}");
    }
    Ok(())
}
