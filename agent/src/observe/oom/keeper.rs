//! The thread that finishes captures and keeps them: files are looked at and synced there, so
//! that nothing else waits for a disk.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use caps::Capability;
use tokio::sync::mpsc;

use super::mappings;
use super::model::Capture;
use super::store::{Bounds, Note, Notes, Store, StoreCounts, StoreError};
use crate::privilege;

/// Captures that wait for the thread; what is more is told without a file.
const WAITING: usize = 64;
/// Notes that wait for it; what is more is not noted.
const NOTES: usize = 1024;

/// A capture that has been through the keeper.
#[derive(Debug)]
pub struct Kept {
    /// The capture, under its final name.
    pub capture: Capture,
    /// Why there is no file of it, where there is none.
    pub lost: Option<&'static str>,
}

/// What became of captures; totals but for `files` and `bytes`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeeperStats {
    /// Captures in the store.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Captures that were removed to make room.
    pub evicted: u64,
    /// Unfinished files of an agent that died, removed.
    pub unfinished: u64,
    /// Captures without a file, by reason.
    pub lost: BTreeMap<&'static str, u64>,
}

impl KeeperStats {
    /// Every reason for which a capture can be without a file.
    pub const REASONS: [&'static str; 7] = [
        "disk_full",
        "io",
        "unsafe_directory",
        "busy",
        "format",
        "too_large",
        "queue_full",
    ];
}

/// A capture on its way, with processes that may see the victim's files.
type Waiting = (Box<Capture>, Vec<u32>);

/// What the thread is told.
enum Order {
    Keep(Waiting),
    /// There are notes.
    Note,
}

/// Notes that wait: they go before captures, for which a disk is waited for.
#[derive(Debug, Default)]
struct WaitingNotes {
    notes: VecDeque<Note>,
    /// Whether an [`Order::Note`] is on its way.
    is_told: bool,
}

impl WaitingNotes {
    /// All of them; `is_told` says whether the word of them has arrived.
    fn take(&mut self, is_told: bool) -> VecDeque<Note> {
        self.is_told &= !is_told;
        std::mem::take(&mut self.notes)
    }
}

/// Handle on the thread. It ends, all captures kept, when this is dropped.
#[derive(Debug)]
pub struct Keeper {
    waiting: Option<SyncSender<Order>>,
    notes: Arc<Mutex<WaitingNotes>>,
    queued: Arc<AtomicUsize>,
    stats: Arc<Mutex<KeeperStats>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts the thread, which opens `dir` as soon as it can. What it has kept, or could not
    /// keep, comes out of the second value.
    pub fn start(
        dir: PathBuf,
        bounds: Bounds,
    ) -> std::io::Result<(Self, mpsc::UnboundedReceiver<Kept>)> {
        // There is one word of notes at a time.
        let (waiting, orders) = sync_channel(WAITING + 1);
        let notes = Arc::<Mutex<WaitingNotes>>::default();
        // Not more than went in: `waiting` is the bound.
        let (kept, out) = mpsc::unbounded_channel();
        let stats = Arc::<Mutex<KeeperStats>>::default();
        let queued = Arc::<AtomicUsize>::default();
        let thread = std::thread::Builder::new()
            .name("hearth-captures".to_owned())
            .spawn({
                let (stats, queued) = (Arc::clone(&stats), Arc::clone(&queued));
                let notes = Arc::clone(&notes);
                move || {
                    let opening = Opening::new(dir, bounds);
                    run(opening, &orders, &notes, &queued, &kept, &stats);
                }
            })?;
        let keeper = Self {
            waiting: Some(waiting),
            notes,
            queued,
            stats,
            thread: Some(thread),
        };
        Ok((keeper, out))
    }

    /// Whether one more can be handed over now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.queued.load(Ordering::Relaxed) < WAITING
    }

    /// Has it noted that there was a kill, whose capture comes later.
    pub fn note(&self, note: Note) {
        let mut waiting = lock(&self.notes);
        if waiting.notes.len() >= NOTES {
            return;
        }
        waiting.notes.push_back(note);
        if !waiting.is_told
            && let Some(orders) = &self.waiting
        {
            waiting.is_told = orders.try_send(Order::Note).is_ok();
        }
    }

    /// Hands over a capture, or hands it back where too many wait. `others` are processes of the
    /// victim's cgroup.
    #[must_use]
    pub fn keep(&self, capture: Capture, others: Vec<u32>) -> Option<Kept> {
        let capture = (Box::new(capture), others);
        let refused = match &self.waiting {
            None => capture,
            Some(waiting) => {
                self.queued.fetch_add(1, Ordering::Relaxed);
                match waiting.try_send(Order::Keep(capture)) {
                    Ok(()) => return None,
                    Err(TrySendError::Full(refused) | TrySendError::Disconnected(refused)) => {
                        self.queued.fetch_sub(1, Ordering::Relaxed);
                        refused.capture()?
                    }
                }
            }
        };
        Some(self.lost(refused))
    }

    /// As [`Self::keep`], and waits until there is room: for the end, when nothing else has to go
    /// on meanwhile.
    #[must_use]
    pub fn keep_at_last(&self, capture: Capture, others: Vec<u32>) -> Option<Kept> {
        let capture = (Box::new(capture), others);
        let refused = match &self.waiting {
            None => capture,
            Some(waiting) => {
                self.queued.fetch_add(1, Ordering::Relaxed);
                waiting.send(Order::Keep(capture)).err()?.0.capture()?
            }
        };
        Some(self.lost(refused))
    }

    fn lost(&self, (capture, _): Waiting) -> Kept {
        let lost = "queue_full";
        *lock(&self.stats).lost.entry(lost).or_default() += 1;
        Kept {
            capture: *capture,
            lost: Some(lost),
        }
    }

    /// What became of captures so far.
    #[must_use]
    pub fn stats(&self) -> KeeperStats {
        lock(&self.stats).clone()
    }

    /// Waits until all that was handed over is kept.
    pub fn finish(&mut self) {
        self.waiting = None;
        if let Some(thread) = self.thread.take() {
            // What it panicked about it has said.
            let _ = thread.join();
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Order {
    fn capture(self) -> Option<Waiting> {
        match self {
            Self::Keep(waiting) => Some(waiting),
            Self::Note => None,
        }
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(
    mut opening: Opening,
    orders: &Receiver<Order>,
    notes: &Mutex<WaitingNotes>,
    queued: &AtomicUsize,
    kept: &mpsc::UnboundedSender<Kept>,
    stats: &Mutex<KeeperStats>,
) {
    // It reads the files of others in the places where those see them.
    let needed = [Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH];
    if let Err(error) = privilege::keep_only(&needed, &[]) {
        tracing::warn!("the thread that keeps captures keeps its capabilities: {error}");
    }
    // At once, so that what a dead agent left goes.
    let _ = opening.store(stats);
    while let Ok(order) = orders.recv() {
        let is_note = matches!(order, Order::Note);
        for note in lock(notes).take(is_note) {
            opening.write(&note, stats);
        }
        let Order::Keep((mut capture, others)) = order else {
            continue;
        };
        queued.fetch_sub(1, Ordering::Relaxed);
        mappings::resolve(&mut capture, &others);
        let lost = opening.keep(&mut capture, stats).err();
        let kept = kept.send(Kept {
            capture: *capture,
            lost,
        });
        // Nobody wants to know any more, but the files are for later.
        drop(kept);
    }
    if let Some(store) = opening.store {
        store.end();
    }
}

/// The store, which may come to be usable later than the agent.
struct Opening {
    dir: PathBuf,
    bounds: Bounds,
    store: Option<Store>,
    told: bool,
    /// Of stores that were closed.
    notes: Notes,
    counts: StoreCounts,
}

impl Opening {
    fn new(dir: PathBuf, bounds: Bounds) -> Self {
        Self {
            dir,
            bounds,
            store: None,
            told: false,
            notes: Notes::new(),
            counts: StoreCounts::default(),
        }
    }

    fn note(&self, store: &Store, stats: &Mutex<KeeperStats>) {
        let (files, bytes) = store.held();
        let mut stats = lock(stats);
        (stats.files, stats.bytes) = (files as u64, bytes);
        stats.evicted = self.counts.evicted + store.counts().evicted;
        stats.unfinished = self.counts.unfinished + store.counts().unfinished;
    }

    fn store(&mut self, stats: &Mutex<KeeperStats>) -> Result<&mut Store, StoreError> {
        let store = match self.store.take() {
            Some(store) => store,
            None => self.open()?,
        };
        self.note(&store, stats);
        Ok(self.store.insert(store))
    }

    fn open(&mut self) -> Result<Store, StoreError> {
        let store = Store::open(&self.dir, self.bounds, self.notes.clone());
        let store = store.inspect_err(|error| {
            if !self.told {
                tracing::warn!("captures cannot be kept, only told: {error}");
                self.told = true;
            }
        })?;
        self.notes.clear();
        for left in store.left() {
            tracing::warn!("hearth died before the capture of a kill was finished: {left}");
        }
        Ok(store)
    }

    /// Writes a note. Where it cannot, its capture says so that comes after it.
    fn write(&mut self, note: &Note, stats: &Mutex<KeeperStats>) {
        if let Err(error) = self.store(stats).and_then(|store| store.note(note)) {
            tracing::debug!("a kill is not noted: {error}");
        }
    }

    fn keep(
        &mut self,
        capture: &mut Capture,
        stats: &Mutex<KeeperStats>,
    ) -> Result<(), &'static str> {
        let kept = self.store(stats).and_then(|store| store.keep(capture));
        if let Some(store) = &self.store {
            self.note(store, stats);
        }
        if matches!(kept, Err(StoreError::Io { .. })) {
            // The directory may have been taken away: it is opened anew for the next one.
            if let Some(store) = self.store.take() {
                let (notes, counts) = store.close();
                self.notes = notes;
                self.counts.evicted += counts.evicted;
                self.counts.unfinished += counts.unfinished;
            }
        }
        kept.map_err(|error| {
            tracing::warn!("the capture {} is told and not kept: {error}", capture.id);
            *lock(stats).lost.entry(error.word()).or_default() += 1;
            error.word()
        })
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::observe::oom::samples;
    use crate::observe::oom::store::Captures;

    const BOUNDS: Bounds = Bounds {
        captures: 10,
        bytes: 1 << 20,
    };

    #[test]
    fn what_is_handed_over_is_kept_before_the_end() {
        let folder = TempDir::new().expect("a folder");
        let dir = folder.path().join("oom");
        let (mut keeper, mut out) = Keeper::start(dir.clone(), BOUNDS).expect("starts");
        for n in 0..3 {
            let mut capture = samples::whole();
            capture.killed.0 += n;
            keeper.note(samples::note(&capture));
            assert!(keeper.keep(capture, vec![]).is_none());
        }
        // One that is not followed by its capture.
        let mut bare = samples::bare();
        bare.killed.0 += 3;
        keeper.note(samples::note(&bare));
        keeper.finish();
        let names = std::fs::read_dir(&dir).expect("lists").count();
        assert_eq!(names, 3, "a note stays");
        let captures = Captures::open(&dir).expect("opens");
        for _ in 0..3 {
            let kept = out.try_recv().expect("kept");
            assert_eq!(kept.lost, None);
            // The sample's file is not on this node, and says so.
            let mapping = &kept.capture.mappings[0];
            assert!(mapping.path.why().is_some() && mapping.build_id.why().is_some());
            assert_eq!(
                captures.read(&kept.capture.id).expect("reads"),
                kept.capture
            );
        }
        assert_eq!(keeper.stats().files, 3);
        // After the end it is handed back.
        let refused = keeper.keep(samples::whole(), vec![]).expect("handed back");
        assert_eq!(refused.lost, Some("queue_full"));
    }

    #[test]
    fn a_capture_that_cannot_be_kept_comes_back_with_the_reason() {
        let folder = TempDir::new().expect("a folder");
        let dir = folder.path().join("oom");
        std::os::unix::fs::symlink("/tmp", &dir).expect("a link");
        let (mut keeper, mut out) = Keeper::start(dir.clone(), BOUNDS).expect("starts");
        assert!(keeper.keep(samples::whole(), vec![]).is_none());
        let kept = out.blocking_recv().expect("told");
        assert_eq!(kept.lost, Some("unsafe_directory"));
        assert_eq!(keeper.stats().lost["unsafe_directory"], 1);
        // What was wrong is put right, and the next one is kept.
        std::fs::remove_file(&dir).expect("removed");
        assert!(keeper.keep(samples::whole(), vec![]).is_none());
        keeper.finish();
        assert_eq!(out.blocking_recv().expect("told").lost, None);
    }
}
