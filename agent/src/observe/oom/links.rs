//! What is known of processes before they are killed, bounded: the file of their last exec, and
//! the trace of the cold start that they or their cgroup came up in.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;

use hearth_abi::{Kind, Text};

use super::model::{Capture, Known, Reason, TraceLink};
use crate::kernel::event::Event;
use crate::observe::identity::Identity;
use crate::observe::text::until_zero;
use crate::time::Boottime;

/// Processes and cgroups that are remembered.
const REMEMBERED: usize = 4096;

/// Id and start of its leader.
type Process = (u32, Boottime);

/// The newest so many entries.
#[derive(Debug)]
struct Recent<K, V> {
    by: HashMap<K, V>,
    order: VecDeque<K>,
}

impl<K: Hash + Eq + Clone, V> Recent<K, V> {
    fn new() -> Self {
        Self {
            by: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// Returns whether an older entry had to go.
    fn put(&mut self, key: K, value: V) -> bool {
        if self.by.insert(key.clone(), value).is_some() {
            return false;
        }
        self.order.push_back(key);
        let oldest = (self.order.len() > REMEMBERED).then(|| self.order.pop_front());
        oldest
            .flatten()
            .is_some_and(|oldest| self.by.remove(&oldest).is_some())
    }
}

/// What is known of processes.
#[derive(Debug)]
pub struct Links {
    execs: Recent<Process, Arc<str>>,
    traces: Recent<Process, TraceLink>,
    cgroups: Recent<String, TraceLink>,
    forgotten: u64,
}

impl Default for Links {
    fn default() -> Self {
        Self {
            execs: Recent::new(),
            traces: Recent::new(),
            cgroups: Recent::new(),
            forgotten: 0,
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
                if let (Some(file), Some(child)) = (self.execs.by.get(&parent).cloned(), child) {
                    let child = (child, Boottime(mark.args[1]));
                    self.forgotten += u64::from(self.execs.put(child, file));
                }
            }
            _ => {}
        }
    }

    fn exec(&mut self, text: &Text) {
        let process = (text.tgid, Boottime(text.start_boottime));
        let gone = self.execs.put(process, until_zero(&text.long).into());
        self.forgotten += u64::from(gone);
    }

    /// A cold start was told as `trace`.
    pub fn started(&mut self, identity: &Identity, trace: &TraceLink) {
        let process = (identity.pid, identity.start_boottime);
        let mut gone = u64::from(self.traces.put(process, trace.clone()));
        // The root, or a slice, is where unrelated programs are.
        let own = identity.container_id.is_some() || identity.unit.is_some();
        if let Some(path) = identity.cgroup_path.as_ref().filter(|_| own) {
            gone += u64::from(self.cgroups.put(path.clone(), trace.clone()));
        }
        self.forgotten += gone;
    }

    /// The file of a process' last exec.
    #[must_use]
    pub fn exe(&self, pid: u32, start: Boottime) -> Known<String> {
        let file = self.execs.by.get(&(pid, start)).map(ToString::to_string);
        let why = "its exec was before hearth began, or long ago";
        file.map_or_else(|| Known::absent(Reason::NotTold, why), Known::Value)
    }

    /// Fills in the trace of the victim's cold start, else of its container's or unit's; whether
    /// there is one.
    pub fn link(&self, capture: &mut Capture) -> bool {
        let victim = &capture.victim;
        let own = self.traces.by.get(&(victim.pid, victim.start_boottime));
        let path = victim.cgroup.path.value();
        let link = own.or_else(|| self.cgroups.by.get(path?));
        if let Some(link) = link {
            capture.trace = Known::Value(link.clone());
        }
        link.is_some()
    }

    /// Entries that were forgotten because there were too many.
    #[must_use]
    pub const fn forgotten(&self) -> u64 {
        self.forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::oom::samples;

    fn trace(n: u8) -> TraceLink {
        TraceLink {
            trace_id: format!("{n:032x}"),
            span_id: format!("{n:016x}"),
        }
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
        links.started(&identity(1, "/shop", None), &trace(1));
        assert!(!links.link(&mut capture) && capture.trace.why().is_some());
        links.started(&identity(2, "/shop", Some("shop.service")), &trace(2));
        assert!(links.link(&mut capture));
        assert_eq!(capture.trace.value(), Some(&trace(2)));
        links.started(&identity(4711, "/elsewhere", None), &trace(3));
        assert!(links.link(&mut capture));
        assert_eq!(capture.trace.value(), Some(&trace(3)));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_counted() {
        let mut links = Links::default();
        let count = u32::try_from(REMEMBERED).expect("small");
        for pid in 0..count + 5 {
            links.started(&identity(pid, "/x", None), &trace(1));
        }
        assert_eq!((links.forgotten(), links.traces.by.len()), (5, REMEMBERED));
    }
}
