//! When each capture came to be a file.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result};
use hearth_tests::clock::boottime_ns;
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use rustix::io::Errno;

/// What the names of captures end with.
const SUFFIX: &str = ".oom";

/// Files that were published in a directory since it was watched.
pub(super) struct Arrivals {
    /// Names, with the boot time at which each was there, ns.
    seen: Arc<Mutex<Vec<(String, u64)>>>,
}

impl Arrivals {
    /// Watches this directory, from a thread that ends with the process.
    pub(super) fn watch(dir: &Path) -> Result<Self> {
        let watch = inotify::init(CreateFlags::CLOEXEC).context("inotify")?;
        inotify::add_watch(&watch, dir, WatchFlags::MOVED_TO)
            .with_context(|| format!("watch {}", dir.display()))?;
        let seen = Arc::<Mutex<Vec<_>>>::default();
        let sink = Arc::clone(&seen);
        thread::spawn(move || note(&watch, &sink));
        Ok(Self { seen })
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// All of them.
    pub(super) fn so_far(&self) -> Vec<(String, u64)> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn note(watch: &OwnedFd, seen: &Mutex<Vec<(String, u64)>>) {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = Reader::new(watch, &mut buffer);
    loop {
        let event = match events.next() {
            Ok(event) => event,
            Err(Errno::INTR) => continue,
            Err(_) => return,
        };
        let now = boottime_ns();
        let name = event.file_name().and_then(|name| name.to_str().ok());
        if let Some(name) = name.filter(|name| name.ends_with(SUFFIX)) {
            seen.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((name.to_owned(), now));
        }
    }
}
