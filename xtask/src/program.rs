//! Running other programs, and saying which one failed and how.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// A command free of what the `cargo run` around this process exported.
///
/// Cargo and rustup tell their children which toolchain and which library path
/// they use; the other toolchains that `xtask` starts must not inherit either.
pub(crate) fn clean(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    for variable in [
        "CARGO",
        "CARGO_ENCODED_RUSTFLAGS",
        "LD_LIBRARY_PATH",
        "RUSTC",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTDOC",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
    ] {
        command.env_remove(variable);
    }
    for (variable, _) in std::env::vars_os() {
        if variable.to_str().is_some_and(is_of_a_package) {
            command.env_remove(variable);
        }
    }
    command
}

/// What cargo tells a program about its own package. Some build scripts watch these: left in
/// place, builds from here and from a shell would each compile them, and all above, again.
fn is_of_a_package(variable: &str) -> bool {
    variable == "OUT_DIR"
        || ["BIN_", "CRATE_", "MANIFEST_", "PKG_", "PRIMARY_"]
            .iter()
            .any(|kind| {
                variable
                    .strip_prefix("CARGO_")
                    .is_some_and(|rest| rest.starts_with(kind))
            })
}

/// Cargo of the toolchain that runs this `xtask`.
pub(crate) fn cargo() -> Command {
    let mut command = clean(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // The proxy would otherwise choose the directory's default again, which may differ.
    if let Some(toolchain) = std::env::var_os("RUSTUP_TOOLCHAIN") {
        command.env("RUSTUP_TOOLCHAIN", toolchain);
    }
    command
}

/// Runs the command to its end with its output on the terminal.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", line(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", line(command));
    }
    Ok(())
}

/// Runs the command to its end and returns what it wrote to its standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", line(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{} ended with {}\n{}",
            line(command),
            output.status,
            said.trim_end()
        );
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("{} wrote something other than UTF-8", line(command)))
}

/// The command as one would type it, for messages.
pub(crate) fn line(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy()];
    words.extend(command.get_args().map(OsStr::to_string_lossy));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::is_of_a_package;

    #[test]
    fn only_what_cargo_tells_of_a_package_is_kept_from_others() {
        for variable in [
            "CARGO_MANIFEST_DIR",
            "CARGO_PKG_NAME",
            "CARGO_BIN_NAME",
            "OUT_DIR",
        ] {
            assert!(is_of_a_package(variable), "{variable}");
        }
        for variable in [
            "CARGO_HOME",
            "CARGO_NET_OFFLINE",
            "CARGO_INCREMENTAL",
            "PATH",
        ] {
            assert!(!is_of_a_package(variable), "{variable}");
        }
    }
}
