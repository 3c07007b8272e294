//! `AzureFunctionsInvocationTraceForTwoWeeksJan2021.txt`: one request a line, with when it ended and
//! how long it took, in seconds. It tells neither memory nor starts.

use std::collections::HashMap;
use std::io::BufRead;
use std::path::Path;
use std::time::Duration;

use super::super::Moment;
use super::lines::{Lines, ReadError};
use super::reading::Reading;
use super::trace::{Builder, Function, Trace};

/// Reads it; `file` is what errors call it.
pub fn read(file: &Path, reader: impl BufRead, reading: &Reading) -> Result<Trace, ReadError> {
    let mut lines = Lines::new(file, reader);
    let mut builder = Builder::new(reading.requests);
    let mut functions: HashMap<(String, String), u32> = HashMap::new();
    let mut end = Moment::default();
    let Some(head) = lines.next()? else {
        return Ok(builder.finish(end));
    };
    let columns = head.columns(["app", "func", "end_timestamp", "duration"])?;
    while let Some(line) = lines.next()? {
        if line.text.is_empty() {
            continue;
        }
        let [app, name, ended, took] = line.values(&columns)?;
        if !reading.takes(app) {
            continue;
        }
        let ended = line.number("end_timestamp", ended)?;
        let took = line.number("duration", took)?;
        let function = *functions
            .entry((app.to_owned(), name.to_owned()))
            .or_insert_with(|| {
                builder.function(Function {
                    name: name.to_owned(),
                    app: app.to_owned(),
                    trigger: None,
                    memory_bytes: reading.memory_bytes,
                    start: reading.start,
                })
            });
        // What began before the trace did comes with its begin.
        let at = Moment(Duration::from_secs_f64((ended - took).max(0.0)));
        end = end.max(Moment(Duration::from_secs_f64(ended)));
        builder
            .arrive(function, at, Duration::from_secs_f64(took))
            .map_err(|error| line.too_many(error))?;
    }
    Ok(builder.finish(end))
}
