//! All policies, on all processors, with a word on how far it is when it takes long.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use hearth_runtime::pool::simulate::{Clairvoyant, Options, Report, Trace, run};

/// When the first word is due.
const SILENT: Duration = Duration::from_secs(1);
/// And then the next ones.
const AGAIN: Duration = Duration::from_millis(200);

/// What came of each, in the order in which they are given.
pub(super) fn simulate(
    trace: &Trace,
    options: &[Options],
    clairvoyant: &Clairvoyant,
) -> anyhow::Result<Vec<Report>> {
    let next = AtomicUsize::new(0);
    let requests = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    let work = |sender: mpsc::Sender<(usize, Report)>| {
        loop {
            let nth = next.fetch_add(1, Ordering::Relaxed);
            let Some(options) = options.get(nth) else {
                return;
            };
            let mut told = 0;
            let report = run(trace, options, clairvoyant, &mut |done| {
                requests.fetch_add(done - told, Ordering::Relaxed);
                told = done;
            });
            requests.fetch_add(trace.arrivals().len() - told, Ordering::Relaxed);
            // Nobody waits for it any more only where another one panicked.
            let _ = sender.send((nth, report));
        }
    };
    let whole = trace.arrivals().len() * options.len();
    let mut reports: Vec<Option<Report>> = vec![None; options.len()];
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        for _ in 0..threads.min(options.len()) {
            let sender = sender.clone();
            scope.spawn(|| work(sender));
        }
        drop(sender);
        let mut progress = Progress::new();
        loop {
            match receiver.recv_timeout(AGAIN) {
                Ok((nth, report)) => {
                    if let Some(place) = reports.get_mut(nth) {
                        *place = Some(report);
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
            progress.tell(requests.load(Ordering::Relaxed), whole);
        }
    });
    let reports: Option<Vec<Report>> = reports.into_iter().collect();
    reports.ok_or_else(|| anyhow::anyhow!("a simulation panicked"))
}

/// A line on the terminal that is gone in the end.
struct Progress {
    began: Instant,
    is_terminal: bool,
    told: bool,
}

impl Progress {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            is_terminal: io::stderr().is_terminal(),
            told: false,
        }
    }

    fn tell(&mut self, done: usize, whole: usize) {
        if !self.is_terminal || self.began.elapsed() < SILENT {
            return;
        }
        self.told = true;
        let percent = done * 100 / whole.max(1);
        let mut stderr = io::stderr();
        // Who cannot be told does without.
        let _ = write!(stderr, "\r\u{1b}[Ksimulating: {percent} %");
        let _ = stderr.flush();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.told {
            let _ = write!(io::stderr(), "\r\u{1b}[K");
        }
    }
}
