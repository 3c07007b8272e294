//! One start's marks to one observation.

use std::collections::BTreeMap;

use hearth_abi::Kind;

use super::chain::Chain;
use super::cut::{Slice, Stamp, cut, programs};
use super::end::End;
use super::image::Images;
use super::start::Start;
use super::{ColdStart, Phase, causes, parts};
use crate::observe::identity::Identity;
use crate::time::{Boottime, Nanos};

/// What the marks do not tell and every start of this agent shares.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// By mark, the strategy that stamps it on this kernel.
    pub strategies: BTreeMap<String, String>,
    /// While the watch set is attached: since when, and the strategies that it brings.
    pub watching: Option<(Boottime, BTreeMap<String, String>)>,
}

impl About {
    /// The strategies that were in force for the whole of a start that began then.
    fn strategies_since(&self, begin: Boottime) -> &BTreeMap<String, String> {
        match &self.watching {
            Some((since, better)) if *since <= begin => better,
            _ => &self.strategies,
        }
    }
}

/// A folded start, and what is still to be looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folded {
    /// The observation; its identity has what the marks tell.
    pub start: ColdStart,
    /// Id of the cgroup of the process that became ready; 0 when unknown.
    pub cgroup: u64,
}

/// Cuts a start into phases. Pure: the same marks give the same phases, and whatever is
/// missing or wrong among them, the phases are contiguous and sum to the total.
#[must_use]
pub fn fold(start: &Start, end: &End, about: &About) -> Folded {
    let images = Images::of(start);
    let chain = Chain::walk(start, end.process);
    let programs = programs(start, &chain, &images, end);
    let last_exec = programs.last().and_then(|program| program.exec);
    let slices = cut(start, &chain, programs, end);
    let mut phases: Vec<Phase> = slices
        .into_iter()
        .map(|slice| phase(start, &chain, slice))
        .collect();
    let parts_dropped = parts::distribute(start, &mut phases);

    let name = match last_exec.map(|point| point.stamp) {
        Some(Stamp::Mark { index, .. }) => start.name_of(&start.marks()[index]),
        _ => None,
    };
    let process = end.process.unwrap_or_default();
    let limit = end.mark.unwrap_or(usize::MAX);
    let last_marks = start
        .marks_of(process)
        .rev()
        .filter(|&(index, _)| index <= limit);
    let cgroup = last_marks
        .map(|(_, mark)| mark.cgroup)
        .find(|&cgroup| cgroup != 0)
        .unwrap_or(0);
    let exited = end.mark.map(|index| &start.marks()[index]);
    let exited = exited.filter(|mark| mark.kind == Kind::Exit);
    let begin = start.opening.begin;
    let start = ColdStart {
        begin,
        total_ns: end.at.since(begin),
        ready: end.ready,
        exit_status: exited.map(|mark| i32::from_ne_bytes(low_bytes(mark.args[0]))),
        opener: start.opening.word(),
        phases,
        parts_dropped,
        identity: Identity {
            boot_id: about.boot_id.clone(),
            pid: process.tgid,
            start_boottime: Boottime(process.start_boottime),
            argv0: name
                .and_then(|name| name.argv0.as_deref())
                .map(str::to_owned),
            exe: name.map(|name| name.file.clone().into()),
            ..Identity::default()
        },
        strategies: about.strategies_since(begin).clone(),
        lost: start.lost,
    };
    Folded { start, cgroup }
}

fn phase(start: &Start, chain: &Chain, slice: Slice) -> Phase {
    let cost = causes::cost(start, chain, &slice.from, &slice.to);
    let [running, queued, io, blocked] = cost.causes.map(|ns| ns.map(Nanos));
    Phase {
        name: slice.names[0],
        merged: if slice.names.len() > 1 {
            slice.names
        } else {
            Vec::new()
        },
        begin: slice.from.at,
        end: slice.to.at,
        running_ns: running,
        queued_ns: queued,
        io_ns: io,
        blocked_ns: blocked,
        minor_faults: cost.minor_faults,
        major_faults: cost.major_faults,
        read_bytes: cost.read_bytes,
        parts: Vec::new(),
    }
}

fn low_bytes(value: u64) -> [u8; 4] {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d]).to_ne_bytes()
}
