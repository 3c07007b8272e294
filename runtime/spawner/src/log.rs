//! Lines on standard error, in plain words; not more than a person reads.

use std::cell::Cell;
use std::fmt;
use std::io::Write as _;
use std::time::{Duration, Instant};

/// Lines in one [`WINDOW`]; what would be more is counted.
const MOST: u32 = 40;
const WINDOW: Duration = Duration::from_secs(10);

thread_local! {
    static WRITTEN: Cell<Option<(Instant, u32)>> = const { Cell::new(None) };
}

/// Writes one.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    let now = Instant::now();
    let (since, written) = WRITTEN.get().unwrap_or((now, 0));
    let is_over = now.duration_since(since) > WINDOW;
    if is_over && written > MOST {
        write(format_args!("{} more lines were left out", written - MOST));
    }
    let (since, written) = if is_over { (now, 0) } else { (since, written) };
    WRITTEN.set(Some((since, written.saturating_add(1))));
    if written < MOST {
        write(text);
    }
}

fn write(text: fmt::Arguments<'_>) {
    // One call, so that lines of parked ones do not come between; and nobody may be reading.
    let text = format!("hearth-spawner: {text}\n");
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Writes one, as `format!` makes it.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::log::line(format_args!($($text)*))
    };
}
pub(crate) use say;
