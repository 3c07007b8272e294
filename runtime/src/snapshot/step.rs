//! Where the tests end the process, to see what is left.

/// Between two steps.
#[cfg(not(test))]
pub(super) const fn step() {}

/// Ends the process as `SIGKILL` does at the step that `HEARTH_SNAPSHOT_DIES_AT` counts.
#[cfg(test)]
pub(super) fn step() {
    use std::sync::atomic::{AtomicU32, Ordering};
    static STEPS: AtomicU32 = AtomicU32::new(0);
    let Some(at) = std::env::var_os("HEARTH_SNAPSHOT_DIES_AT") else {
        return;
    };
    let now = STEPS.fetch_add(1, Ordering::Relaxed).to_string();
    if *at == *now {
        let myself = rustix::process::getpid();
        let _ = rustix::process::kill_process(myself, rustix::process::Signal::KILL);
    }
}
