//! The container that tests use runs under the real `runc`.

use anyhow::{Context, Result, ensure};
use hearth_tests::bundle::Bundle;
use hearth_tests::machine;

#[test]
fn a_container_runs_and_leaves_nothing() -> Result<()> {
    let _machine = machine::shared()?;
    let bundle = Bundle::new(&["/bin/sh", "-c", "exec /oracle listen /report/report.json"])?;
    let pid = bundle.run_whole()?;
    let report = bundle.report.report()?;
    ensure!(report.pid == 1, "the program is not in a PID namespace");
    ensure!(pid > 1, "the pid file says {pid}");
    let path = bundle.cgroup_path();
    let name = path.split('/').nth(1).context("the cgroup has no name")?;
    drop(bundle);
    let left = std::fs::read_dir("/sys/fs/cgroup")?
        .flatten()
        .filter(|hierarchy| hierarchy.path().join(name).exists())
        .count();
    ensure!(left == 0, "{name} is left in {left} hierarchies");
    Ok(())
}
