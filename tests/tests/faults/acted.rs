//! What functions did, by what they wrote when they did it.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, anyhow};
use hearth_tests::child::Guard;
use hearth_tests::load::{End, Request};
use hearth_tests::serving::Serving;

/// How often each nonce was acted on. What a function wrote is lost where nobody reads it any more,
/// so it is a number of times at least.
#[derive(Default)]
pub(crate) struct Acted {
    times: Arc<Mutex<BTreeMap<String, u32>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Acted {
    /// Reads what a function writes, as long as this agent runs.
    pub(crate) fn read(&mut self, serving: &Serving, function: &str) -> Result<()> {
        let mut command = serving.command(&["logs", function, "--follow"])?;
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut child = Guard(child);
        let from = child.0.stdout.take().context("standard output")?;
        let times = Arc::clone(&self.times);
        self.readers.push(thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                if let Some((_, nonce)) = line.split_once("acted ") {
                    let nonce = nonce.trim().trim_matches('"').to_owned();
                    let mut times = times.lock().unwrap_or_else(PoisonError::into_inner);
                    *times.entry(nonce).or_default() += 1;
                }
            }
            // It has ended where its output has.
            drop(child);
        }));
        Ok(())
    }

    /// All of it, by nonce. Every reader must have come to its end: the functions are gone.
    pub(crate) fn times(self) -> Result<BTreeMap<String, u32>> {
        for reader in self.readers {
            reader.join().map_err(|_| anyhow!("a reader panicked"))?;
        }
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::take(&mut times))
    }
}

/// What should not have been done, or not twice.
pub(crate) fn wrong(done: &BTreeMap<String, u32>, requests: &[Request]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for request in requests {
        let times = done.get(&request.nonce).copied().unwrap_or(0);
        seen += times;
        if !request.idempotent && times > 1 {
            wrong.push(format!("done {times} times: {request:?}"));
        }
        if matches!(request.end, End::Refused(_)) && !request.idempotent && times > 0 {
            wrong.push(format!("refused, and done: {request:?}"));
        }
    }
    if seen == 0 {
        wrong.push("no function was seen to do anything".to_owned());
    }
    wrong
}
