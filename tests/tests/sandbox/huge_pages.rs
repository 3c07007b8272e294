//! Memory of a function, gathered into huge pages from outside.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use hearth_runtime::sandbox::spawner::SpawnerError;
use hearth_runtime::sandbox::start::HugePages;
use hearth_tests::node::{Language, Node};
use serde_json::json;

use crate::scene::Instance;

const MIB: u64 = 1 << 20;
/// Has touched 32 MiB when it is ready, and of as much again one page in sixteen.
const HOLDER: &str = "\
import mmap
held = mmap.mmap(-1, 32 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
held.write(b'x' * (32 << 20))
sparse = mmap.mmap(-1, 32 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
sparse[:: 64 << 10] = b'y' * 512

def handler(event, context):
    return held.find(b'y') == -1 and held[-1] == ord('x')
";

/// Of all processes in the node's slots, by the kernel's own sums: bytes in huge pages, and at all.
fn memory(node: &Node) -> Result<(u64, u64)> {
    let mut sums = (0, 0);
    for (pid, _) in node.remains()?.processes {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let of = |name: &str| -> Result<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let line = line.with_context(|| format!("{name}: {text}"))?;
            Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
        };
        sums.0 += of("AnonHugePages:")?;
        sums.1 += of("Rss:")?;
    }
    Ok(sums)
}

#[test]
fn what_was_touched_is_gathered_and_what_was_not_is_not_charged() -> Result<()> {
    let node = Node::start("huge", 1)?;
    node.parked(1)?;
    let layer = tempfile::tempdir()?;
    let code = layer.path().join("var/task");
    fs::create_dir_all(&code)?;
    fs::write(code.join("holder.py"), HOLDER)?;
    for folder in [layer.path(), &layer.path().join("var"), &code] {
        open_to_all(folder)?;
    }
    let mut start = Language::Python.start()?;
    start.root.layers.push(layer.path().to_owned());
    if let Some(last) = start.program.command.last_mut() {
        "holder.handler".clone_into(last);
    }
    // What the node gives by itself would hide what was asked for.
    start.huge_pages = HugePages::Node;
    let mut instance = Instance::ready(&node, &start)?;
    let (huge_before, before) = memory(&node)?;
    let collapsed = node.spawner()?.collapse(instance.claimed.sandbox)?;
    if !Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
        assert!(collapsed.why.is_some(), "it is told: {collapsed:?}");
        return Ok(());
    }
    let (huge, after) = memory(&node)?;
    let told = format!("{collapsed:?}, {huge_before} to {huge} of {before} to {after}");
    assert!(huge >= huge_before.max(24 * MIB), "{told}");
    assert!(collapsed.bytes >= 24 * MIB, "{told}");
    // Where every mapping has huge pages anyway, nothing of it is sparse.
    let enabled = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled")?;
    let is_always = enabled.contains("[always]");
    assert!(is_always || collapsed.sparse_bytes >= 24 * MIB, "{told}");
    assert!(after < before + 8 * MIB, "{told}");
    let (_, same) = instance.answer(&json!({}))?;
    assert_eq!(same, true, "its content is what it was");
    let sandbox = instance.claimed.sandbox;
    instance.end()?;
    let gone = node.spawner()?.collapse(sandbox);
    assert!(
        matches!(gone, Err(SpawnerError::Refused { again: false, .. })),
        "{gone:?}"
    );
    Ok(())
}

fn open_to_all(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::set_permissions(
        folder,
        fs::Permissions::from_mode(0o755),
    )?)
}
