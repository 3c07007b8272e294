//! `hearth locks`: who waits for the kernel's cgroup locks, for how long, and because of whom?

mod screen;
mod table;
mod watcher;

use std::io::{self, Write as _};
use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};

use super::interruption::Interruption;
use super::terminal::Terminal;
use super::trace::is_broken_pipe;
use crate::config::Period;
use crate::observe::cgroup_lock::LockReport;
use crate::time::Nanos;
use screen::Screen;
use watcher::Watcher;

/// How long `--once` watches where nothing else is said.
const ONCE: Duration = Duration::from_secs(10);

/// What `hearth locks --help` begins with.
pub(super) const HELP: &str = "\
Show who waits for the kernel's cgroup locks, for how long, and because of whom.

Making, configuring, entering and removing a cgroup all take locks that the whole node shares,
chiefly cgroup_mutex; forks and exits take some of them too. A node that starts many containers
or functions at once waits for them. The table is by lock and by what was being done:

  waits   how often somebody had to wait, and how long (p50, p99, the longest)
  holds   how often somebody had the lock, and how long; `<=` marks upper bounds, where this
          kernel shows only that the lock changed hands, and only of contended holds

Below it: the cgroups whose tasks waited longest, and the worst waits one by one, with who had
the lock and where in the kernel the waiter stood. Percentiles are of those who had to wait, and
are ends of histogram buckets: never too low, at most half too high.

Read it from the top. `parent_directory` is no lock of cgroups: two that make directories in the
same one; give them parents of their own. `rcu` is no lock at all: an attach that waits for the
kernel's grace period; `favordynmods` spares it. For the others: fewer changes at once, fewer
hierarchies, fewer dying cgroups. `hearth doctor` says what this node could do.

It attaches nothing but these probes, and only while it runs. Where the kernel does not name the
address of cgroup_mutex, it finds it by making and removing cgroups of its own, for a tenth of a
second mostly and three seconds at most; else it changes nothing. Needs root, or CAP_BPF and CAP_PERFMON.";

/// Show who waits for the kernel's cgroup locks, for how long, and because of whom.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  hearth locks                       a table that is kept up to date, until Ctrl-C
  hearth locks --once                watch for 10 s, print it, end
  hearth locks --once --for 1min --worst 20
  hearth locks --once --json | jq '.worst[0]'
                                     the longest wait, who waited and who had the lock")]
pub struct Locks {
    /// Watch for 10 s (or as --for says), print the table once, and end.
    #[arg(long)]
    once: bool,
    /// End after this long.
    #[arg(long = "for", value_name = "TIME")]
    period: Option<Period>,
    /// How often the table is brought up to date.
    #[arg(long, value_name = "TIME", default_value = "1s")]
    interval: Period,
    /// Waits at least this long are recorded one by one, for the list of the worst.
    #[arg(long, value_name = "TIME", default_value = "1ms")]
    threshold: Period,
    /// How many of the worst waits are shown.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=100))]
    worst: u8,
    /// Print one JSON object at each interval (with --once: one), and nothing else; it counts from
    /// the beginning. docs/schema/locks.schema.json describes it.
    #[arg(long)]
    json: bool,
}

impl Locks {
    /// Does it.
    pub fn run(&self) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        match runtime.block_on(self.watch()) {
            // Whoever read our output has seen enough.
            Err(error) if is_broken_pipe(&error) => Ok(()),
            result => result,
        }
    }

    async fn watch(&self) -> anyhow::Result<()> {
        let threshold = Nanos(u64::try_from(self.threshold.0.as_nanos()).unwrap_or(u64::MAX));
        // Before anything is attached: what is made for a calibration goes in an orderly end.
        let mut interrupted = Interruption::new()?;
        let mut watcher = Watcher::start(threshold, self.worst.into())?;
        let period = self.period.map(|period| period.0);
        let end = period.or(self.once.then_some(ONCE));
        // A century is as good as no end.
        let end = Instant::now() + end.unwrap_or(Duration::from_hours(24 * 36_525));
        let mut tick = interval_at(Instant::now() + self.interval.0, self.interval.0);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut screen = (!self.once && !self.json).then(Screen::open).flatten();
        loop {
            tokio::select! {
                () = watcher.take_in() => {}
                _ = tick.tick(), if !self.once => {
                    let report = watcher.report()?;
                    match &mut screen {
                        Some(screen) => screen.show(&table::table(&report, &Terminal::stdout()))?,
                        None => self.print(&report)?,
                    }
                }
                () = sleep_until(end) => break,
                () = interrupted.arrived() => break,
            }
        }
        // The terminal is as it was before what stays is printed.
        drop(screen);
        self.print(&watcher.report()?)
    }

    fn print(&self, report: &LockReport) -> anyhow::Result<()> {
        let text = if self.json {
            serde_json::to_string(report)? + "\n"
        } else {
            table::table(report, &Terminal::stdout())
        };
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        Ok(stdout.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::schema::faults_of;
    use super::table::tests::report;

    const SCHEMA: &str = include_str!("../../../../docs/schema/locks.schema.json");

    #[test]
    fn whatever_is_printed_is_described() {
        let full = serde_json::to_value(report()).expect("JSON");
        assert_eq!(faults_of(SCHEMA, &full), Vec::<String>::new());
        let mut bare = report();
        bare.locks[0].wait = None;
        bare.locks[0].hold = None;
        bare.cgroups[0].path = None;
        bare.worst[0].holder = None;
        bare.worst[0].stack = None;
        bare.no_stacks = Some("hidden".into());
        let bare = serde_json::to_value(bare).expect("JSON");
        assert_eq!(faults_of(SCHEMA, &bare), Vec::<String>::new());
    }

    #[test]
    fn every_lock_and_operation_is_described() {
        for lock in hearth_abi::Lock::ALL {
            for operation in hearth_abi::Operation::ALL {
                let mut report = report();
                report.locks[0].lock = lock.name();
                report.worst[0].operation = operation.name();
                let json = serde_json::to_value(report).expect("JSON");
                assert_eq!(faults_of(SCHEMA, &json), Vec::<String>::new());
            }
        }
    }

    #[test]
    fn what_is_wrong_is_found() {
        let spoilt = |pointer: &str, value: serde_json::Value| {
            let mut json = serde_json::to_value(report()).expect("JSON");
            *json.pointer_mut(pointer).expect(pointer) = value;
            faults_of(SCHEMA, &json).len()
        };
        assert_eq!(spoilt("/locks/0/lock", "my_mutex".into()), 1);
        assert_eq!(spoilt("/locks/0/hold_exact", "yes".into()), 1);
        assert!(spoilt("/locks/0/wait/p99_ns", (-1).into()) >= 1);
        assert!(spoilt("/worst/0/waiter/pid", "1".into()) >= 1);
    }
}
