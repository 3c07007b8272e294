//! What the whole machine has of sandboxes: what no cgroup and no directory of a node tells.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

use anyhow::Result;

/// Users that are sandboxes' alone.
const USERS: std::ops::Range<u32> = 0x6000_0000..0x6200_0000;
const KINDS: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];

/// By what it is, each with what tells it apart.
#[derive(Debug)]
pub struct Whole(BTreeSet<(&'static str, String)>);

impl Whole {
    /// As it is now, but for processes in slots of nodes that are not named so: somebody else looks
    /// after these.
    pub fn now(node: &str) -> Result<Self> {
        let mut all = BTreeSet::new();
        for entry in fs::read_dir("/proc")? {
            let path = entry?.path();
            // It may be gone by now.
            let read = |file| fs::read_to_string(path.join(file)).unwrap_or_default();
            let cgroup = read("cgroup");
            if cgroup.contains("/slot-") && !cgroup.contains(node) {
                continue;
            }
            for kind in KINDS {
                if let Ok(namespace) = fs::metadata(path.join("ns").join(kind)) {
                    all.insert((kind, namespace.ino().to_string()));
                }
            }
            let status = read("status");
            let users = status.lines().find_map(|line| line.strip_prefix("Uid:"));
            let mut users = users.unwrap_or_default().split_whitespace();
            if users.any(|user| user.parse().is_ok_and(|user| USERS.contains(&user))) {
                all.insert(("process", path.display().to_string()));
            }
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        all.extend(mounts.lines().map(|line| ("mount", line.to_owned())));
        // Those without a path are gone with who had them.
        let sockets = fs::read_to_string("/proc/net/unix")?;
        let paths = sockets
            .lines()
            .filter_map(|line| line.split(' ').next_back());
        let paths = paths.filter(|path| path.contains(node));
        all.extend(paths.map(|path| ("socket", path.to_owned())));
        Ok(Self(all))
    }

    /// What there was not before.
    #[must_use]
    pub fn more_than(&self, before: &Self) -> Vec<String> {
        let more = self.0.difference(&before.0);
        more.map(|(kind, which)| format!("{kind} {which}"))
            .collect()
    }
}
