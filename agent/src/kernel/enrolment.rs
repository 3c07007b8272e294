//! Which files get uprobes: those that are seen to be executed.
//!
//! Attaching takes milliseconds and a program is at its entry after one, so that the first
//! start of an unseen file has no entry and no hand-over; from the second on they are there. What
//! runs already, and the C library that most programs share, are enrolled when the agent starts.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use hearth_abi::{Kind, Mark, Text, site};

use super::{
    attach::chain,
    event::Event,
    image::{FileId, Options, Root, Target, main_site_from_address, plan},
    probes::Probes,
};
use crate::memory;

/// Executables remembered at most.
const REMEMBERED: usize = 8192;
/// Stripped programs whose `main` is to be learnt, at most; each holds its file open.
const LEARNING: usize = 128;
/// Files of running processes that are enrolled at the start, at most.
const RUNNING: usize = 256;
/// Programs between their exec and their entry, at most.
const UNDER_WAY: usize = 1024;
/// Reading a large binary's symbols takes tens of milliseconds: so many files a second, no
/// more, so that a node that unpacks a thousand images is not slowed by being looked at.
const FILES_PER_SECOND: u32 = 20;

/// Counts, for the agent's own metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EnrolmentCounts {
    /// Files looked at.
    pub files: u64,
    /// Files that could not be read or attached to.
    pub failed: u64,
    /// Files put off because too many came within a second.
    pub put_off: u64,
}

/// Decides what is enrolled.
#[derive(Debug)]
pub struct Enrolment {
    options: Options,
    seen: HashSet<FileId>,
    order: VecDeque<FileId>,
    /// What was enrolled, by what it is whatever overlay it is seen through.
    enrolled: HashSet<FileId>,
    /// By tgid: executables whose name is on its way.
    unseen: HashMap<u32, FileId>,
    /// By tgid: the executable and its `start_code`, of files whose `main` is to be learnt.
    learning: HashMap<u32, (Target, u64)>,
    to_learn: HashMap<FileId, Target>,
    learn_order: VecDeque<FileId>,
    second: Instant,
    this_second: u32,
    counts: EnrolmentCounts,
}

impl Default for Enrolment {
    fn default() -> Self {
        Self {
            options: Options::default(),
            seen: HashSet::new(),
            order: VecDeque::new(),
            enrolled: HashSet::new(),
            unseen: HashMap::new(),
            learning: HashMap::new(),
            to_learn: HashMap::new(),
            learn_order: VecDeque::new(),
            second: Instant::now(),
            this_second: 0,
            counts: EnrolmentCounts::default(),
        }
    }
}

impl Enrolment {
    /// Counts so far.
    #[must_use]
    pub fn counts(&self) -> EnrolmentCounts {
        self.counts
    }

    /// Attaches to the boundaries of a program that is about to be started.
    pub fn ahead(&mut self, probes: &mut Probes, root: &Root, executable: &Path) -> Vec<String> {
        self.enrol(probes, root, executable)
    }

    /// Looks at an event: an exec may show a file that nobody has seen, an entry may tell where
    /// a stripped program's `main` is.
    pub fn note(&mut self, probes: &mut Probes, event: &Event) {
        match event {
            Event::Mark(Kind::Exec, mark) => self.executed(mark),
            Event::Text(Kind::ExecText, text) => self.named(probes, text),
            Event::Mark(Kind::Entry, mark) if mark.args[2] & site::MAIN_IN_RDI != 0 => {
                self.entered(probes, mark);
            }
            _ => {}
        }
    }

    /// Enrols what runs now, and the programs that lend their C library to the rest.
    pub fn running(&mut self, probes: &mut Probes) {
        let Ok(root) = Root::host() else { return };
        for shell in ["/bin/sh", "/usr/bin/env"] {
            self.enrol(probes, &root, Path::new(shell));
        }
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let mut files = HashSet::new();
        for pid in pids {
            let Ok(executable) = std::fs::read_link(format!("/proc/{pid}/exe")) else {
                continue;
            };
            let Ok(root) = Root::of_process(pid) else {
                continue;
            };
            let Ok(target) = root.open(&executable) else {
                continue;
            };
            if files.len() < RUNNING && files.insert(target.id()) {
                self.remember(target.id());
                self.enrol(probes, &root, &executable);
            }
        }
        probes.uprobes().pin();
        // The symbols of a large program are megabytes while they are being read.
        memory::give_back();
    }

    fn executed(&mut self, mark: &Mark) {
        let Ok(device) = u32::try_from(mark.args[1]) else {
            return;
        };
        let id = FileId::from_kernel(device, mark.args[0]);
        if let Some(target) = self.to_learn.get(&id) {
            if self.learning.len() >= UNDER_WAY {
                self.learning.clear();
            }
            self.learning
                .insert(mark.tgid, (target.clone(), mark.args[2]));
        }
        if self.seen.contains(&id) {
            return;
        }
        if self.unseen.len() >= UNDER_WAY {
            self.unseen.clear();
        }
        self.unseen.insert(mark.tgid, id);
    }

    /// The name that follows an exec, of a file that nobody has seen.
    fn named(&mut self, probes: &mut Probes, text: &Text) {
        let Some(id) = self.unseen.remove(&text.tgid) else {
            return;
        };
        if self.seen.contains(&id) {
            return;
        }
        if self.second.elapsed() >= Duration::from_secs(1) {
            self.second = Instant::now();
            self.this_second = 0;
        }
        if self.this_second >= FILES_PER_SECOND {
            self.counts.put_off += 1;
            return;
        }
        self.this_second += 1;
        // A wrapper may have gone on to its next program: then its name leads to it.
        let now = still_there(text.tgid);
        let is_other = now
            .as_ref()
            .and_then(|(root, executable)| root.open(executable).ok())
            .is_none_or(|target| target.id() != id);
        let named = if is_other { by_name(text, id) } else { None };
        if now.is_none() && named.is_none() {
            self.counts.failed += 1;
            return;
        }
        self.remember(id);
        for (root, executable) in now.into_iter().chain(named) {
            // Each sandbox of a function, each container of an image, has an overlay of its own.
            let original = root.open(&executable).map(|target| target.original());
            if original.is_ok_and(|original| original != id && !self.is_new(original)) {
                continue;
            }
            for note in self.enrol(probes, &root, &executable) {
                let file = executable.display();
                tracing::debug!(%file, note, "not every boundary has a probe");
            }
        }
        for forgotten in probes.uprobes().take_forgotten() {
            self.seen.remove(&forgotten);
            self.enrolled.remove(&forgotten);
        }
        // As above.
        memory::give_back();
    }

    fn enrol(&mut self, probes: &mut Probes, root: &Root, executable: &Path) -> Vec<String> {
        self.counts.files += 1;
        match probes.enrol(root, executable, &self.options) {
            Ok(plan) => {
                let has_main = plan
                    .sites
                    .iter()
                    .any(|site| site.what == super::image::Boundary::Main && !site.provisional);
                if !has_main {
                    self.learn_later(&plan.executable);
                }
                plan.notes
            }
            Err(error) => {
                self.counts.failed += 1;
                vec![chain(&error)]
            }
        }
    }

    /// Keeps a stripped program until a start shows where its `main` is; the oldest goes, since
    /// some never do.
    fn learn_later(&mut self, executable: &Target) {
        if self.learn_order.len() >= LEARNING
            && let Some(oldest) = self.learn_order.pop_front()
        {
            self.to_learn.remove(&oldest);
        }
        self.learn_order.push_back(executable.id());
        self.to_learn.insert(executable.id(), executable.clone());
    }

    fn entered(&mut self, probes: &mut Probes, mark: &Mark) {
        let Some((target, start_code)) = self.learning.remove(&mark.tgid) else {
            return;
        };
        self.to_learn.remove(&target.id());
        let learnt = main_site_from_address(&target, start_code, mark.args[1], false);
        let result = learnt
            .map_err(|error| error.to_string())
            .and_then(|site| probes.enrol_site(&site).map_err(|error| chain(&error)));
        if let Err(note) = result {
            tracing::debug!(file = %target.shown().display(), note, "main is not learnt");
        }
    }

    /// Whether this file was not enrolled yet. Too many to be remembered begin anew.
    fn is_new(&mut self, original: FileId) -> bool {
        if self.enrolled.len() >= REMEMBERED {
            self.enrolled.clear();
        }
        self.enrolled.insert(original)
    }

    fn remember(&mut self, id: FileId) {
        if self.seen.insert(id) {
            self.order.push_back(id);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
    }
}

/// The executable of a process, if it runs on.
fn still_there(tgid: u32) -> Option<(Root, PathBuf)> {
    let executable = std::fs::read_link(format!("/proc/{tgid}/exe")).ok()?;
    Some((Root::of_process(tgid).ok()?, executable))
}

/// The executable of a process that has ended, if its name on this host leads to the very inode.
fn by_name(text: &Text, id: FileId) -> Option<(Root, PathBuf)> {
    let end = text.long.iter().position(|&byte| byte == 0)?;
    let path = Path::new(std::str::from_utf8(&text.long[..end]).ok()?);
    let root = Root::host().ok()?;
    let plan = plan(
        &root,
        path.is_absolute().then_some(path)?,
        &Options::default(),
    )
    .ok()?;
    (plan.executable.id() == id).then(|| (root, plan.executable.path().to_owned()))
}

/// The file that a command's name means, as `execvp` would find it.
#[must_use]
pub fn find_executable(name: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let is_program = |path: &Path| {
        std::fs::metadata(path)
            .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
    };
    if name.contains('/') {
        let path = std::path::absolute(name).ok()?;
        return is_program(&path).then_some(path);
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .filter_map(|directory| std::path::absolute(directory.join(name)).ok())
        .find(|path| is_program(path))
}
