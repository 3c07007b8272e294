//! Which hierarchy of this host carries which controller, as the kernel tells it.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use super::error::{Error, Result};

/// Generation of a hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// One hierarchy for each group of controllers.
    V1,
    /// The unified hierarchy.
    V2,
}

/// What limits or accounts one kind of resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Controller {
    /// Memory and swap.
    Memory,
    /// Processor time: limits.
    Cpu,
    /// Processor time: accounts. On v2 a part of every cgroup.
    Cpuacct,
    /// Numbers of processes.
    Pids,
    /// Block devices; `blkio` on v1.
    Io,
    /// Stops processes. On v2 a part of every cgroup.
    Freezer,
    /// Binds to processors and memory nodes.
    Cpuset,
}

impl Controller {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Memory,
        Self::Cpu,
        Self::Cpuacct,
        Self::Pids,
        Self::Io,
        Self::Freezer,
        Self::Cpuset,
    ];

    /// Its name in files of the kernel; `None` where no controller does this on v2.
    #[must_use]
    pub fn name(self, version: Version) -> Option<&'static str> {
        Some(match (self, version) {
            (Self::Memory, _) => "memory",
            (Self::Cpu, _) => "cpu",
            (Self::Pids, _) => "pids",
            (Self::Cpuset, _) => "cpuset",
            (Self::Io, Version::V1) => "blkio",
            (Self::Io, Version::V2) => "io",
            (Self::Cpuacct, Version::V1) => "cpuacct",
            (Self::Freezer, Version::V1) => "freezer",
            (Self::Cpuacct | Self::Freezer, Version::V2) => return None,
        })
    }
}

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Its generation.
    pub version: Version,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Its controllers; of v2 those that its root offers are read later, from its files.
    pub controllers: Vec<Controller>,
    /// The cgroup of this process, below the mount; `None` where it is outside of the mount.
    pub own: Option<PathBuf>,
}

/// All hierarchies of a host, at most one of v2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// In the order in which they are mounted.
    pub hierarchies: Vec<Hierarchy>,
}

impl Layout {
    /// Reads what is mounted in this process's namespace.
    pub fn discover() -> Result<Self> {
        let read = |path: &str| {
            fs::read(path).map_err(|source| Error::Io {
                action: "read",
                path: path.into(),
                source,
            })
        };
        Self::parse(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?)
    }

    /// The same from the text of `/proc/PID/mountinfo` and of `/proc/PID/cgroup`.
    pub fn parse(mountinfo: &[u8], cgroup: &[u8]) -> Result<Self> {
        let mut mounts: Vec<Mount> = Vec::new();
        for mount in mountinfo
            .split(|&byte| byte == b'\n')
            .filter_map(Mount::parse)
        {
            // The later one hides what was mounted on the same place before.
            mounts.retain(|earlier| earlier.point != mount.point);
            mounts.push(mount);
        }
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        for mount in &mounts {
            let Some(version) = mount.version else {
                continue;
            };
            let controllers = mount.controllers(version);
            let is_wanted = match version {
                Version::V1 => !controllers.is_empty(),
                Version::V2 => true,
            };
            // A hierarchy may be mounted more than once: any of the places will do.
            let is_known = hierarchies
                .iter()
                .any(|known| known.version == version && known.controllers == controllers);
            if !is_wanted || is_known {
                continue;
            }
            let own = own_path(cgroup, version, &controllers)
                .and_then(|path| path.strip_prefix(&mount.root).ok().map(Path::to_path_buf))
                .filter(|path| {
                    path.components()
                        .all(|part| matches!(part, Component::Normal(_)))
                });
            hierarchies.push(Hierarchy {
                version,
                mount: mount.point.clone(),
                controllers,
                own,
            });
        }
        if hierarchies.is_empty() {
            return Err(Error::NoHierarchy);
        }
        Ok(Self { hierarchies })
    }

    /// The v2 hierarchy: on a hybrid host it has no controllers, and is good for all else.
    #[must_use]
    pub fn v2(&self) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|h| h.version == Version::V2)
    }

    /// Whether v1 carries controllers beside a v2 hierarchy.
    #[must_use]
    pub fn is_hybrid(&self) -> bool {
        self.v2().is_some() && self.hierarchies.iter().any(|h| h.version == Version::V1)
    }
}

/// A line of mountinfo.
struct Mount {
    root: PathBuf,
    point: PathBuf,
    /// `None` of any other file system.
    version: Option<Version>,
    options: Vec<u8>,
}

impl Mount {
    /// `ID PARENT DEVICE ROOT POINT OPTIONS TAG... - TYPE SOURCE OPTIONS`
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|&byte| byte == b' ');
        let root = unescape(fields.nth(3)?);
        let point = unescape(fields.next()?);
        let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
        let version = match fields.next()? {
            b"cgroup" => Some(Version::V1),
            b"cgroup2" => Some(Version::V2),
            _ => None,
        };
        let options = fields.nth(1).unwrap_or_default().to_vec();
        Some(Self {
            root,
            point,
            version,
            options,
        })
    }

    fn controllers(&self, version: Version) -> Vec<Controller> {
        if version == Version::V2 {
            return Vec::new();
        }
        let mut options = self.options.split(|&byte| byte == b',');
        let of = |option: &[u8]| {
            let mut all = Controller::ALL.into_iter();
            all.find(|controller| controller.name(version).map(str::as_bytes) == Some(option))
        };
        let mut found: Vec<_> = options.by_ref().filter_map(of).collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// Octal escapes stand for space, tab, newline and backslash.
fn unescape(text: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| byte == b'\\');
        let code = code.and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok());
        out.push(code.unwrap_or(byte));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    OsString::from_vec(out).into()
}

/// The path of a line `ID:CONTROLLERS:PATH`; on v2 `0::PATH`.
fn own_path(cgroup: &[u8], version: Version, controllers: &[Controller]) -> Option<PathBuf> {
    cgroup.split(|&byte| byte == b'\n').find_map(|line| {
        let mut fields = line.splitn(3, |&byte| byte == b':');
        let (id, names, path) = (fields.next()?, fields.next()?, fields.next()?);
        let is_it = match version {
            Version::V2 => id == b"0" && names.is_empty(),
            Version::V1 => names.split(|&byte| byte == b',').any(|name| {
                let known = |of: &Controller| of.name(version).map(str::as_bytes) == Some(name);
                controllers.iter().any(known)
            }),
        };
        is_it.then(|| OsString::from_vec(path.to_vec()).into())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HYBRID: &[u8] = b"\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:7 master:1 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw,relatime - cgroup2 cgroup2 rw
";
    const HYBRID_OWN: &[u8] = b"5:memory:/a/b\n4:cpu,cpuacct:/\n3:name=systemd:/\n0::/x\n";

    #[test]
    fn a_hybrid_host_has_its_controllers_on_v1_and_a_twin() -> Result<()> {
        use Controller::{Cpu, Cpuacct, Memory};
        let layout = Layout::parse(HYBRID, HYBRID_OWN)?;
        assert!(layout.is_hybrid());
        let told: Vec<_> = layout
            .hierarchies
            .iter()
            .map(|h| (h.version, h.mount.to_str(), h.controllers.as_slice()))
            .collect();
        assert_eq!(
            told,
            [
                (
                    Version::V1,
                    Some("/sys/fs/cgroup/cpu,cpuacct"),
                    &[Cpu, Cpuacct][..]
                ),
                (Version::V1, Some("/sys/fs/cgroup/memory"), &[Memory]),
                (Version::V2, Some("/sys/fs/cgroup/uni fied"), &[]),
            ]
        );
        let own: Vec<_> = layout.hierarchies.iter().map(|h| h.own.clone()).collect();
        assert_eq!(own, ["", "a/b", "x"].map(|path| Some(PathBuf::from(path))));
        Ok(())
    }

    #[test]
    fn the_own_cgroup_is_told_from_the_root_of_the_mount() -> Result<()> {
        let own = |root: &str, path: &str| -> Result<Option<PathBuf>> {
            let mount = format!("1 1 0:1 {root} /m rw - cgroup2 none rw");
            let layout = Layout::parse(mount.as_bytes(), format!("0::{path}").as_bytes())?;
            Ok(layout.hierarchies[0].own.clone())
        };
        assert_eq!(own("/docker/x", "/docker/x/y")?, Some("y".into()));
        assert_eq!(own("/docker/x", "/docker/other")?, None);
        // From inside of a cgroup namespace whose root is elsewhere.
        assert_eq!(own("/..", "/")?, None);
        assert_eq!(own("/", "/../z")?, None);
        Ok(())
    }

    #[test]
    fn what_is_mounted_over_a_hierarchy_hides_it() {
        let text = b"1 1 0:1 / /m rw - cgroup2 none rw\n2 1 0:2 / /m rw - tmpfs none rw\n";
        assert!(matches!(
            Layout::parse(text, b"0::/"),
            Err(Error::NoHierarchy)
        ));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_harm(
            mounts in proptest::collection::vec(any::<u8>(), 0..400),
            line in "[0-9 /\\\\a-z:,-]{0,80} - cgroup2? x [a-z,]{0,20}",
            cgroup in "[0-9]{1,2}:[a-z,]{0,12}:/?[./a-z]{0,20}",
        ) {
            let text = [&mounts[..], b"\n", line.as_bytes()].concat();
            if let Ok(layout) = Layout::parse(&text, cgroup.as_bytes()) {
                for hierarchy in layout.hierarchies {
                    // What is opened from a mount never leads out of it.
                    let own = hierarchy.own.unwrap_or_default();
                    prop_assert!(own.components().all(|c| matches!(c, Component::Normal(_))));
                }
            }
        }
    }
}
