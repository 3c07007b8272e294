//! Parts: the work inside a phase.

use hearth_abi::{Kind, Part};

use super::start::Start;
use super::{ColdStart, LockHolder, PartSpan, Phase, Waited};
use crate::observe::cgroup_lock::Wait;
use crate::time::Boottime;

/// Parts that one start keeps; a runtime makes some hundred.
const PARTS: usize = 1024;

/// Puts each part into the phase that covers its begin, and counts those that found none.
pub(super) fn distribute(start: &Start, phases: &mut [Phase]) -> u64 {
    let mut dropped = 0;
    let mut kept = 0;
    for mark in start.marks().iter().filter(|mark| mark.kind == Kind::Part) {
        let begin = Boottime(mark.args[1]);
        let name = Part::from_u64(mark.args[0]).filter(|_| begin <= mark.at() && kept < PARTS);
        let phase = phases
            .iter_mut()
            .find(|phase| phase.begin <= begin && begin < phase.end);
        let (Some(name), Some(phase)) = (name, phase) else {
            dropped += 1;
            continue;
        };
        kept += 1;
        phase.parts.push(PartSpan {
            name: name.name(),
            pid: mark.tid,
            begin,
            end: mark.at(),
            waited: None,
        });
    }
    for phase in phases {
        phase.parts.sort_by_key(|part| (part.begin, part.end));
    }
    dropped
}

/// A long wait for a lock of cgroups, as a part.
pub(super) fn of_wait(wait: &Wait) -> PartSpan {
    PartSpan {
        name: "lock",
        pid: wait.waiter.tid,
        begin: wait.begin,
        end: wait.end,
        waited: Some(Box::new(Waited {
            lock: wait.lock.name(),
            operation: wait.operation.name(),
            holder: wait.holder.as_ref().map(|holder| LockHolder {
                pid: holder.task.pid,
                comm: holder.task.comm.clone(),
                operation: holder.operation.map(hearth_abi::Operation::name),
            }),
        })),
    }
}

/// Puts the waits of a start into the phases that cover their begins. Those before the opener and
/// after the end are none of this start. Their number is bounded where they are collected: many
/// other parts must not hide what those waited for.
pub(super) fn add_waits(start: &mut ColdStart, waits: Vec<PartSpan>) {
    for wait in waits {
        let covering = |phase: &&mut Phase| phase.begin <= wait.begin && wait.begin < phase.end;
        if let Some(phase) = start.phases.iter_mut().find(covering) {
            phase.parts.push(wait);
        }
    }
    for phase in &mut start.phases {
        phase.parts.sort_by_key(|part| (part.begin, part.end));
    }
}
