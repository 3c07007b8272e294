//! `hearth compare-locks`: how well each way to measure holds of cgroup locks does so on this
//! kernel. Hidden: it is for the documents, the tests and those who doubt.

use std::time::Duration;

use clap::Args;
use hearth_abi::{Lock, LockWay, Operation};
use serde::Serialize;

use crate::kernel::cgroup_lock::{Compared, Comparison, LockCounts, Times};
use crate::observe::cgroup_lock::{Summary, merged};

/// Measure the holds of cgroup locks in every way that this kernel has, all at once.
///
/// Somebody else must contend for them meanwhile. Prints one JSON object for each way, lock and
/// operation, and one for each way that is not to be had. The reference makes every mutex of the
/// kernel slower as long as it is attached.
#[derive(Debug, Args)]
pub struct CompareLocks {
    /// How long, in seconds.
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 5)]
    seconds: u64,
}

/// One line.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Line<'a> {
    Refused {
        way: &'static str,
        refused: &'a str,
    },
    Measured {
        way: &'static str,
        lock: &'static str,
        /// Absent of all operations together.
        operation: Option<&'static str>,
        wait: Option<Summary>,
        hold: Option<Summary>,
    },
}

impl CompareLocks {
    /// Runs it.
    pub fn run(&self) -> anyhow::Result<()> {
        let comparison = Comparison::start()?;
        eprintln!("every way is attached");
        std::thread::sleep(Duration::from_secs(self.seconds));
        for Compared { way, counts } in comparison.read()? {
            match counts {
                Err(reason) => print(&Line::Refused {
                    way: way.name(),
                    refused: &reason,
                })?,
                Ok(counts) => of_way(way, &counts)?,
            }
        }
        Ok(())
    }
}

fn of_way(way: LockWay, counts: &[LockCounts]) -> anyhow::Result<()> {
    for lock in Lock::ALL {
        let mut whole = (Times::NONE, Times::NONE);
        let rows: Vec<_> = counts.iter().filter(|row| row.lock == lock).collect();
        for row in &rows {
            whole.0 = merged(&whole.0, &row.wait);
            whole.1 = merged(&whole.1, &row.hold);
            print(&measured(
                way,
                lock,
                Some(row.operation),
                &row.wait,
                &row.hold,
            ))?;
        }
        if !rows.is_empty() {
            print(&measured(way, lock, None, &whole.0, &whole.1))?;
        }
    }
    Ok(())
}

fn measured(
    way: LockWay,
    lock: Lock,
    operation: Option<Operation>,
    wait: &Times,
    hold: &Times,
) -> Line<'static> {
    Line::Measured {
        way: way.name(),
        lock: lock.name(),
        operation: operation.map(Operation::name),
        wait: Summary::of(wait),
        hold: Summary::of(hold),
    }
}

fn print(line: &Line<'_>) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(line)?);
    Ok(())
}
