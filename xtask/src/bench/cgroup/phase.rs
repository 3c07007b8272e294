//! One measurement: all threads at once, each operation timed.

use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use anyhow::{Result, anyhow};

/// How long each operation took, in microseconds.
pub(super) struct Times(pub(super) Vec<f64>);

/// Lets each of these do its operations in a thread of its own; they begin together.
pub(super) fn run<W>(works: impl IntoIterator<Item = W>, turns: usize) -> Result<Times>
where
    W: FnMut(usize) -> Result<()> + Send,
{
    let works: Vec<_> = works.into_iter().collect();
    let together = Barrier::new(works.len());
    let mut times = Vec::new();
    thread::scope(|scope| {
        let start = |mut work: W| {
            let together = &together;
            scope.spawn(move || -> Result<Vec<f64>> {
                together.wait();
                let mut times = Vec::with_capacity(turns);
                for turn in 0..turns {
                    let begin = Instant::now();
                    work(turn)?;
                    times.push(begin.elapsed().as_secs_f64() * 1e6);
                }
                Ok(times)
            })
        };
        let threads: Vec<_> = works.into_iter().map(start).collect();
        for thread in threads {
            let done = thread.join().map_err(|_| anyhow!("a thread panicked"))?;
            times.extend(done?);
        }
        Ok(Times(times))
    })
}
