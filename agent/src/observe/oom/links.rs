//! What is known of processes before they are killed, bounded: the file of their last exec, and
//! the trace of the cold start that they or their cgroup came up in.

use std::sync::Arc;

use hearth_abi::{Kind, Text};

use super::model::{Capture, Known, Reason, TraceLink};
use super::remembered::Remembered;
use crate::kernel::event::Event;
use crate::observe::identity::Identity;
use crate::observe::text::until_zero;
use crate::time::Boottime;

/// Processes and cgroups that are remembered of each kind.
const REMEMBERED: usize = 4096;

/// Id and start of its leader.
type Process = (u32, Boottime);

/// What is known of processes.
#[derive(Debug)]
pub struct Links {
    execs: Remembered<Process, Arc<str>>,
    traces: Remembered<Process, TraceLink>,
    cgroups: Remembered<String, TraceLink>,
}

impl Default for Links {
    fn default() -> Self {
        Self {
            execs: Remembered::new(REMEMBERED),
            traces: Remembered::new(REMEMBERED),
            cgroups: Remembered::new(REMEMBERED),
        }
    }
}

impl Links {
    /// Takes in what an event tells.
    pub fn note(&mut self, event: &Event) {
        match event {
            Event::Text(Kind::ExecText, text) => self.exec(text),
            Event::Mark(Kind::Fork, mark) => {
                let parent = (mark.tgid, Boottime(mark.start_boottime));
                let child = u32::try_from(mark.args[0]).ok();
                if let (Some(file), Some(child)) = (self.execs.get(&parent).cloned(), child) {
                    self.execs.put((child, Boottime(mark.args[1])), file);
                }
            }
            // Told of those that are watched, and in process mode of all that made an exec.
            Event::Mark(Kind::Exit, mark) => {
                let process = (mark.tgid, Boottime(mark.start_boottime));
                self.execs.is_gone(process);
                self.traces.is_gone(process);
            }
            _ => {}
        }
    }

    fn exec(&mut self, text: &Text) {
        let process = (text.tgid, Boottime(text.start_boottime));
        self.execs.put(process, until_zero(&text.long).into());
    }

    /// The cgroup at `path` was removed.
    pub fn removed(&mut self, path: &str) {
        self.cgroups.is_gone(path.to_owned());
    }

    /// A cold start was told as `trace`: after it ended, so that its process and its cgroup may be
    /// gone. Of the cgroup `has_cgroup` is asked: another one may have the path of a removed one.
    pub fn started(
        &mut self,
        identity: &Identity,
        trace: &TraceLink,
        has_cgroup: impl FnOnce(&str) -> bool,
    ) {
        let process = (identity.pid, identity.start_boottime);
        self.traces.put(process, trace.clone());
        if self.execs.knows_gone(&process) {
            self.traces.is_gone(process);
        }
        if let Some(path) = own_cgroup(identity) {
            self.cgroups.put(path.to_owned(), trace.clone());
            if !has_cgroup(path) {
                self.cgroups.is_gone(path.to_owned());
            }
        }
    }

    /// The file of a process' last exec.
    #[must_use]
    pub fn exe(&self, pid: u32, start: Boottime) -> Known<String> {
        let file = self.execs.get(&(pid, start)).map(ToString::to_string);
        let why = "its exec was before hearth began, or long ago";
        file.map_or_else(|| Known::absent(Reason::NotTold, why), Known::Value)
    }

    /// Fills in the trace of the victim's cold start, else of its container's or unit's; whether
    /// there is one.
    pub fn link(&self, capture: &mut Capture) -> bool {
        let victim = &capture.victim;
        let own = self.traces.get(&(victim.pid, victim.start_boottime));
        let path = victim.cgroup.path.value();
        let link = own.or_else(|| self.cgroups.get(path?));
        if let Some(link) = link {
            capture.trace = Known::Value(link.clone());
        }
        link.is_some()
    }

    /// Entries of what may still live that were forgotten because there were too many.
    #[must_use]
    pub const fn forgotten(&self) -> u64 {
        self.execs.forgotten() + self.traces.forgotten() + self.cgroups.forgotten()
    }
}

/// The cgroup of a start, where all that is in it came up with it: the root, or a slice, is where
/// unrelated programs are.
fn own_cgroup(identity: &Identity) -> Option<&str> {
    let own = identity.container_id.is_some() || identity.unit.is_some();
    identity.cgroup_path.as_deref().filter(|_| own)
}

/// Whether [`Links::link`] would find the start of `identity` for this victim.
#[must_use]
pub fn is_of(identity: &Identity, capture: &Capture) -> bool {
    let victim = &capture.victim;
    let own = (victim.pid, victim.start_boottime) == (identity.pid, identity.start_boottime);
    let path = victim.cgroup.path.value();
    own || path.is_some_and(|path| own_cgroup(identity) == Some(path))
}

#[cfg(test)]
mod tests {
    use hearth_abi::{Counters, Mark, TEXT_LONG, TEXT_SHORT};

    use super::*;
    use crate::observe::oom::samples;

    fn trace(n: u8) -> TraceLink {
        TraceLink {
            trace_id: format!("{n:032x}"),
            span_id: format!("{n:016x}"),
        }
    }

    fn exit(pid: u32) -> Event {
        let mark = Mark {
            kind: Kind::Exit as u16,
            flags: 0,
            cpu: 0,
            boottime_ns: 61_000_000_000,
            tid: pid,
            tgid: pid,
            start_boottime: 60_000_000_000,
            parent: 1,
            threads: 1,
            cgroup: 1,
            watch: 0,
            args: [0; 3],
            counters: Counters::default(),
        };
        Event::Mark(Kind::Exit, mark)
    }

    fn exec(pid: u32) -> Event {
        let text = Text {
            kind: Kind::ExecText as u16,
            flags: 0,
            tgid: pid,
            boottime_ns: 60_000_000_000,
            start_boottime: 60_000_000_000,
            id: 1,
            long: [0; TEXT_LONG],
            short: [0; TEXT_SHORT],
        };
        Event::Text(Kind::ExecText, text)
    }

    fn has(_: &str) -> bool {
        true
    }

    fn identity(pid: u32, path: &str, unit: Option<&str>) -> Identity {
        Identity {
            pid,
            start_boottime: Boottime(60_000_000_000),
            cgroup_path: Some(path.into()),
            unit: unit.map(str::to_owned),
            ..Identity::default()
        }
    }

    #[test]
    fn a_victim_is_linked_to_its_own_start_before_its_cgroups() {
        let mut capture = samples::bare();
        capture.victim.cgroup.path = Known::Value("/shop".into());
        let mut links = Links::default();
        assert!(!links.link(&mut capture));
        // A program that shares nothing but a slice is none of its.
        links.started(&identity(1, "/shop", None), &trace(1), has);
        assert!(!links.link(&mut capture) && capture.trace.why().is_some());
        links.started(&identity(2, "/shop", Some("shop.service")), &trace(2), has);
        assert!(links.link(&mut capture));
        assert_eq!(capture.trace.value(), Some(&trace(2)));
        links.started(&identity(4711, "/elsewhere", None), &trace(3), has);
        assert!(links.link(&mut capture));
        assert_eq!(capture.trace.value(), Some(&trace(3)));
    }

    #[test]
    fn a_start_is_of_a_victim_only_where_it_would_be_linked_to_it() {
        let mut capture = samples::bare();
        capture.victim.cgroup.path = Known::Value("/shop".into());
        assert!(is_of(&identity(4711, "/elsewhere", None), &capture));
        assert!(is_of(&identity(1, "/shop", Some("shop.service")), &capture));
        assert!(!is_of(&identity(1, "/shop", None), &capture));
        assert!(!is_of(
            &identity(1, "/bank", Some("bank.service")),
            &capture
        ));
    }

    /// The daemon tells of a start when it has ended: a program that lives shorter than that is
    /// gone before.
    #[test]
    fn a_server_that_lives_long_is_linked_after_any_number_of_short_lived_programs() {
        let mut capture = samples::bare();
        let mut links = Links::default();
        links.note(&exec(4711));
        links.started(&identity(4711, "/shop", None), &trace(9), has);
        for pid in 10_000..10_000 + 2 * u32::try_from(REMEMBERED).expect("small") {
            links.note(&exec(pid));
            links.note(&exit(pid));
            links.started(&identity(pid, "/x", None), &trace(1), has);
        }
        assert!(links.link(&mut capture) && links.forgotten() == 0);
        assert_eq!(capture.trace.value(), Some(&trace(9)));
    }

    #[test]
    fn a_service_that_lives_long_is_linked_after_any_number_of_short_lived_ones() {
        let mut capture = samples::bare();
        capture.victim.cgroup.path = Known::Value("/long".into());
        let mut links = Links::default();
        let unit = Some("x.service");
        links.started(&identity(1, "/long", unit), &trace(8), has);
        for n in 0..REMEMBERED {
            let path = format!("/brief-{n}");
            links.removed(&path);
            links.started(&identity(2, &path, unit), &trace(1), |_| false);
            // Of others the removal comes when their start was told.
            let path = format!("/longer-{n}");
            links.started(&identity(2, &path, unit), &trace(1), has);
            links.removed(&path);
        }
        assert!(links.link(&mut capture) && links.forgotten() == 0);
        assert_eq!(capture.trace.value(), Some(&trace(8)));
    }
}
