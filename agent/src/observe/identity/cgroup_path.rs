//! What a cgroup's path says about who is in it.

/// Hexadecimal digits of a container's id.
const ID_DIGITS: usize = 64;

/// Who is in a cgroup, as far as its path tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Container's id.
    pub container_id: Option<String>,
    /// What manages the container.
    pub container_runtime: Option<&'static str>,
    /// systemd unit; of a container only one inside it.
    pub unit: Option<String>,
    /// Kubernetes pod.
    pub pod_uid: Option<String>,
}

impl Place {
    /// Reads a path within the hierarchy. `runtime` is the OCI runtime that made the cgroup,
    /// if one is known to have: such a cgroup is named by the container's id, whatever that
    /// looks like.
    #[must_use]
    pub fn of(path: &str, runtime: Option<&str>) -> Self {
        let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
        let found = (0..names.len()).rev().find_map(|index| {
            let parent = index.checked_sub(1).map(|parent| names[parent]);
            container(names[index], parent).map(|(id, runtime)| (index, id.to_owned(), runtime))
        });
        let made = || {
            let last = names.len().checked_sub(1)?;
            let id = made_by(names[last], runtime?)?;
            Some((last, id.to_owned(), None))
        };
        let found = found.or_else(made);
        let inside = found.as_ref().map_or(0, |(index, ..)| index + 1);
        let manager = runtime.and_then(|name| ["runc"].into_iter().find(|&known| known == name));
        Self {
            unit: names[inside..]
                .iter()
                .rev()
                .find(|name| is_unit(name))
                .map(|&n| n.to_owned()),
            pod_uid: names.iter().rev().find_map(|name| pod(name)),
            container_runtime: found.as_ref().and_then(|&(_, _, told)| told.or(manager)),
            container_id: found.map(|(_, id, _)| id),
        }
    }

    /// Whether a cgroup of this path holds a whole container or service, so that its first
    /// process opens a start. Scopes are made around processes that already run.
    #[must_use]
    pub fn opens_start(path: &str) -> bool {
        let mut names = path.rsplit('/').filter(|name| !name.is_empty());
        let (Some(last), parent) = (names.next(), names.next()) else {
            return false;
        };
        let is_container = |name, parent| container(name, parent).is_some();
        is_container(last, parent)
            || last.ends_with(".service")
            // crun puts the processes of a podman container one level down.
            || (last == "container" && parent.is_some_and(|name| is_container(name, names.next())))
    }
}

/// Id and manager of a container's cgroup.
fn container<'a>(name: &'a str, parent: Option<&str>) -> Option<(&'a str, Option<&'static str>)> {
    const PREFIXES: [(&str, &str); 5] = [
        ("docker-", "docker"),
        ("cri-containerd-", "containerd"),
        ("nerdctl-", "containerd"),
        ("crio-", "cri-o"),
        ("libpod-", "podman"),
    ];
    let bare = name.strip_suffix(".scope").unwrap_or(name);
    if is_id(bare) {
        let runtime = match parent {
            Some("docker") => Some("docker"),
            Some("k8s.io" | "default") => Some("containerd"),
            _ => None,
        };
        return Some((bare, runtime));
    }
    PREFIXES.into_iter().find_map(|(prefix, runtime)| {
        let id = bare.strip_prefix(prefix)?;
        is_id(id).then_some((id, Some(runtime)))
    })
}

/// Id of a cgroup that an OCI runtime made: its name, without what the systemd driver puts
/// around it (`runc-NAME.scope`).
fn made_by<'a>(name: &'a str, runtime: &str) -> Option<&'a str> {
    let Some(scope) = name.strip_suffix(".scope") else {
        return (!is_unit(name)).then_some(name);
    };
    let own = scope
        .strip_prefix(runtime)
        .and_then(|rest| rest.strip_prefix('-'));
    own.or_else(|| scope.split_once('-').map(|(_, id)| id))
        .filter(|id| !id.is_empty())
}

fn is_id(text: &str) -> bool {
    text.len() == ID_DIGITS && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_unit(name: &str) -> bool {
    let unit = name
        .strip_suffix(".service")
        .or_else(|| name.strip_suffix(".scope"));
    unit.is_some_and(|unit| unit != "init")
}

/// UID of a pod's cgroup: `podUID`, or `kubepods-burstable-podUID.slice` with `_` for `-`.
fn pod(name: &str) -> Option<String> {
    const UID: usize = 36;
    let uid = match name.strip_suffix(".slice") {
        Some(slice) => slice
            .strip_prefix("kubepods-")?
            .rsplit_once("pod")?
            .1
            .replace('_', "-"),
        None => name.strip_prefix("pod")?.to_owned(),
    };
    // The static pods of a node have the digest of their manifest instead.
    let plain = uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    (plain && matches!(uid.len(), UID | 32)).then_some(uid)
}

#[cfg(test)]
mod tests {
    use super::Place;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "12345678-1234-1234-1234-123456789abc";

    #[test]
    fn containers_are_known_by_their_paths() {
        let under = UID.replace('-', "_");
        let burstable =
            format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{under}.slice");
        for (path, runtime, pod) in [
            (format!("/docker/{ID}"), Some("docker"), false),
            (
                format!("/system.slice/docker-{ID}.scope"),
                Some("docker"),
                false,
            ),
            (format!("/kubepods/besteffort/pod{UID}/{ID}"), None, true),
            (
                format!("{burstable}/cri-containerd-{ID}.scope"),
                Some("containerd"),
                true,
            ),
            (format!("{burstable}/crio-{ID}.scope"), Some("cri-o"), true),
            (format!("/kubepods/pod{UID}/crio-{ID}"), Some("cri-o"), true),
            (
                format!("/machine.slice/libpod-{ID}.scope"),
                Some("podman"),
                false,
            ),
            (
                format!("/machine.slice/libpod-{ID}.scope/container"),
                Some("podman"),
                false,
            ),
            (format!("/k8s.io/{ID}"), Some("containerd"), false),
            (
                format!("/system.slice/containerd.service/docker/{ID}"),
                Some("docker"),
                false,
            ),
        ] {
            let place = Place::of(&path, None);
            assert_eq!(place.container_id.as_deref(), Some(ID), "{path}");
            assert_eq!(place.container_runtime, runtime, "{path}");
            assert_eq!(place.pod_uid.as_deref(), pod.then_some(UID), "{path}");
            assert_eq!(place.unit, None, "{path}");
            assert!(Place::opens_start(&path), "{path}");
        }
    }

    #[test]
    fn the_cgroup_made_by_an_oci_runtime_is_named_by_the_container() {
        for (path, id) in [
            ("/hello", Some("hello")),
            ("/a/b/hello-1", Some("hello-1")),
            ("/system.slice/runc-hello-1.scope", Some("hello-1")),
            ("/machine.slice/pre-hello.scope", Some("hello")),
            ("/system.slice/ssh.service", None),
            ("/", None),
        ] {
            assert_eq!(
                Place::of(path, Some("runc")).container_id.as_deref(),
                id,
                "{path}"
            );
        }
        let place = Place::of("/hello", Some("runc"));
        assert_eq!(place.container_runtime, Some("runc"));
        assert_eq!(Place::of("/hello", None), Place::default());
    }

    #[test]
    fn units_open_starts_and_scopes_do_not() {
        for (path, unit, opens) in [
            ("/system.slice/nginx.service", Some("nginx.service"), true),
            (
                "/system.slice/system-getty.slice/getty@tty1.service",
                Some("getty@tty1.service"),
                true,
            ),
            (
                "/user.slice/user-0.slice/session-3.scope",
                Some("session-3.scope"),
                false,
            ),
            (
                "/system.slice/nginx.service/worker",
                Some("nginx.service"),
                false,
            ),
            ("/init.scope", None, false),
            ("/user.slice", None, false),
            ("/", None, false),
            ("", None, false),
        ] {
            assert_eq!(Place::of(path, None).unit.as_deref(), unit, "{path}");
            assert_eq!(Place::opens_start(path), opens, "{path}");
        }
    }

    #[test]
    fn a_unit_inside_a_container_is_told_with_it() {
        let place = Place::of(&format!("/docker/{ID}/system.slice/app.service"), None);
        assert_eq!(place.container_id.as_deref(), Some(ID));
        assert_eq!(place.unit.as_deref(), Some("app.service"));
    }
}
