//! Where the hierarchy with the memory controller is mounted, and what is in it now.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::DirEntryExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Directories that one walk looks at; the rest are told when the kernel names them.
const DIRECTORIES: usize = 16_384;
/// How deep a walk goes.
const DEPTH: usize = 32;

/// The node's hierarchy with the memory controller: v1, v2, or the v1 part of a hybrid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryHierarchy {
    mount: PathBuf,
    /// Path of the mounted directory within the hierarchy.
    root: String,
}

/// One cgroup of the hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// Inode number of its directory.
    pub id: u64,
    /// Path within the hierarchy.
    pub path: String,
    /// Whether there is a process in it or below.
    pub populated: bool,
}

/// Why there is no hierarchy to look at.
#[derive(Debug, Error)]
pub enum HierarchyError {
    /// A file of `/proc` cannot be read.
    #[error("cannot read {path}: {source}; is /proc mounted?")]
    Proc {
        /// The file.
        path: &'static str,
        /// Why.
        source: io::Error,
    },
    /// None is mounted.
    #[error(
        "no cgroup hierarchy with the memory controller is mounted; cgroup paths will come from \
         the kernel's records only; mount one at /sys/fs/cgroup"
    )]
    NotMounted,
}

impl MemoryHierarchy {
    /// Finds it in `/proc/cgroups` and `/proc/self/mountinfo`.
    pub fn find() -> Result<Self, HierarchyError> {
        let read = |path: &'static str| {
            fs::read_to_string(path).map_err(|source| HierarchyError::Proc { path, source })
        };
        // Kernels without v1 have no /proc/cgroups line of memory, or no such file.
        let controllers = fs::read_to_string("/proc/cgroups").unwrap_or_default();
        Self::among(&controllers, &read("/proc/self/mountinfo")?).ok_or(HierarchyError::NotMounted)
    }

    fn among(controllers: &str, mountinfo: &str) -> Option<Self> {
        let on_v1 = controllers.lines().any(|line| {
            let mut fields = line.split_ascii_whitespace();
            fields.next() == Some("memory") && fields.next().is_some_and(|id| id != "0")
        });
        mountinfo.lines().find_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let mut before = before.split(' ').skip(3);
            let (root, mount) = (before.next()?, before.next()?);
            let mut after = after.split(' ');
            let (kind, options) = (after.next()?, after.nth(1)?);
            let fits = match kind {
                "cgroup" => on_v1 && options.split(',').any(|option| option == "memory"),
                "cgroup2" => !on_v1,
                _ => false,
            };
            let mount = PathBuf::from(mount.replace("\\040", " "));
            fits.then(|| Self {
                mount,
                root: root.trim_end_matches('/').to_owned(),
            })
        })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// Where the cgroup of this path within the hierarchy is beneath the mount, if it is there.
    #[must_use]
    pub fn beneath_mount<'a>(&self, path: &'a str) -> Option<&'a str> {
        let beneath = path.strip_prefix(&*self.root)?;
        let ours = beneath.is_empty() || beneath.starts_with('/');
        ours.then(|| beneath.trim_matches('/'))
    }

    /// A hierarchy that is somewhere else.
    #[cfg(test)]
    pub(crate) fn at(mount: &Path, root: &str) -> Self {
        Self {
            mount: mount.into(),
            root: root.to_owned(),
        }
    }

    /// Path of the mounted directory within the hierarchy; empty where that is all of it.
    #[must_use]
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Every cgroup that there is now, up to a bound. What vanishes on the way is left out.
    #[must_use]
    pub fn walk(&self) -> Vec<Cgroup> {
        let mut found = Vec::new();
        if let Ok(root) = fs::metadata(&self.mount) {
            let path = if self.root.is_empty() {
                "/"
            } else {
                &self.root
            };
            let root = Cgroup {
                id: root.ino(),
                path: path.to_owned(),
                populated: true,
            };
            found.push(root);
            descend(&self.mount, &self.root, DEPTH, &mut found);
        }
        found
    }
}

/// Adds what is below `directory`; true when a process is there or deeper.
fn descend(directory: &Path, path: &str, depth: usize, found: &mut Vec<Cgroup>) -> bool {
    let mut populated = has_process(directory);
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        if depth == 0 || found.len() >= DIRECTORIES {
            return populated;
        }
        let path = format!("{path}/{}", entry.file_name().to_string_lossy());
        let index = found.len();
        found.push(Cgroup {
            id: entry.ino(),
            path: path.clone(),
            populated: false,
        });
        let below = descend(&entry.path(), &path, depth - 1, found);
        found[index].populated = below;
        populated |= below;
    }
    populated
}

fn has_process(directory: &Path) -> bool {
    let first = fs::File::open(directory.join("cgroup.procs"))
        .and_then(|mut procs| procs.read(&mut [0; 1]));
    match first {
        Ok(bytes) => bytes > 0,
        // A threaded cgroup does not list processes; it has some in nearly every case.
        Err(error) => error.raw_os_error() == Some(libc::EOPNOTSUPP),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t4\t14\t1\n";
    const V2: &str = "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t0\t14\t1\n";
    const HYBRID: &str = "\
33 31 0:30 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn the_hierarchy_is_the_one_with_the_memory_controller() {
        let mount = |controllers| {
            let found = MemoryHierarchy::among(controllers, HYBRID).expect("a hierarchy");
            found.mount
        };
        assert_eq!(mount(V1), Path::new("/sys/fs/cgroup/memory"));
        assert_eq!(mount(V2), Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(mount(""), Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(
            MemoryHierarchy::among(V1, "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"),
            None
        );
    }

    #[test]
    fn this_nodes_own_cgroup_is_found_with_its_inode_as_id() {
        let hierarchy = MemoryHierarchy::find().expect("a hierarchy with the memory controller");
        let cgroups = hierarchy.walk();
        let mine = fs::read_to_string("/proc/self/cgroup").expect("own cgroup");
        let mine = mine
            .lines()
            .filter_map(|line| line.splitn(3, ':').collect::<Vec<_>>().try_into().ok())
            .find(|[_, controllers, _]: &[&str; 3]| {
                controllers.split(',').any(|name| name == "memory") || controllers.is_empty()
            })
            .expect("a line of the hierarchy")[2];
        let found = cgroups
            .iter()
            .find(|cgroup| cgroup.path == mine)
            .expect(mine);
        assert!(found.populated, "this test runs in it");
        let directory = hierarchy.mount().join(mine.trim_start_matches('/'));
        assert_eq!(
            found.id,
            fs::metadata(directory).expect("its directory").ino()
        );
    }
}
