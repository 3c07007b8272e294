//! A load of nothing but starts: as many processes as this machine can start and end.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// Starts per second over this time, on all processors at once.
///
/// Each processor's loop starts a program (by `posix_spawn`, as `std` does) and waits for its end.
pub(crate) fn throughput(program: &Path, time: Duration) -> Result<f64> {
    let loops = thread::available_parallelism()
        .context("how many processors")?
        .get();
    thread::scope(|scope| {
        let running: Vec<_> = (0..loops)
            .map(|_| scope.spawn(|| one(program, time)))
            .collect();
        let mut rate = 0.0;
        for one in running {
            rate += one
                .join()
                .map_err(|_| anyhow::anyhow!("a spawn loop panicked"))??;
        }
        Ok(rate)
    })
}

fn one(program: &Path, time: Duration) -> Result<f64> {
    let mut command = Command::new(program);
    command
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let begin = Instant::now();
    let mut count = 0_u32;
    while begin.elapsed() < time {
        let status = command
            .status()
            .with_context(|| format!("start {}", program.display()))?;
        ensure!(
            status.success(),
            "{} ended with {status}",
            program.display()
        );
        count += 1;
    }
    Ok(f64::from(count) / begin.elapsed().as_secs_f64())
}
