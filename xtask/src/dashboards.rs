//! `cargo xtask dashboards`: writes the Grafana dashboards from their definitions here, so that
//! what all panels share (selectors, layout, units) is said once.

mod cold_start;
mod frame;
mod locks;
mod network;
mod oom;
mod panel;
mod pools;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::workspace::Workspace;

/// Writes `dashboards/*.json`; with `check` it writes nothing, and fails where a file is not
/// what its definition says.
pub(crate) fn run(workspace: &Workspace, check: bool) -> Result<()> {
    for (path, dashboard) in definitions(workspace) {
        if check {
            compare(&path, &dashboard)?;
        } else {
            let text = serde_json::to_string_pretty(&dashboard)? + "\n";
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        }
    }
    Ok(())
}

fn definitions(workspace: &Workspace) -> Vec<(PathBuf, Value)> {
    let folder = workspace.root().join("dashboards");
    vec![
        (folder.join("cold-start.json"), cold_start::dashboard()),
        (folder.join("locks.json"), locks::dashboard()),
        (folder.join("network.json"), network::dashboard()),
        (folder.join("oom.json"), oom::dashboard()),
        (folder.join("pools.json"), pools::dashboard()),
    ]
}

/// Compares values, not bytes: the order of keys in an object says nothing.
fn compare(path: &Path, dashboard: &Value) -> Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let written: Value =
        serde_json::from_str(&text).with_context(|| format!("parsing {}", path.display()))?;
    if written != *dashboard {
        bail!(
            "{} is not what its definition says: run `cargo xtask dashboards`",
            path.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::workspace::Workspace;

    /// Fails when a definition was changed without writing the file, or the file by hand.
    #[test]
    fn committed_dashboards_are_what_their_definitions_say() -> anyhow::Result<()> {
        super::run(&Workspace::locate(), true)
    }
}
