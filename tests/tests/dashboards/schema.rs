//! A dashboard against Grafana's own types (npm `@grafana/schema`), by the TypeScript compiler.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use hearth_tests::{machine, requirement};

use crate::dashboard::Dashboard;
use crate::root;

/// Fails with the compiler's words on a member that is unknown, missing or of another type.
pub(crate) fn check(dashboard: &Dashboard) -> Result<()> {
    let folder = install()?;
    let source = format!(
        "import type {{ OurDashboard }} from './dashboard';\n\
         export const dashboard: OurDashboard =\n{:#};\n",
        dashboard.json
    );
    fs::write(folder.join("checked.ts"), source)?;
    let options = [
        "--noEmit",
        "--strict",
        "--skipLibCheck",
        "--target",
        "es2022",
        "--module",
        "preserve",
        "--moduleResolution",
        "bundler",
        "--pretty",
        "false",
        "checked.ts",
    ];
    run(
        Command::new(requirement::tool("node", "nodejs")?)
            .arg("node_modules/typescript/bin/tsc")
            .args(options),
        &folder,
    )
}

/// Installs the types and the compiler once, as the lock file says, under `target/`.
fn install() -> Result<PathBuf> {
    let (from, to) = (
        root().join("tests/grafana"),
        machine::target().join("tools/grafana"),
    );
    fs::create_dir_all(&to)?;
    for name in ["package.json", "package-lock.json", "dashboard.ts"] {
        fs::copy(from.join(name), to.join(name))?;
    }
    let (wanted, installed) = (to.join("package-lock.json"), to.join("installed.json"));
    if fs::read(&installed).ok() != Some(fs::read(&wanted)?) {
        let options = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
        run(
            Command::new(requirement::tool("npm", "npm")?).args(options),
            &to,
        )?;
        fs::copy(wanted, installed)?;
    }
    Ok(to)
}

fn run(command: &mut Command, folder: &Path) -> Result<()> {
    let output = command.current_dir(folder).output();
    let output = output.with_context(|| format!("run {command:?}"))?;
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {out}{err}");
    Ok(())
}
