//! What a thread may do: no more than it needs.

use caps::{CapSet, Capability, CapsHashSet};
use thiserror::Error;

/// What observing needs once everything is attached: to attach to further programs
/// (`CAP_BPF`, `CAP_PERFMON`), and to read the executables of others in the places where
/// those see them (`CAP_SYS_PTRACE` for `/proc/PID/root`, `CAP_DAC_READ_SEARCH`).
pub const OBSERVING: [Capability; 4] = [
    Capability::CAP_BPF,
    Capability::CAP_PERFMON,
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_DAC_READ_SEARCH,
];

/// What attaching to a program asks of the kernel since July 2025, in the stable series too
/// (a uprobe at a wrong address breaks the program under it): kept, and in force only in
/// [`raised`].
pub const ATTACHING: Capability = Capability::CAP_SYS_ADMIN;

/// Does `work` with [`ATTACHING`] in force, where this thread has it.
pub fn raised<T>(work: impl FnOnce() -> T) -> T {
    let has = |set| caps::has_cap(None, set, ATTACHING).unwrap_or(false);
    // One that cannot be raised fails where it is needed, with the kernel's own words.
    let was_down = has(CapSet::Permitted)
        && !has(CapSet::Effective)
        && caps::raise(None, CapSet::Effective, ATTACHING).is_ok();
    let done = work();
    if was_down && let Err(error) = caps::drop(None, CapSet::Effective, ATTACHING) {
        tracing::error!(%error, "CAP_SYS_ADMIN stays in force");
    }
    done
}

/// Capabilities that could not be given up.
#[derive(Debug, Error)]
pub enum PrivilegeError {
    /// A set of them.
    #[error("cannot give up capabilities: {0}")]
    Capabilities(#[from] caps::errors::CapsError),
    /// The flag that keeps programs from giving more.
    #[error("cannot set no_new_privs: {0}")]
    NoNewPrivileges(#[from] rustix::io::Errno),
}

/// Gives up, for the calling thread and those that it will spawn, every capability but
/// `kept` (in force) and `in_reserve` (not in force), and the possibility of getting any other
/// back. Capabilities are a thread's own: each
/// thread that already runs has to do the same.
pub fn keep_only(kept: &[Capability], in_reserve: &[Capability]) -> Result<(), PrivilegeError> {
    rustix::thread::set_no_new_privs(true)?;
    // Whoever lacks CAP_SETPCAP has had its bounding set cut by whoever started it.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for capability in caps::all() {
            // One that this kernel does not know is in no set.
            let bounding = caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false);
            if bounding && !kept.contains(&capability) {
                caps::drop(None, CapSet::Bounding, capability)?;
            }
        }
    }
    caps::clear(None, CapSet::Ambient)?;
    let permitted = caps::read(None, CapSet::Permitted)?;
    let among = |wanted: &[Capability]| -> CapsHashSet {
        permitted
            .iter()
            .filter(|one| wanted.contains(one))
            .copied()
            .collect()
    };
    caps::set(None, CapSet::Effective, &among(kept))?;
    caps::set(
        None,
        CapSet::Permitted,
        &among(&[kept, in_reserve].concat()),
    )?;
    caps::clear(None, CapSet::Inheritable)?;
    Ok(())
}
