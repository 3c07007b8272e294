//! A bench inside of the VM: `xtask` itself, with the agent and the programs made here.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hearth_tests::programs;

use super::{Figure, Printer};
use crate::kernels::Kernel;
use crate::setup::{self, Purpose};
use crate::vm::{self, Job, Stream};
use crate::workspace::Workspace;

/// Tells a bench that it is inside, on a node that is nobody's.
const INSIDE: &str = "HEARTH_VM";

/// Where they are in the VM.
const GUEST_PROGRAMS: &str = "/usr/lib/hearth-programs";

/// Where this program is in the VM.
const XTASK: &str = "/usr/bin/xtask";

/// How long a bench may take there.
const DEADLINE: Duration = Duration::from_mins(10);

/// Whether this runs inside.
pub(crate) fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs `cargo xtask bench` with these arguments in a VM, and prints what it measures as what it
/// is: of that kernel, and from an emulator. `files` are taken along beside the programs, and the
/// agent where it takes part.
pub(crate) fn measure(
    workspace: &Workspace,
    agent: Option<&Path>,
    kernel: Kernel,
    arguments: &[&str],
    files: Vec<(PathBuf, PathBuf)>,
    printer: &mut Printer,
) -> Result<()> {
    setup::setup(workspace, Purpose::Vm, false)?;
    let made = workspace.vm().join("programs");
    programs::prebuild(&made).context("build the programs of the VM")?;
    let mut taken = vec![
        (std::env::current_exe()?, XTASK.into()),
        (made, GUEST_PROGRAMS.into()),
    ];
    taken.extend(files);
    let mut command = vec![XTASK, "bench", "--json"];
    if let Some(agent) = agent {
        taken.push((agent.to_owned(), vm::AGENT.into()));
        command.extend(["--agent", vm::AGENT]);
    }
    let command = command.iter().chain(arguments);
    let job = Job {
        kernel,
        command: command.map(|&word| word.to_owned()).collect(),
        environment: vec![
            (INSIDE.to_owned(), "1".to_owned()),
            ("HEARTH_PROGRAMS".to_owned(), GUEST_PROGRAMS.to_owned()),
            ("CARGO_TARGET_DIR".to_owned(), "/tmp".to_owned()),
        ],
        files: taken,
        runs_microvms: false,
        deadline: DEADLINE,
    };
    let mut lines = Lines::default();
    let code = vm::run(workspace, &job, &mut |bytes, stream| {
        if stream == Stream::Err {
            return vm::to_terminal(bytes, stream);
        }
        for line in lines.add(bytes) {
            tell(&line, kernel, printer).map_err(io::Error::other)?;
        }
        Ok(())
    })?;
    ensure!(code == 0, "the bench in the VM ended with {code}");
    Ok(())
}

fn tell(line: &str, kernel: Kernel, printer: &mut Printer) -> Result<()> {
    let figure: Figure =
        serde_json::from_str(line).with_context(|| format!("the VM says no figure: {line}"))?;
    printer.print(&Figure {
        name: format!("{kernel}: {}", figure.name),
        indicative: true,
        ..figure
    })
}

/// Lines out of pieces of them.
#[derive(Debug, Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// The lines that these bytes complete.
    fn add(&mut self, bytes: &[u8]) -> Vec<String> {
        self.rest.extend_from_slice(bytes);
        let mut lines: Vec<_> = self.rest.split(|&byte| byte == b'\n').collect();
        let rest = lines.pop().unwrap_or_default().to_owned();
        let lines = lines
            .iter()
            .map(|line| String::from_utf8_lossy(line).into_owned())
            .collect();
        self.rest = rest;
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::Lines;

    #[test]
    fn lines_are_whole_however_they_come() {
        let mut lines = Lines::default();
        assert!(lines.add(b"{\"fig").is_empty());
        assert_eq!(lines.add(b"ure\"}\n{}\n{"), ["{\"figure\"}", "{}"]);
        assert_eq!(lines.add(b"}\n"), ["{}"]);
    }
}
