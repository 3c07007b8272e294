//! Parts: the work inside a phase.

use hearth_abi::{Kind, Part};

use super::start::Start;
use super::{PartSpan, Phase};
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
        });
    }
    for phase in phases {
        phase.parts.sort_by_key(|part| (part.begin, part.end));
    }
    dropped
}
