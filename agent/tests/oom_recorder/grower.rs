//! A program that takes memory at a rate that it knows: this test program, run again.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use hearth::time::Boottime;
use tempfile::TempDir;

use crate::cgroup::Cgroup;

/// What it is told, in its environment: bytes per second, bytes in all, the file to report to.
const ASKED: &str = "HEARTH_TEST_GROW";
/// How often it takes some.
const STEP: Duration = Duration::from_millis(20);

/// A program that grows in a cgroup; killed when dropped.
pub(crate) struct Grower {
    child: Child,
    folder: TempDir,
}

/// What it said of itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    pub(crate) pid: u32,
    /// Where its memory is.
    pub(crate) begin: u64,
    pub(crate) length: u64,
    first: Boottime,
    taken: u64,
    /// When it last said how much it had taken.
    pub(crate) last: Boottime,
}

impl Report {
    /// Bytes per second.
    pub(crate) fn rate(&self) -> f64 {
        crate::float(self.taken) / self.last.since(self.first).as_secs_f64()
    }
}

impl Grower {
    /// Starts one that takes `rate` bytes a second, up to `length`, and then waits.
    pub(crate) fn start(cgroup: &Cgroup, rate: u64, length: u64) -> Self {
        Self::adjusted(cgroup, rate, length, 0)
    }

    /// The same with an `oom_score_adj`.
    pub(crate) fn adjusted(cgroup: &Cgroup, rate: u64, length: u64, adj: i16) -> Self {
        let line = "echo $$ > \"$1\" && echo \"$2\" > /proc/self/oom_score_adj && \
                    exec \"$0\" --exact grow --nocapture";
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("report");
        let child = Command::new("/bin/sh")
            .args(["-c", line])
            .arg(std::env::current_exe().expect("own file"))
            .arg(cgroup.directory().join("cgroup.procs"))
            .arg(adj.to_string())
            .env(ASKED, format!("{rate} {length} {}", file.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("a program");
        let grower = Self { child, folder };
        crate::until("the program has begun", || grower.read().is_some());
        grower
    }

    fn read(&self) -> Option<Report> {
        let text = fs::read_to_string(self.folder.path().join("report")).ok()?;
        // The last line may be half written.
        let mut lines = text[..=text.rfind('\n')?].lines();
        let numbers = |line: &str| -> Vec<u64> {
            let words = line.split(' ');
            words.filter_map(|number| number.parse().ok()).collect()
        };
        let [pid, begin, length, first] = numbers(lines.next()?)[..] else {
            return None;
        };
        let [taken, last] = numbers(lines.next_back()?)[..] else {
            return None;
        };
        Some(Report {
            pid: u32::try_from(pid).ok()?,
            begin,
            length,
            first: Boottime(first),
            taken,
            last: Boottime(last),
        })
    }

    pub(crate) fn report(&self) -> Report {
        self.read().expect("its report")
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("its state").is_some()
    }

    pub(crate) fn was_killed(&mut self) -> bool {
        let ended = self.child.try_wait().expect("its state");
        ended.is_some_and(|status| status.signal() == Some(9))
    }
}

impl Drop for Grower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Grows, if this process was started to.
pub(crate) fn grow_if_asked() {
    let Ok(asked) = std::env::var(ASKED) else {
        return;
    };
    let mut words = asked.splitn(3, ' ');
    let mut next = || words.next().expect("rate, length and file");
    let rate: u64 = next().parse().expect("a rate");
    let length: usize = next().parse().expect("a length");
    let report = OpenOptions::new()
        .create_new(true)
        .append(true)
        .open(next());
    let mut report = report.expect("a file to report to");
    // A large vector is a mapping of its own, of which nothing is touched yet.
    let mut memory: Vec<u8> = Vec::with_capacity(length);
    let (pid, address) = (std::process::id(), memory.as_ptr() as usize);
    let first = Boottime::now().0;
    writeln!(report, "{pid} {address} {length} {first}").expect("reported");
    let began = Instant::now();
    while memory.len() < length {
        let due = began.elapsed().as_nanos() * u128::from(rate) / 1_000_000_000;
        let due = usize::try_from(due).unwrap_or(length);
        memory.resize(due.clamp(memory.len(), length), 7);
        writeln!(report, "{} {}", memory.len(), Boottime::now().0).expect("reported");
        thread::sleep(STEP);
    }
    thread::sleep(Duration::from_mins(5));
}
