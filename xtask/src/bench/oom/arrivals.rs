//! When each capture came to be a file.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use anyhow::{Context as _, Result};
use hearth_tests::clock::boottime_ns;
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use rustix::io::Errno;

/// What the names of captures end with.
const SUFFIX: &str = ".oom";

/// A capture that was published.
pub(super) struct Arrival {
    pub(super) file: PathBuf,
    /// When it was there, on the boot clock.
    pub(super) at_ns: u64,
}

/// The captures that are published in this directory from now on, noted by a thread that lives as
/// long as somebody wants to know.
pub(super) fn watch(dir: &Path) -> Result<Receiver<Arrival>> {
    let watch = inotify::init(CreateFlags::CLOEXEC).context("inotify")?;
    inotify::add_watch(&watch, dir, WatchFlags::MOVED_TO)
        .with_context(|| format!("watch {}", dir.display()))?;
    let (sender, arrivals) = channel();
    let dir = dir.to_owned();
    thread::spawn(move || note(&watch, &dir, &sender));
    Ok(arrivals)
}

fn note(watch: &OwnedFd, dir: &Path, arrivals: &Sender<Arrival>) {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = Reader::new(watch, &mut buffer);
    loop {
        let event = match events.next() {
            Ok(event) => event,
            Err(Errno::INTR) => continue,
            Err(_) => return,
        };
        let at_ns = boottime_ns();
        let name = event.file_name().and_then(|name| name.to_str().ok());
        let Some(name) = name.filter(|name| name.ends_with(SUFFIX)) else {
            continue;
        };
        let file = dir.join(name);
        if arrivals.send(Arrival { file, at_ns }).is_err() {
            return;
        }
    }
}
