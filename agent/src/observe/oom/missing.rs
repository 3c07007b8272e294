//! What a capture lacks, field by field.

use std::collections::BTreeMap;

use super::model::{Absent, Capture, Known, Reason};

/// A field that is missing, and why; of a thread's field how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing<'a> {
    /// Dotted name, as in the JSON form.
    pub field: &'static str,
    /// Why.
    pub why: &'a Absent,
    /// In how many threads, frames or mappings; 1 of other fields.
    pub times: u64,
}

/// Every field that says why it is missing, in the order of the JSON form; of fields that occur
/// more than once, one for each reason.
#[must_use]
pub fn missing(capture: &Capture) -> Vec<Missing<'_>> {
    let mut found = Found::default();
    of_kill(capture, &mut found);
    of_cgroup(capture, &mut found);
    of_threads(capture, &mut found);
    found.add("trace", &capture.trace);
    found.list
}

/// Fields that are missing though they could have been had.
#[must_use]
pub fn lost(capture: &Capture) -> Vec<(&'static str, Reason)> {
    let missing = missing(capture);
    let lost = missing
        .iter()
        .filter(|missing| missing.why.reason.is_loss());
    let mut lost: Vec<_> = lost
        .map(|missing| (missing.field, missing.why.reason))
        .collect();
    lost.sort_unstable();
    lost.dedup();
    lost
}

#[derive(Default)]
struct Found<'a> {
    list: Vec<Missing<'a>>,
    index: BTreeMap<(&'static str, Reason), usize>,
}

impl<'a> Found<'a> {
    fn add<T>(&mut self, field: &'static str, known: &'a Known<T>) {
        let Some(why) = known.why() else { return };
        let next = self.list.len();
        let index = *self.index.entry((field, why.reason)).or_insert(next);
        match self.list.get_mut(index) {
            Some(missing) => missing.times += 1,
            None => self.list.push(Missing {
                field,
                why,
                times: 1,
            }),
        }
    }
}

fn of_kill<'a>(capture: &'a Capture, found: &mut Found<'a>) {
    let Capture {
        kill,
        victim,
        asker,
        ..
    } = capture;
    found.add("kill.limit_bytes", &kill.limit_bytes);
    found.add("kill.usage_bytes", &kill.usage_bytes);
    found.add("kill.swap_limit_bytes", &kill.swap_limit_bytes);
    found.add("kill.swap_usage_bytes", &kill.swap_usage_bytes);
    found.add("kill.total_bytes", &kill.total_bytes);
    found.add("kill.points", &kill.points);
    found.add("kill.asked_bytes", &kill.asked_bytes);
    found.add("kill.gfp", &kill.gfp);
    found.add("victim.uid", &victim.uid);
    found.add("victim.command", &victim.command);
    found.add("victim.exe", &victim.exe);
    found.add("victim.oom_score_adj", &victim.oom_score_adj);
    found.add("victim.memory.anon_bytes", &victim.memory.anon_bytes);
    found.add("victim.memory.file_bytes", &victim.memory.file_bytes);
    found.add("victim.memory.shmem_bytes", &victim.memory.shmem_bytes);
    found.add("victim.memory.swap_bytes", &victim.memory.swap_bytes);
    found.add(
        "victim.memory.page_table_bytes",
        &victim.memory.page_table_bytes,
    );
    found.add("victim.memory.virtual_bytes", &victim.memory.virtual_bytes);
    found.add("victim.cgroup.path", &victim.cgroup.path);
    found.add("asker.cgroup.path", &asker.cgroup.path);
    found.add("asker.kernel_stack", &asker.kernel_stack);
    found.add("cgroup.path", &capture.cgroup.path);
}

fn of_cgroup<'a>(capture: &'a Capture, found: &mut Found<'a>) {
    found.add("state", &capture.state);
    if let Known::Value(state) = &capture.state {
        found.add("state.limit_bytes", &state.limit_bytes);
        found.add("state.high_bytes", &state.high_bytes);
        found.add("state.usage_bytes", &state.usage_bytes);
        found.add("state.peak_bytes", &state.peak_bytes);
        found.add("state.stat", &state.stat);
        found.add("state.events", &state.events);
        found.add("state.pressure", &state.pressure);
    }
    found.add("before", &capture.before);
    if let Known::Value(before) = &capture.before {
        found.add("before.limit_bytes", &before.limit);
        found.add("before.growth_bytes_per_second", &before.growth);
        found.add("before.time_to_limit_ns", &before.time_to_limit);
        found.add("before.oom_group", &before.oom_group);
        found.add("before.pressure", &before.pressure);
        found.add("before.events", &before.events);
        found.add("before.stat", &before.stat);
        found.add("before.processes", &before.processes);
        found.add("before.vmas", &before.vmas);
    }
}

fn of_threads<'a>(capture: &'a Capture, found: &mut Found<'a>) {
    for thread in &capture.threads {
        found.add("threads.registers", &thread.registers);
        found.add("threads.user_stack", &thread.user_stack);
        for frame in thread.user_stack.value().into_iter().flatten() {
            found.add("threads.user_stack.mapping", &frame.mapping);
        }
        found.add("threads.kernel_stack", &thread.kernel_stack);
        found.add("threads.leaf", &thread.leaf);
        found.add("threads.stack_window", &thread.stack_window);
    }
    for mapping in &capture.mappings {
        found.add("mappings.path", &mapping.path);
        found.add("mappings.build_id", &mapping.build_id);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::observe::oom::samples;

    /// How many members of `value` say that they are absent.
    fn absent(value: &Value) -> u64 {
        match value {
            Value::Object(members) => {
                u64::from(members.len() == 1 && members.contains_key("absent"))
                    + members.values().map(absent).sum::<u64>()
            }
            Value::Array(items) => items.iter().map(absent).sum(),
            _ => 0,
        }
    }

    #[test]
    fn every_field_that_is_absent_is_named() {
        for capture in [samples::whole(), samples::bare()] {
            let json = serde_json::to_value(&capture).expect("a JSON form");
            let named: u64 = missing(&capture).iter().map(|missing| missing.times).sum();
            assert_eq!(named, absent(&json), "{:#?}", missing(&capture));
        }
    }

    #[test]
    fn what_is_off_is_not_lost() {
        assert_eq!(lost(&samples::whole()), []);
        assert!(lost(&samples::bare()).contains(&("kill.points", Reason::NotTold)));
    }
}
