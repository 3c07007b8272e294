//! What of a node bears on contention for the cgroup locks, and what the node could do about it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Directories that are counted in one hierarchy; beyond it `live` is not known.
const DIRECTORIES: u64 = 65_536;
/// From here on dying cgroups are worth a word.
const MANY_DYING: u64 = 1_000;
/// From here on living cgroups are.
const MANY_LIVE: u64 = 5_000;

/// One mounted hierarchy of cgroups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// 1 or 2.
    pub version: u8,
    /// Controllers of a v1 hierarchy, or its name (`name=systemd`); those that v2 offers.
    pub controllers: Vec<String>,
    /// Whether it was mounted with `favordynmods`.
    pub favordynmods: bool,
    /// Cgroups that exist, the root not counted; `None` where they cannot be counted.
    pub live: Option<u64>,
    /// Cgroups that were removed and still hold memory; `None` where the kernel does not tell.
    pub dying: Option<u64>,
}

/// What bears on contention for the cgroup locks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CgroupNode {
    /// Every hierarchy, once.
    pub hierarchies: Vec<Hierarchy>,
    /// What the node could do, most telling first.
    pub advice: Vec<String>,
}

impl CgroupNode {
    /// Of this node.
    #[must_use]
    pub fn detect() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        // A kernel without v1 has no such file.
        let (mountinfo, controllers) = (read("/proc/self/mountinfo"), read("/proc/cgroups"));
        let hierarchies: Vec<Hierarchy> = mounted(&mountinfo)
            .into_iter()
            .map(|(mut hierarchy, whole)| {
                if whole {
                    count(&mut hierarchy, &controllers);
                }
                hierarchy
            })
            .collect();
        Self {
            advice: advice(&hierarchies),
            hierarchies,
        }
    }

    /// Mounted hierarchies of v1.
    pub fn v1(&self) -> impl Iterator<Item = &Hierarchy> {
        self.hierarchies.iter().filter(|one| one.version == 1)
    }

    /// Whether attaches are spared the RCU grace period; it holds for the node as a whole.
    #[must_use]
    pub fn favordynmods(&self) -> bool {
        self.hierarchies.iter().any(|one| one.favordynmods)
    }
}

/// The hierarchies of `/proc/self/mountinfo`, each once, and whether all of it is mounted there.
fn mounted(mountinfo: &str) -> Vec<(Hierarchy, bool)> {
    let mut devices = BTreeSet::new();
    let hierarchy = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let [device, root, mount] = before
            .split(' ')
            .skip(2)
            .take(3)
            .collect::<Vec<_>>()
            .try_into()
            .ok()?;
        let mut after = after.split(' ');
        let version = match after.next()? {
            "cgroup" => 1,
            "cgroup2" => 2,
            _ => return None,
        };
        let options: Vec<&str> = after.nth(1)?.split(',').collect();
        let told = options.iter().copied();
        let controllers = told.filter(|option| version == 1 && is_controller(option));
        let hierarchy = Hierarchy {
            mount: PathBuf::from(mount.replace("\\040", " ")),
            version,
            controllers: controllers.map(str::to_owned).collect(),
            favordynmods: options.contains(&"favordynmods"),
            live: None,
            dying: None,
        };
        // A second mount of the same hierarchy is no second hierarchy.
        devices
            .insert(device.to_owned())
            .then_some((hierarchy, root == "/"))
    };
    mountinfo.lines().filter_map(hierarchy).collect()
}

/// Whether a v1 mount's option names what it carries, rather than how.
fn is_controller(option: &str) -> bool {
    const OTHERS: [&str; 7] = [
        "rw",
        "ro",
        "xattr",
        "noprefix",
        "clone_children",
        "cpuset_v2_mode",
        "favordynmods",
    ];
    !OTHERS.contains(&option) && !option.starts_with("release_agent=")
}

fn count(hierarchy: &mut Hierarchy, controllers: &str) {
    if hierarchy.version == 2 {
        let read = |file| fs::read_to_string(hierarchy.mount.join(file)).unwrap_or_default();
        let (stat, offered) = (read("cgroup.stat"), read("cgroup.controllers"));
        hierarchy.live = field(&stat, "nr_descendants");
        hierarchy.dying = field(&stat, "nr_dying_descendants");
        hierarchy.controllers = offered.split_whitespace().map(str::to_owned).collect();
        return;
    }
    let before = directories(&hierarchy.mount);
    hierarchy.live = before;
    // The kernel counts the root, and what is removed for as long as anything refers to it.
    let all = hierarchy
        .controllers
        .iter()
        .find_map(|name| cgroups_of(controllers, name));
    hierarchy.dying = before
        .zip(all)
        .map(|(live, all)| all.saturating_sub(live + 1));
}

/// `num_cgroups` of a controller in `/proc/cgroups`.
fn cgroups_of(controllers: &str, name: &str) -> Option<u64> {
    let row = controllers
        .lines()
        .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&name))?;
    row.get(2)?.parse().ok()
}

fn field(stat: &str, name: &str) -> Option<u64> {
    let value = stat
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    value.trim().parse().ok()
}

/// Directories below `root`; `None` where there are too many to be counted in passing.
fn directories(root: &Path) -> Option<u64> {
    let mut waiting = vec![root.to_owned()];
    let mut found = 0;
    while let Some(directory) = waiting.pop() {
        // What vanishes meanwhile is not there.
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                found += 1;
                if found > DIRECTORIES {
                    return None;
                }
                waiting.push(entry.path());
            }
        }
    }
    Some(found)
}

fn advice(hierarchies: &[Hierarchy]) -> Vec<String> {
    let mut advice = Vec::new();
    let v1 = hierarchies.iter().filter(|one| one.version == 1).count();
    if v1 > 1 {
        advice.push(format!(
            "{v1} hierarchies of cgroup v1 are mounted: a container makes, configures and enters a \
             cgroup in each, every time under the same cgroup_mutex. With cgroup v2 alone \
             (systemd.unified_cgroup_hierarchy=1 on the kernel's command line) it is one."
        ));
    }
    if !hierarchies.iter().any(|one| one.favordynmods) {
        let mount = hierarchies
            .iter()
            .find(|one| one.version == 2)
            .or(hierarchies.first());
        if let Some(Hierarchy { mount, version, .. }) = mount {
            let mount = mount.display();
            let how = if *version == 2 {
                format!("mount -o remount,favordynmods {mount}")
            } else {
                format!("favordynmods among the options with which {mount} is mounted")
            };
            advice.push(format!(
                "favordynmods is off: before a process is moved, writing cgroup.procs may wait for an \
                 RCU grace period, which takes milliseconds. Where `hearth locks` shows that, turn \
                 it on ({how}); forks and exits become a little dearer."
            ));
        }
    }
    for one in hierarchies {
        let mount = one.mount.display();
        if let Some(dying @ MANY_DYING..) = one.dying {
            advice.push(format!(
                "{dying} cgroups of {mount} are dying: removed, and kept by memory that is still \
                 charged to them, mostly page cache. What walks all cgroups takes longer for it. \
                 Reclaim (memory.reclaim, or memory.force_empty of v1) before removing one."
            ));
        }
        if let Some(live @ MANY_LIVE..) = one.live {
            advice.push(format!(
                "{live} cgroups are alive in {mount}: what walks all of them with a lock held \
                 (controller writes, statistics) takes longer for it. Remove those that nobody uses."
            ));
        }
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/lib/x,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
90 31 0:38 /a /mnt/again rw - cgroup2 cgroup2 rw,nsdelegate
22 1 8:1 / / rw - ext4 /dev/sda1 rw
";

    #[test]
    fn each_hierarchy_is_found_once_with_its_controllers() {
        let found = mounted(HYBRID);
        let told: Vec<_> = found
            .iter()
            .map(|(one, whole)| (one.version, one.controllers.join("+"), *whole))
            .collect();
        assert_eq!(
            told,
            [
                (1, "cpu+cpuacct".to_owned(), true),
                (1, "memory".to_owned(), true),
                (1, "name=systemd".to_owned(), true),
                (2, String::new(), true),
            ]
        );
        assert!(found.iter().all(|(one, _)| !one.favordynmods));
    }

    #[test]
    fn favordynmods_is_an_option_of_the_mount() {
        let with = "41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate,favordynmods\n";
        let (hierarchy, _) = mounted(with).pop().expect("one");
        assert!(hierarchy.favordynmods);
        assert!(advice(&[hierarchy]).is_empty());
        let (without, _) = mounted(HYBRID).pop().expect("one");
        let advice = advice(&[without]);
        let remedy = "mount -o remount,favordynmods /sys/fs/cgroup/unified";
        assert!(
            advice.len() == 1 && advice[0].contains(remedy),
            "{advice:?}"
        );
    }

    #[test]
    fn counts_come_from_the_kernels_files() {
        let controllers = "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t4\t11\t1\n";
        assert_eq!(cgroups_of(controllers, "memory"), Some(11));
        assert_eq!(cgroups_of(controllers, "cpu"), None);
        let stat = "nr_descendants 12\nnr_subsys_cpu 1\nnr_dying_descendants 3\n";
        assert_eq!(field(stat, "nr_descendants"), Some(12));
        assert_eq!(field(stat, "nr_dying_descendants"), Some(3));
        assert_eq!(field("", "nr_descendants"), None);
    }

    #[test]
    fn many_cgroups_and_many_hierarchies_are_worth_a_word() {
        let mut all: Vec<_> = mounted(HYBRID).into_iter().map(|(one, _)| one).collect();
        all[1].dying = Some(MANY_DYING);
        all[3].live = Some(MANY_LIVE);
        let advice = advice(&all);
        for words in [
            "3 hierarchies of cgroup v1",
            "favordynmods is off",
            "1000 cgroups of /sys/fs/cgroup/memory are dying",
            "5000 cgroups are alive",
        ] {
            assert!(
                advice.iter().any(|one| one.contains(words)),
                "{words}: {advice:?}"
            );
        }
    }

    #[test]
    fn this_node_is_counted() {
        let node = CgroupNode::detect();
        assert!(!node.hierarchies.is_empty());
        let memory = node
            .hierarchies
            .iter()
            .find(|one| one.controllers.iter().any(|name| name == "memory"));
        let memory = memory.expect("a hierarchy with the memory controller");
        assert!(
            memory.live.is_some() && memory.dying.is_some(),
            "{memory:?}"
        );
    }
}
