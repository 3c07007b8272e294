//! What a phase cost: its time by cause, its faults and its bytes, summed over the stretches
//! of its processes.

use hearth_abi::{Kind, Mark, flags};

use super::chain::Chain;
use super::cut::{Point, Stamp};
use super::start::Start;

/// Running, queued, io, blocked, in ns.
type Causes = [Option<u64>; 4];

/// What lies between two boundaries. `None` is "not measured".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    pub(super) causes: Causes,
    pub(super) minor_faults: Option<u64>,
    pub(super) major_faults: Option<u64>,
    pub(super) read_bytes: Option<u64>,
}

/// What one process did from one moment to one of its marks.
struct Stretch<'a> {
    begin_ns: u64,
    base: Base<'a>,
    end: (usize, &'a Mark),
}

/// What is known of the counters where a stretch begins.
#[derive(Clone, Copy)]
enum Base<'a> {
    /// Born there: all are zero.
    Birth,
    /// The accounting is zero there; the rest is as this mark says, if there is one.
    Attach(Option<(usize, &'a Mark)>),
    /// As this mark says.
    Mark((usize, &'a Mark)),
}

impl<'a> Base<'a> {
    fn mark(&self) -> Option<(usize, &'a Mark)> {
        match *self {
            Self::Birth | Self::Attach(None) => None,
            Self::Attach(Some(mark)) | Self::Mark(mark) => Some(mark),
        }
    }

    /// What a plain counter was.
    fn count(&self, of: impl Fn(&Mark) -> u64) -> Option<u64> {
        match *self {
            Self::Birth => Some(0),
            Self::Attach(None) => None,
            Self::Attach(Some((_, mark))) | Self::Mark((_, mark)) => Some(of(mark)),
        }
    }

    /// What a total of the accounting was.
    fn accounted(&self, of: impl Fn(&Mark) -> u64) -> Option<u64> {
        match *self {
            Self::Birth | Self::Attach(_) => Some(0),
            Self::Mark((_, mark)) => (mark.flags & flags::ACCOUNTED != 0).then(|| of(mark)),
        }
    }
}

/// The cost between two boundaries of a chain.
pub(super) fn cost(start: &Start, chain: &Chain, from: &Point, to: &Point) -> Cost {
    let Some(stretches) = stretches(start, chain, from, to) else {
        return Cost::default();
    };
    let sum = |of: fn(&Stretch<'_>) -> Option<u64>| {
        stretches
            .iter()
            .map(of)
            .try_fold(0_u64, |sum, value| sum.checked_add(value?))
    };
    let causes = stretches
        .iter()
        .map(|stretch| stretch.causes(start))
        .fold([Some(0); 4], add);
    Cost {
        causes: fit(causes, to.at.since(from.at).0),
        minor_faults: sum(|s| s.count(|m| m.counters.minor_faults.into(), 0)),
        major_faults: sum(|s| s.count(|m| m.counters.major_faults.into(), 0)),
        read_bytes: sum(|s| s.count(|m| m.counters.read_bytes, flags::NO_READ_BYTES)),
    }
}

fn stretches<'a>(
    start: &'a Start,
    chain: &Chain,
    from: &Point,
    to: &Point,
) -> Option<Vec<Stretch<'a>>> {
    let marked = |index: usize| (index, &start.marks()[index].mark);
    let (first, mut base) = match from.stamp {
        Stamp::None => return None,
        Stamp::Birth => (0, Base::Birth),
        Stamp::Attach(index) => (0, Base::Attach(index.map(marked))),
        Stamp::Mark { link, index } => (link, Base::Mark(marked(index))),
    };
    let Stamp::Mark {
        link: last,
        index: end,
    } = to.stamp
    else {
        return None;
    };
    let mut begin_ns = from.at.0;
    let mut stretches = Vec::new();
    for next in first + 1..=last {
        let fork = marked(chain.links[next].fork?);
        stretches.push(Stretch {
            begin_ns,
            base,
            end: fork,
        });
        (begin_ns, base) = (fork.1.boottime_ns, Base::Birth);
    }
    stretches.push(Stretch {
        begin_ns,
        base,
        end: marked(end),
    });
    Some(stretches)
}

impl<'a> Stretch<'a> {
    /// Whether either end says this of itself.
    fn says(&self, flag: u16) -> bool {
        self.end.1.flags & flag != 0 || self.base.mark().is_some_and(|(_, m)| m.flags & flag != 0)
    }

    /// Growth of a counter, unless a mark says that it means nothing.
    fn count(&self, of: fn(&Mark) -> u64, not_with: u16) -> Option<u64> {
        if self.says(flags::COUNTERS_PARTIAL | not_with) {
            return None;
        }
        of(self.end.1).checked_sub(self.base.count(of)?)
    }

    fn causes(&self, start: &'a Start) -> Causes {
        if let Some(causes) = self.accounted() {
            return causes;
        }
        // Accounting that began on the way, and quiet pieces, can still tell the whole.
        let pieces = self
            .pieces(start)
            .iter()
            .map(Self::piece)
            .fold([Some(0); 4], add);
        if pieces.iter().all(Option::is_some) {
            pieces
        } else {
            self.piece()
        }
    }

    fn piece(&self) -> Causes {
        self.accounted().or_else(|| self.undisturbed()).unwrap_or([
            None,
            self.delayed(),
            None,
            None,
        ])
    }

    /// By `sched_switch` and the wake-ups.
    fn accounted(&self) -> Option<Causes> {
        let late_birth = matches!(self.base, Base::Birth) && self.says(flags::LATE);
        if self.end.1.flags & flags::ACCOUNTED == 0 || late_birth {
            return None;
        }
        let of = |get: fn(&Mark) -> u64| {
            get(self.end.1)
                .checked_sub(self.base.accounted(get)?)
                .map(Some)
        };
        Some([
            of(|m| m.counters.running_ns)?,
            of(|m| m.counters.queued_ns)?,
            of(|m| m.counters.io_ns)?,
            of(|m| m.counters.blocked_ns)?,
        ])
    }

    fn single_threaded(&self) -> bool {
        self.end.1.threads == 1 && self.base.mark().is_none_or(|(_, mark)| mark.threads == 1)
    }

    /// One thread that was never switched out ran all the time.
    fn undisturbed(&self) -> Option<Causes> {
        let switches = |m: &Mark| u64::from(m.counters.nvcsw) + u64::from(m.counters.nivcsw);
        let still = self.base.count(switches)? == switches(self.end.1);
        let wall = self.end.1.boottime_ns.checked_sub(self.begin_ns)?;
        (self.single_threaded() && still).then_some([Some(wall), Some(0), Some(0), Some(0)])
    }

    /// The time one thread waited for a CPU, as the scheduler tells it.
    fn delayed(&self) -> Option<u64> {
        let told = |mark: &Mark| mark.flags & flags::RUN_DELAY != 0;
        let both = told(self.end.1) && self.base.mark().is_none_or(|(_, mark)| told(mark));
        if !both || !self.single_threaded() {
            return None;
        }
        let delay = |m: &Mark| m.counters.run_delay_ns;
        delay(self.end.1).checked_sub(self.base.count(delay)?)
    }

    /// The same stretch, cut at every mark of its process that tells its counters.
    fn pieces(&self, start: &'a Start) -> Vec<Self> {
        let process = start.marks()[self.end.0].process();
        let after = self.base.mark().map_or(0, |(index, _)| index + 1);
        let mut pieces = Vec::new();
        let (mut begin_ns, mut base) = (self.begin_ns, self.base);
        for (index, mark) in start.marks_of(process) {
            let tells = !matches!(
                mark.kind,
                Kind::Part | Kind::CgroupPopulated | Kind::CgroupAttach
            );
            if (after..self.end.0).contains(&index) && tells {
                let end = (index, &mark.mark);
                pieces.push(Self {
                    begin_ns,
                    base,
                    end,
                });
                (begin_ns, base) = (mark.boottime_ns, Base::Mark(end));
            }
        }
        pieces.push(Self {
            begin_ns,
            base,
            end: self.end,
        });
        pieces
    }
}

fn add(sum: Causes, more: Causes) -> Causes {
    std::array::from_fn(|cause| sum[cause]?.checked_add(more[cause]?))
}

/// Makes the four causes sum to the phase's length where they nearly do; where they do not,
/// something was missed and none of them can be told.
fn fit(causes: Causes, length: u64) -> Causes {
    const SLACK_NS: u64 = 50_000;
    let [Some(running), Some(queued), Some(io), Some(blocked)] = causes else {
        return causes.map(|cause| cause.filter(|&ns| ns <= length));
    };
    let mut parts = [running, queued, io, blocked];
    let Some(sum) = parts.iter().try_fold(0_u64, |sum, &ns| sum.checked_add(ns)) else {
        return [None; 4];
    };
    if sum.abs_diff(length) > SLACK_NS.max(length / 100) {
        return [None; 4];
    }
    parts[0] += length.saturating_sub(sum);
    let mut excess = sum.saturating_sub(length);
    while excess > 0 {
        // From running, where the rounding is, and from the largest once that is used up.
        let largest = (0..4).max_by_key(|&cause| parts[cause]).unwrap_or(0);
        let from = if parts[0] > 0 { 0 } else { largest };
        let cut = excess.min(parts[from]);
        parts[from] -= cut;
        excess -= cut;
    }
    parts.map(Some)
}
