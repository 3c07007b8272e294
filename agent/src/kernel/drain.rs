//! The drain thread: rings to queue.
//!
//! Probes do not wake the reader (a wake-up costs more than the record), so that it comes by
//! itself every few milliseconds, and earlier only when much is waiting.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use hearth_abi::Kind;
use ringbuf::{
    HeapCons, HeapProd, HeapRb,
    traits::{Consumer, Observer, Producer, Split},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::Notify;

use super::{event::Event, program_log::ProgramLog};

/// How long the reader sleeps between two looks.
pub const TICK: Duration = Duration::from_millis(10);

/// Events that wait for the async side: about 3 MiB, touched only in a storm.
const QUEUE: usize = 8192;

/// Rare records that wait beside them, so that no storm of the others takes their place: those of
/// a kill of 1,000 threads.
const RARE: usize = 4096;

/// What went through the drain.
#[derive(Debug, Default)]
struct Counts {
    decoded: AtomicU64,
    undecodable: AtomicU64,
    dropped: AtomicU64,
}

/// The same, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainCounts {
    /// Records read from the ring and decoded.
    pub decoded: u64,
    /// Records that were not ours to decode.
    pub undecodable: u64,
    /// Events lost because the queue was full.
    pub dropped: u64,
}

/// Handle on the thread; it ends when this is dropped.
#[derive(Debug)]
pub struct Drain {
    counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The reading end.
pub struct Events {
    queue: HeapCons<Event>,
    rare: HeapCons<Event>,
    arrived: Arc<Notify>,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    /// Waits until there is an event, then moves all that wait to `out`.
    pub async fn next_batch(&mut self, out: &mut Vec<Event>) {
        loop {
            self.take(out);
            if !out.is_empty() {
                return;
            }
            self.arrived.notified().await;
        }
    }

    /// Moves all that wait to `out`.
    pub fn take(&mut self, out: &mut Vec<Event>) {
        out.extend(self.queue.pop_iter());
        // Behind the others: what a kill refers to was told before it.
        out.extend(self.rare.pop_iter());
    }
}

impl Drain {
    /// Starts the thread.
    pub fn start(
        rings: [RingBuf<MapData>; 2],
        log: Option<ProgramLog>,
    ) -> std::io::Result<(Self, Events)> {
        let (producer, queue) = HeapRb::new(QUEUE).split();
        let (rare_producer, rare) = HeapRb::new(RARE).split();
        let queues = Queues {
            queue: producer,
            rare: rare_producer,
        };
        let counts = Arc::new(Counts::default());
        let stop = Arc::new(AtomicBool::new(false));
        let arrived = Arc::new(Notify::new());
        let thread = std::thread::Builder::new()
            .name("hearth-drain".to_owned())
            .spawn({
                let (counts, stop, arrived) = (counts.clone(), stop.clone(), arrived.clone());
                move || run(rings, log, queues, &counts, &stop, &arrived)
            })?;
        Ok((
            Self {
                counts,
                stop,
                thread: Some(thread),
            },
            Events {
                queue,
                rare,
                arrived,
            },
        ))
    }

    /// What went through so far.
    #[must_use]
    pub fn counts(&self) -> DrainCounts {
        DrainCounts {
            decoded: self.counts.decoded.load(Ordering::Relaxed),
            undecodable: self.counts.undecodable.load(Ordering::Relaxed),
            dropped: self.counts.dropped.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(
    mut rings: [RingBuf<MapData>; 2],
    mut log: Option<ProgramLog>,
    mut queues: Queues,
    counts: &Counts,
    stop: &AtomicBool,
    arrived: &Notify,
) {
    // It reads what is mapped already, which takes no capability.
    if let Err(error) = crate::privilege::keep_only(&[], &[]) {
        tracing::warn!("the drain thread keeps its capabilities: {error}");
    }
    let tick = Timespec {
        tv_sec: 0,
        tv_nsec: i64::from(TICK.subsec_nanos()),
    };
    while !stop.load(Ordering::Relaxed) {
        let mut any = false;
        for ring in &mut rings {
            any |= empty(ring, &mut queues, counts);
        }
        if any {
            arrived.notify_one();
        }
        if let Some(log) = &mut log {
            log.flush();
        }
        let mut fds = rings
            .each_ref()
            .map(|ring| PollFd::new(ring, PollFlags::IN));
        // Interrupted or not: look again.
        let _ = poll(&mut fds, Some(&tick));
    }
}

/// The writing ends.
struct Queues {
    queue: HeapProd<Event>,
    rare: HeapProd<Event>,
}

impl Queues {
    /// Hands the event back where its queue is full.
    #[expect(
        clippy::result_large_err,
        reason = "it goes nowhere but to the counter"
    )]
    fn push(&mut self, event: Event) -> Result<(), Event> {
        match event {
            Event::Oom(_) => self.rare.try_push(event),
            // Thousands of parts, names and waits a second must not take the place of the
            // boundaries that they belong to.
            Event::Mark(Kind::Part, _) | Event::Text(..) | Event::LockWait(_)
                if self.queue.vacant_len() < QUEUE / 4 =>
            {
                Err(event)
            }
            _ => self.queue.try_push(event),
        }
    }
}

/// Moves all that waits in `ring` to its queue; whether there was anything.
fn empty(ring: &mut RingBuf<MapData>, queues: &mut Queues, counts: &Counts) -> bool {
    let mut any = false;
    while let Some(record) = ring.next() {
        match Event::decode(&record) {
            Ok(event) => {
                counts.decoded.fetch_add(1, Ordering::Relaxed);
                if queues.push(event).is_err() {
                    counts.dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
            Err(error) => {
                if counts.undecodable.fetch_add(1, Ordering::Relaxed) == 0 {
                    tracing::error!(%error, "the kernel side and this binary do not match");
                }
            }
        }
        any = true;
    }
    any
}
