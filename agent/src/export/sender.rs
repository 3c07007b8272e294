//! Sends what waits, tries again while the collector is away, and counts what became of it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::Counter;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until, timeout};

use super::counted::{self, Counted};
use super::otlp::{Collector, SendError};
use super::reader::{Reader, points};
use super::record::Record;
use super::spool::{Items, Spool};
use crate::config::{Endpoint, Otlp, Signal};

/// Bounds of one request: records, and their bytes in memory (collectors refuse more than
/// 4 MiB by default).
const BATCH: usize = 64;
const BATCH_BYTES: u64 = 1 << 20;
/// How long records wait for company.
const GATHER: Duration = Duration::from_millis(500);
/// First and longest pause between two tries.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How often an absence is logged.
const REMIND: Duration = Duration::from_mins(1);

/// Where records wait for the sender.
#[derive(Clone, Debug)]
pub(super) struct Outbox {
    spool: Arc<Mutex<Spool>>,
    came: Arc<Notify>,
}

impl Outbox {
    /// An outbox over `spool`.
    #[must_use]
    pub(super) fn new(spool: Spool) -> Self {
        Self {
            spool: Arc::new(Mutex::new(spool)),
            came: Arc::new(Notify::new()),
        }
    }

    /// Lets `record` wait.
    pub(super) fn push(&self, record: Record) {
        self.with(|spool| spool.push(record));
        self.came.notify_one();
    }

    fn with<T>(&self, act: impl FnOnce(&mut Spool) -> T) -> T {
        act(&mut self.spool.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The one task that talks to the collector.
#[derive(Debug)]
pub(super) struct Sender {
    collector: Collector,
    endpoint: Endpoint,
    signals: Vec<Signal>,
    interval: Duration,
    outbox: Outbox,
    reader: Reader,
    counted: Counted,
    items: Counter<u64>,
    /// Taken from the spool; those before `sent` are sent.
    hand: Vec<Record>,
    sent: usize,
    /// Whether the spans of the next request are sent and only its log records are not.
    spans_sent: bool,
    absence: Option<Absence>,
    next_try: Instant,
}

/// The collector is away.
#[derive(Debug)]
struct Absence {
    since: Instant,
    said: Instant,
    pause: Duration,
}

impl Sender {
    /// Sends what comes into `outbox`, and what `reader` and `counted` read, to `collector`.
    #[must_use]
    pub(super) fn new(
        collector: Collector,
        endpoint: Endpoint,
        otlp: &Otlp,
        outbox: Outbox,
        (reader, counted): (Reader, Counted),
        items: Counter<u64>,
    ) -> Self {
        Self {
            collector,
            endpoint,
            signals: otlp.signals.clone(),
            interval: otlp.interval.0,
            outbox,
            reader,
            counted,
            items,
            hand: Vec::new(),
            sent: 0,
            spans_sent: false,
            absence: None,
            next_try: Instant::now(),
        }
    }

    /// Sends until told to stop, and then for at most as long as it was told.
    pub(super) async fn run(mut self, mut stop: oneshot::Receiver<Duration>) {
        let mut tick = interval(self.interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // A request that is cut off by the stop is sent again by the flush: its spans have
        // the same ids.
        let patience = loop {
            tokio::select! {
                biased;
                patience = &mut stop => break patience.unwrap_or_default(),
                () = self.step(&mut tick) => {}
            }
        };
        if timeout(patience, self.flush()).await.is_err() {
            tracing::warn!(
                "the collector {} did not take everything in time",
                self.endpoint
            );
        }
        self.close();
    }

    async fn step(&mut self, tick: &mut Interval) {
        tokio::select! {
            _ = tick.tick() => self.send_metrics().await,
            () = Self::due(&self.outbox, &mut self.next_try, self.hand.is_empty()) => {
                self.send_records().await;
            }
        }
    }

    /// Waits until there is something to send and it is time to.
    async fn due(outbox: &Outbox, next_try: &mut Instant, hand_is_empty: bool) {
        while hand_is_empty && outbox.with(|spool| spool.is_empty()) {
            outbox.came.notified().await;
            *next_try = (*next_try).max(Instant::now() + GATHER);
        }
        sleep_until(*next_try).await;
    }

    async fn flush(&mut self) {
        self.absence = None;
        self.send_metrics().await;
        while self.absence.is_none()
            && !(self.hand.is_empty() && self.outbox.with(|spool| spool.is_empty()))
        {
            self.send_records().await;
        }
    }

    fn close(self) {
        let unsent = self.hand.get(self.sent..).unwrap_or_default();
        let lost = self.outbox.with(|spool| spool.close(unsent));
        if lost.records > 0 {
            tracing::warn!(
                "{} records were not sent to {} and are lost; name a directory in \
                 otlp.spool.dir to keep them for the next run",
                lost.records,
                self.endpoint
            );
        }
    }

    async fn send_metrics(&mut self) {
        if !self.signals.contains(&Signal::Metrics) {
            return;
        }
        let Some(metrics) = self.reader.read() else {
            return;
        };
        let counted = self.counted.metrics(now_unix_ns());
        let points = points(&metrics) + counted::points(&counted);
        let outcome = match self.collector.send_metrics(&metrics, counted).await {
            Ok(()) => {
                self.is_there();
                "sent"
            }
            // Metrics are cumulative: the next ones hold what these held.
            Err(SendError::Away(reason)) => {
                self.is_away(&reason);
                "missed"
            }
            Err(SendError::Refused(reason)) => {
                self.is_refusing(Signal::Metrics, &reason);
                "refused"
            }
        };
        self.count(Signal::Metrics, outcome, points);
    }

    async fn send_records(&mut self) {
        if self.hand.is_empty() {
            self.hand = self.outbox.with(|spool| spool.take(BATCH));
        }
        let evicted = self.outbox.with(Spool::evicted);
        self.count_items("evicted", evicted);
        let end = batch_end(&self.hand, self.sent);
        let Items { records, spans } = Items::of(&self.hand[self.sent..end]);
        for (signal, items) in [(Signal::Traces, spans), (Signal::Logs, records)] {
            let is_sent = signal == Signal::Traces && self.spans_sent;
            // A kill's record has no spans.
            if is_sent || items == 0 || !self.signals.contains(&signal) {
                continue;
            }
            let batch = &self.hand[self.sent..end];
            let answer = match signal {
                Signal::Traces => self.collector.send_spans(batch).await,
                Signal::Logs | Signal::Metrics => self.collector.send_logs(batch).await,
            };
            match answer {
                Ok(()) => self.count(signal, "sent", items),
                Err(SendError::Away(reason)) => return self.is_away(&reason),
                Err(SendError::Refused(reason)) => {
                    self.is_refusing(signal, &reason);
                    self.count(signal, "refused", items);
                }
            }
            self.spans_sent = true;
        }
        self.is_there();
        self.spans_sent = false;
        self.sent = end;
        if self.sent == self.hand.len() {
            self.hand.clear();
            self.sent = 0;
            self.outbox.with(Spool::done);
        }
    }

    fn is_there(&mut self) {
        if let Some(absence) = self.absence.take() {
            let away = absence.since.elapsed();
            tracing::info!(
                "the collector {} answers again, after {away:.0?}",
                self.endpoint
            );
        }
    }

    fn is_away(&mut self, reason: &str) {
        let now = Instant::now();
        let absence = self.absence.get_or_insert(Absence {
            since: now,
            said: now.checked_sub(REMIND).unwrap_or(now),
            pause: PAUSE,
        });
        // Many agents lose the same collector at the same moment.
        let jitter = absence
            .pause
            .mul_f64(f64::from(now_subsecond_nanos()) / 4e9);
        self.next_try = now + absence.pause + jitter;
        absence.pause = (absence.pause * 2).min(LONGEST_PAUSE);
        if now.duration_since(absence.said) >= REMIND || absence.since == now {
            absence.said = now;
            let (in_memory, on_disk) = self.outbox.with(|spool| spool.waiting());
            tracing::warn!(
                "the collector {} does not answer ({reason}); hearth goes on observing and tries \
                 again; {} records wait in memory and {on_disk} bytes on disk",
                self.endpoint,
                in_memory + self.hand.len() - self.sent,
            );
        }
    }

    fn is_refusing(&self, signal: Signal, reason: &str) {
        tracing::warn!(
            "the collector {} refuses {} ({reason}); check otlp.headers and otlp.protocol, or \
             take \"{}\" out of otlp.signals",
            self.endpoint,
            signal.as_str(),
            signal.as_str()
        );
    }

    fn count_items(&self, outcome: &'static str, items: Items) {
        self.count(Signal::Traces, outcome, items.spans);
        self.count(Signal::Logs, outcome, items.records);
    }

    fn count(&self, signal: Signal, outcome: &'static str, items: u64) {
        if items > 0 && self.signals.contains(&signal) {
            let attributes = [
                KeyValue::new("signal", signal.as_str()),
                KeyValue::new("outcome", outcome),
            ];
            self.items.add(items, &attributes);
        }
    }
}

/// End of the next request, which begins at `sent`.
fn batch_end(hand: &[Record], sent: usize) -> usize {
    let mut bytes = 0;
    let fits = hand.iter().skip(sent).take(BATCH).take_while(|record| {
        bytes += record.weight();
        bytes <= BATCH_BYTES
    });
    // One that is too large by itself goes alone.
    (sent + fits.count().max(1)).min(hand.len())
}

fn now_unix_ns() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}

fn now_subsecond_nanos() -> u32 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| since.subsec_nanos())
}
