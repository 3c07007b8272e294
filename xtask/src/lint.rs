//! What is checked without running anything: format, lints, licences.

use std::process::Command;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use spdx::{Expression, Licensee, ParseMode};

use crate::libtest::Counts;
use crate::program;
use crate::workspace::Workspace;

/// Runs every check and says which failed.
pub(crate) fn run(workspace: &Workspace) -> Result<Counts> {
    let mut counts = Counts::default();
    for (name, mut command) in checks(workspace) {
        eprintln!("  {name}: {}", program::line(&command));
        let status = command
            .status()
            .with_context(|| format!("cannot start {name}"))?;
        counts += Counts::check(name, status.success());
    }
    let refused = refused_licences(workspace)?;
    for package in &refused {
        eprintln!("  {package}: not in licenses.allow of deny.toml");
    }
    counts += Counts::check("licences", refused.is_empty());
    Ok(counts)
}

fn checks(workspace: &Workspace) -> [(&'static str, Command); 6] {
    let cargo = |folder, arguments: &[&str]| {
        let mut cargo = program::cargo();
        cargo.current_dir(folder).args(arguments);
        cargo
    };
    let (root, ebpf) = (workspace.root().to_path_buf(), workspace.ebpf());
    let mut kernel_side = cargo(ebpf.clone(), &["clippy", "--quiet", "--target-dir"]);
    // Clippy comes with the toolchain of the host, so it reads the programs as if for the host;
    // the intrinsics in them take the word of a compiler that is told to accept them.
    kernel_side
        .arg(workspace.bpf().join("clippy"))
        .args(["--", "-Dwarnings"]);
    kernel_side.env("RUSTC_BOOTSTRAP", "1");
    // It has no standard library, and so nothing that would unwind.
    let mut flat_guest = cargo(root.clone(), &["clippy", "--quiet"]);
    flat_guest
        .args(["--package", "hearth-flat-guest", "--features", "guest"])
        .args(["--target", "x86_64-unknown-linux-gnu", "--target-dir"])
        .arg(root.join("target/flat"))
        .args(["--bin", "hearth-flat-guest", "--", "-Dwarnings"])
        .env("RUSTFLAGS", "-Cpanic=abort");
    let mut fuzz_targets = cargo(root.join("fuzz"), &["check", "--quiet", "--target-dir"]);
    fuzz_targets.arg(root.join("target"));
    [
        ("format", cargo(root.clone(), &["fmt", "--all", "--check"])),
        (
            "format of the kernel side",
            cargo(ebpf, &["fmt", "--check"]),
        ),
        (
            "clippy",
            cargo(
                root,
                &[
                    "clippy",
                    "--quiet",
                    "--workspace",
                    "--all-targets",
                    "--",
                    "-Dwarnings",
                ],
            ),
        ),
        ("clippy of the kernel side", kernel_side),
        ("clippy of the flat guest", flat_guest),
        // Their bodies run in the fuzz tier; that the targets compile shows here.
        ("fuzz targets", fuzz_targets),
    ]
}

#[derive(Deserialize)]
struct Deny {
    licenses: Licenses,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
}

/// Dependencies of either side whose licence `deny.toml` does not allow.
///
/// cargo-deny would do this and more, but compiling it takes longer than all tiers but one.
fn refused_licences(workspace: &Workspace) -> Result<Vec<String>> {
    let path = workspace.root().join("deny.toml");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let deny: Deny = toml::from_str(&text).context("cannot read deny.toml")?;
    let allowed = deny
        .licenses
        .allow
        .iter()
        .map(|licence| {
            Licensee::parse(licence).with_context(|| format!("deny.toml: no licence {licence}"))
        })
        .collect::<Result<Vec<_>>>()?;
    let mut refused = Vec::new();
    for folder in [workspace.root().to_path_buf(), workspace.ebpf()] {
        let told = program::output(
            program::cargo()
                .current_dir(folder)
                .args(["metadata", "--format-version", "1", "--locked"])
                .args(["--filter-platform", "x86_64-unknown-linux-gnu"]),
        )?;
        let metadata: Metadata = serde_json::from_str(&told).context("cargo metadata")?;
        for package in metadata.packages {
            if !is_allowed(package.license.as_deref(), &allowed) {
                let licence = package.license.unwrap_or_else(|| "no licence".to_owned());
                refused.push(format!("{} {} ({licence})", package.name, package.version));
            }
        }
    }
    Ok(refused)
}

fn is_allowed(licence: Option<&str>, allowed: &[Licensee]) -> bool {
    licence
        .and_then(|licence| Expression::parse_mode(licence, ParseMode::LAX).ok())
        .is_some_and(|expression| {
            expression.evaluate(|required| allowed.iter().any(|one| one.satisfies(required)))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_licence_is_allowed_by_what_it_lets_one_choose() -> Result<()> {
        let allowed = [Licensee::parse("MIT")?, Licensee::parse("ISC")?];
        for (licence, expected) in [
            (Some("MIT"), true),
            (Some("GPL-3.0-only OR MIT"), true),
            (Some("MIT/Apache-2.0"), true),
            (Some("MIT AND ISC"), true),
            (Some("MIT AND GPL-3.0-only"), false),
            (Some("LGPL-2.1-or-later"), false),
            (Some("a licence of our own"), false),
            (None, false),
        ] {
            assert_eq!(is_allowed(licence, &allowed), expected, "{licence:?}");
        }
        Ok(())
    }
}
