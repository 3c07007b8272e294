//! What the programs say in branches that should not happen, into the agent's own log.

use std::time::{Duration, Instant};

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Level, Log, Metadata, Record};

use std::sync::Mutex;

/// Lines told in each interval; a branch that is hot after all must not fill the disk.
const LINES: u32 = 10;
const INTERVAL: Duration = Duration::from_secs(10);

/// The programs' log; to be flushed again and again.
pub type ProgramLog = EbpfLogger<ToTracing>;

/// Opens it.
pub fn open(ebpf: &mut Ebpf) -> Result<ProgramLog, aya_log::Error> {
    EbpfLogger::init_with_logger(ebpf, ToTracing::default())
}

/// Hands lines on, so many and no more.
#[derive(Debug, Default)]
pub struct ToTracing {
    told: Mutex<Told>,
}

#[derive(Debug)]
struct Told {
    since: Instant,
    lines: u32,
    kept_back: u64,
}

impl Default for Told {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            lines: 0,
            kept_back: 0,
        }
    }
}

impl Told {
    /// How many lines were kept back before this one, if this one may be told.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if now.duration_since(self.since) >= INTERVAL {
            self.since = now;
            self.lines = 0;
        }
        if self.lines >= LINES {
            self.kept_back += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.kept_back))
    }
}

impl Log for ToTracing {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let Ok(mut told) = self.told.lock() else {
            return;
        };
        let Some(kept_back) = told.admit(Instant::now()) else {
            return;
        };
        let line = record.args();
        match record.level() {
            Level::Error | Level::Warn => {
                tracing::warn!(target: "hearth::programs", kept_back, "{line}");
            }
            _ => tracing::debug!(target: "hearth::programs", kept_back, "{line}"),
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted() {
        let mut told = Told::default();
        let now = told.since;
        let admitted = (0..100).filter(|_| told.admit(now).is_some()).count();
        assert_eq!(admitted, 10);
        assert_eq!(told.admit(now + INTERVAL), Some(90));
    }
}
