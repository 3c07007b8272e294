//! System calls of the function that were refused, by name.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};

use hearth_runtime::seccomp::Listener;

/// A call that is newer than this program.
const UNKNOWN: &str = "unknown";

/// Since they were last told.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    listener: Option<Listener>,
    calls: BTreeMap<String, u64>,
}

impl Refusals {
    pub(super) fn listen(&mut self, listener: Option<Listener>) {
        self.listener = listener;
    }

    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.listener.as_ref().map(AsFd::as_fd)
    }

    /// Refuses the one that waits.
    pub(super) fn refuse(&mut self) {
        match self.listener.as_ref().map(Listener::refuse) {
            Some(Ok(Some(refusal))) => {
                let name = refusal.name().unwrap_or(UNKNOWN);
                *self.calls.entry(name.to_owned()).or_default() += 1;
            }
            Some(Ok(None)) | None => {}
            Some(Err(_)) => self.listener = None,
        }
    }

    /// Nobody is left under the filter.
    pub(super) fn close(&mut self) {
        self.listener = None;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    pub(super) fn take(&mut self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.calls)
    }
}
