//! A day of the Azure Functions trace of 2019: `invocations_per_function_md.anon.dNN.csv` counts
//! requests by function and minute; the two files beside it have how long they took, in ms, and how
//! much memory apps had, in MB. It does not tell how long starts take.

use std::collections::HashMap;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::Moment;
use super::draw::Draw;
use super::lines::{Lines, ReadError};
use super::reading::{Reading, open};
use super::trace::{Builder, Function, Trace, Trigger};

/// What the names of the three files begin with.
const INVOCATIONS: &str = "invocations_per_function_md";
const DURATIONS: &str = "function_durations_percentiles";
const MEMORY: &str = "app_memory_percentiles";
/// Minutes of a day, each with a column.
const MINUTES: u64 = 1440;
const MINUTE: f64 = 60.0;
/// A MB of the trace, which is about allocated memory and says no more of it.
const MB: f64 = 1_048_576.0;

/// Times at work of a function, as the trace has them: at these shares of its requests.
const SHARES: [f64; 7] = [0.0, 0.01, 0.25, 0.5, 0.75, 0.99, 1.0];
type Quantiles = [f64; 7];

/// How long requests took, by owner, app and function, and how much memory apps had.
#[derive(Debug, Default)]
pub struct Beside {
    durations: HashMap<String, Quantiles>,
    memory: HashMap<String, f64>,
}

/// Reads a day with what is beside it, and says what is not.
pub(super) fn read(file: &Path, reading: &Reading) -> Result<(Trace, Vec<String>), ReadError> {
    let mut beside = Beside::default();
    let mut missing = Vec::new();
    let sibling = |kind: &str| -> Option<PathBuf> {
        let name = file.file_name()?.to_str()?;
        let day = name.strip_prefix(INVOCATIONS)?;
        let sibling = file.with_file_name(format!("{kind}{day}"));
        sibling.exists().then_some(sibling)
    };
    match sibling(DURATIONS) {
        Some(path) => beside.durations(&path, open(&path)?)?,
        None => missing.push(format!(
            "there is no {DURATIONS} beside {}: every request takes {:?}",
            file.display(),
            reading.work
        )),
    }
    match sibling(MEMORY) {
        Some(path) => beside.memory(&path, open(&path)?)?,
        None => missing.push(format!(
            "there is no {MEMORY} beside {}: every instance takes {} MiB",
            file.display(),
            reading.memory_bytes >> 20
        )),
    }
    let trace = beside.invocations(file, open(file)?, reading)?;
    Ok((trace, missing))
}

impl Beside {
    /// Reads how long requests took.
    pub fn durations(&mut self, file: &Path, reader: impl BufRead) -> Result<(), ReadError> {
        let mut lines = Lines::new(file, reader);
        let Some(head) = lines.next()? else {
            return Ok(());
        };
        let columns = head.columns([
            "HashOwner",
            "HashApp",
            "HashFunction",
            "percentile_Average_0",
            "percentile_Average_1",
            "percentile_Average_25",
            "percentile_Average_50",
            "percentile_Average_75",
            "percentile_Average_99",
            "percentile_Average_100",
        ])?;
        while let Some(line) = lines.next()? {
            if line.text.is_empty() {
                continue;
            }
            let [owner, app, function, times @ ..] = line.values(&columns)?;
            let mut quantiles = [0.0; 7];
            let names = columns.names.iter().skip(3);
            for ((quantile, time), name) in quantiles.iter_mut().zip(times).zip(names) {
                *quantile = line.number(name, time)?;
            }
            self.durations
                .insert(format!("{owner},{app},{function}"), quantiles);
        }
        Ok(())
    }

    /// Reads how much memory apps had.
    pub fn memory(&mut self, file: &Path, reader: impl BufRead) -> Result<(), ReadError> {
        let mut lines = Lines::new(file, reader);
        let Some(head) = lines.next()? else {
            return Ok(());
        };
        let columns = head.columns(["HashOwner", "HashApp", "AverageAllocatedMb"])?;
        while let Some(line) = lines.next()? {
            if line.text.is_empty() {
                continue;
            }
            let [owner, app, megabytes] = line.values(&columns)?;
            let megabytes = line.number("AverageAllocatedMb", megabytes)?;
            self.memory.insert(format!("{owner},{app}"), megabytes);
        }
        Ok(())
    }

    /// Reads the requests.
    ///
    /// Those of a minute are spread evenly in it, from a point that is the function's own: what
    /// comes once an hour does so to the second, and not all functions come at once.
    pub fn invocations(
        &self,
        file: &Path,
        reader: impl BufRead,
        reading: &Reading,
    ) -> Result<Trace, ReadError> {
        let mut lines = Lines::new(file, reader);
        let mut builder = Builder::new(reading.requests);
        let end = Moment(Duration::from_mins(MINUTES));
        let Some(head) = lines.next()? else {
            return Ok(builder.finish(end));
        };
        let columns = head.columns(["HashOwner", "HashApp", "HashFunction", "Trigger", "1"])?;
        let skipped = head.text.split(',').take_while(|name| *name != "1").count();
        while let Some(line) = lines.next()? {
            if line.text.is_empty() {
                continue;
            }
            let [owner, app, name, trigger, _] = line.values(&columns)?;
            let app = format!("{owner},{app}");
            if !reading.takes(&app) {
                continue;
            }
            let whole = format!("{app},{name}");
            let quantiles = self.durations.get(&whole);
            let mut draw = Draw::new(crc32fast::hash(whole.as_bytes()).into());
            let phase = draw.unit();
            let function = builder.function(Function {
                name: name.to_owned(),
                trigger: Trigger::ALL.into_iter().find(|one| one.word() == trigger),
                memory_bytes: self.memory.get(&app).map_or(reading.memory_bytes, |mb| {
                    #[expect(
                        clippy::cast_possible_truncation,
                        clippy::cast_sign_loss,
                        reason = "whole bytes, and a negative number was refused"
                    )]
                    let bytes = (mb * MB) as u64;
                    bytes.max(1)
                }),
                app,
                start: reading.start,
            });
            for (minute, count) in (1_u64..=MINUTES).zip(line.text.split(',').skip(skipped)) {
                let count = count.trim();
                if count == "0" {
                    continue;
                }
                let count: u32 = count.parse().map_err(|_| {
                    line.wrong_value(&minute.to_string(), count, "a count, such as 0")
                })?;
                let begin = Duration::from_mins(minute - 1);
                for nth in 0..count {
                    let second = (f64::from(nth) + phase) / f64::from(count) * MINUTE;
                    let at = Moment(begin + Duration::from_secs_f64(second));
                    let work = quantiles.map_or(reading.work, |times| work(times, draw.unit()));
                    builder
                        .arrive(function, at, work)
                        .map_err(|error| line.too_many(error))?;
                }
            }
        }
        Ok(builder.finish(end))
    }
}

/// The time that so large a share of requests does not exceed, in a straight line between those that
/// are known.
fn work(quantiles: &Quantiles, share: f64) -> Duration {
    let known = SHARES.into_iter().zip(quantiles.iter().copied());
    let after = known.clone().skip(1);
    let between = known.zip(after).find(|(_, (to, _))| share <= *to);
    let millis = between.map_or(0.0, |((from, low), (to, high))| {
        low + (high - low) * ((share - from) / (to - from))
    });
    Duration::from_secs_f64(millis.max(0.0) / 1000.0)
}
