//! What a sandbox weighs, as its cgroup tells.

use std::fs;
use std::sync::OnceLock;

use hearth_runtime::cgroup::{Controller, Hierarchy, Layout, Version};

/// Bytes that go with the processes of this cgroup of the hierarchy that carries memory.
pub(super) fn of(cgroup: &str) -> Option<u64> {
    static HIERARCHY: OnceLock<Option<Hierarchy>> = OnceLock::new();
    let hierarchy = HIERARCHY.get_or_init(carrier).as_ref()?;
    let directory = hierarchy.mount.join(cgroup.trim_start_matches('/'));
    let stat = fs::read_to_string(directory.join("memory.stat")).ok()?;
    match hierarchy.version {
        Version::V2 => sum(&stat, ["anon", "shmem", "kernel"]),
        Version::V1 => {
            let kernel = fs::read_to_string(directory.join("memory.kmem.usage_in_bytes"));
            let kernel = kernel.ok().and_then(|text| text.trim().parse().ok());
            let charged = sum(&stat, ["total_rss", "total_shmem"])?;
            Some(charged + kernel.unwrap_or(0_u64))
        }
    }
}

/// The hierarchy that carries memory: one of version 1, where there is one that does.
fn carrier() -> Option<Hierarchy> {
    let layout = Layout::discover().ok()?;
    let of_v1 = |one: &&Hierarchy| {
        one.version == Version::V1 && one.controllers.contains(&Controller::Memory)
    };
    let carrier = layout.hierarchies.iter().find(of_v1).or(layout.v2());
    carrier.cloned()
}

/// The sum of those that there are; none where there is none.
fn sum<const N: usize>(stat: &str, keys: [&str; N]) -> Option<u64> {
    let values = stat.lines().filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        keys.contains(&key).then(|| value.parse::<u64>().ok())?
    });
    values.reduce(u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_told_adds_nothing() {
        let stat = "anon 5\nfile 900\nkernel 7\nanon_thp 3\n";
        assert_eq!(sum(stat, ["anon", "shmem", "kernel"]), Some(12));
        assert_eq!(sum("file 9\n", ["anon"]), None);
    }
}
