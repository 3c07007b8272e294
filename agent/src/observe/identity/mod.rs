//! Who a start belongs to: process, cgroup, container, unit, function, pod.

mod bundle;
mod cgroup_names;
mod cgroup_path;
mod cri;
mod hierarchy;
mod resolver;

use serde::{Deserialize, Serialize};

pub use bundle::Bundles;
pub use cgroup_names::CgroupNames;
pub use cgroup_path::Place;
pub use cri::{Cri, CriError};
pub use hierarchy::{Cgroup, HierarchyError, MemoryHierarchy};
pub use resolver::{Resolver, ResolverStats};

use crate::time::Boottime;

/// Who. The process is known from the kernel; the rest is derived from the cgroup's path
/// (as the kernel told it) and from what a CRI socket answers. `None` is "not known".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Boot id: with `pid` and `start_boottime_ns` it names a process for ever.
    pub boot_id: String,
    /// Process that became ready.
    pub pid: u32,
    /// `start_boottime` of its leader.
    #[serde(rename = "start_boottime_ns")]
    pub start_boottime: Boottime,
    /// `argv[0]` of its last exec.
    pub argv0: Option<String>,
    /// File name of its last exec.
    pub exe: Option<String>,
    /// Path within the hierarchy that carries the memory controller.
    pub cgroup_path: Option<String>,
    /// 64 hexadecimal digits of a container.
    pub container_id: Option<String>,
    /// `containerd`, `runc`, `docker`, `cri-o`, `podman`.
    pub container_runtime: Option<&'static str>,
    /// systemd unit.
    pub unit: Option<String>,
    /// Function name: by rule, label, or else `None`.
    pub function: Option<String>,
    /// Kubernetes pod, where a CRI socket answered.
    pub pod: Option<Pod>,
}

/// Kubernetes names of a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Name.
    pub name: Option<String>,
    /// Namespace.
    pub namespace: Option<String>,
    /// UID.
    pub uid: Option<String>,
    /// Container name in the pod.
    pub container: Option<String>,
}

impl Identity {
    /// Fills in what a cgroup's path tells.
    pub fn place(&mut self, path: &str, runtime: Option<&str>) {
        let place = Place::of(path, runtime);
        self.container_id = place.container_id;
        self.container_runtime = place.container_runtime;
        self.unit = place.unit;
        self.pod = place.pod_uid.map(|uid| Pod {
            uid: Some(uid),
            ..Pod::default()
        });
        self.cgroup_path = Some(path.to_owned());
    }
}

/// This boot's id, or an empty string where the kernel does not tell it.
#[must_use]
pub fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}
