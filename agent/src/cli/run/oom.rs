//! The daemon's part for the `oom` signal: from records to captures that are kept and told.

use std::collections::VecDeque;
use std::time::Duration;

use hearth_abi::{Kind, OomKill};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::config::Config;
use crate::export::{Export, OomState, TraceContext};
use crate::kernel::event::{Event, OomEvent};
use crate::observe::cold_start::{ColdStart, Tracker};
use crate::observe::identity::{MemoryHierarchy, boot_id};
use crate::observe::oom::assembler::{About, Assembler, Surroundings};
use crate::observe::oom::cgroup_state::Hierarchy;
use crate::observe::oom::keeper::{Keeper, Kept};
use crate::observe::oom::links::Links;
use crate::observe::oom::looker::{Cgroups, Looker};
use crate::observe::oom::model::{Before, Capture, Known, Reason, TraceLink};
use crate::observe::oom::recorder::{Process, Recorder};
use crate::observe::oom::store::Note;
use crate::time::{Boottime, Nanos};

/// How long a capture waits for the end of the start that its victim was in: its trace is made
/// then.
const TRACE_PATIENCE: Nanos = Nanos(1_000_000_000);

/// Captures that wait for a trace or for the keeper; beyond this some are told without a file.
const HELD: usize = 1024;

/// How long the end waits for the files of cgroups. One may hang, and must not keep what is open
/// from being kept before the service manager loses its patience.
const LOOKS_PATIENCE: Duration = Duration::from_secs(2);

/// The time at which all that is open is finished.
const AT_LAST: Boottime = Boottime(u64::MAX);

/// From records to captures.
pub(super) struct Oom {
    assembler: Assembler,
    links: Links,
    looker: Looker,
    hierarchy: Option<Hierarchy>,
    keeper: Keeper,
    kept: UnboundedReceiver<Kept>,
    /// Captures that wait for a trace, and until when.
    untraced: VecDeque<(Boottime, Capture)>,
}

impl Oom {
    /// Begins; the keeper's thread is started here.
    pub(super) fn start(config: &Config) -> anyhow::Result<Self> {
        let place = MemoryHierarchy::find().ok();
        let hierarchy = place.clone().and_then(|place| Hierarchy::open(place).ok());
        let about = About {
            boot_id: boot_id(),
            kernel: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            mask: config.oom.mask,
        };
        let (keeper, kept) = Keeper::start(config.oom.dir.clone(), config.oom.bounds())?;
        Ok(Self {
            assembler: Assembler::new(about),
            links: Links::default(),
            looker: Looker::start(place)?,
            hierarchy,
            keeper,
            kept,
            untraced: VecDeque::new(),
        })
    }

    /// Takes in what an event of any signal tells.
    pub(super) fn note(&mut self, event: &Event, tracker: &Tracker) {
        if let Event::Text(Kind::CgroupGone, text) = event
            && let Some(path) = tracker.told_path(text.id)
        {
            self.links.removed(path);
        }
        self.links.note(event);
    }

    /// Takes in a record of the signal.
    pub(super) fn accept(
        &mut self,
        event: OomEvent,
        tracker: &Tracker,
        recorder: Option<&Recorder>,
        export: &Export,
    ) {
        let Self {
            assembler,
            links,
            looker,
            keeper,
            ..
        } = self;
        assembler.accept(event, Boottime::now(), |kill| {
            let path = |id| tracker.told_path(id).map(str::to_owned);
            let cgroups = Cgroups::of(kill, path);
            let unix_ns = export.unix_ns(Boottime(kill.id));
            keeper.note(Note::of(kill, unix_ns, cgroups.victim.1.as_deref()));
            let is_pending = looker.look(kill, cgroups.clone());
            let state = if is_pending {
                Known::absent(Reason::Unreadable, "its files took too long to read")
            } else {
                Known::absent(Reason::Full, "too many kills waited to be looked at")
            };
            Surroundings {
                victim_cgroup: cgroups.victim.1,
                asker_cgroup: cgroups.asker.1,
                cgroup: cgroups.concerned.1,
                exe: links.exe(kill.victim.tgid, Boottime(kill.victim.start_boottime)),
                state,
                before: before(kill, recorder),
                is_pending,
            }
        });
    }

    /// A cold start was told as `context`.
    pub(super) fn started(&mut self, start: &ColdStart, context: TraceContext) {
        let trace = TraceLink {
            trace_id: format!("{:032x}", context.trace_id),
            span_id: format!("{:016x}", context.span_id),
        };
        let hierarchy = self.hierarchy.as_ref();
        self.links.started(&start.identity, &trace, |path| {
            hierarchy.is_none_or(|hierarchy| hierarchy.has(path))
        });
    }

    /// Hands the captures that are complete to the keeper. A victim that `is_starting` has a
    /// trace soon. What the keeper has no room for is told at once.
    pub(super) fn advance(
        &mut self,
        now: Boottime,
        export: &mut Export,
        is_starting: impl Fn(&Capture) -> bool,
    ) {
        let is_last = now == AT_LAST;
        for looked in self.looker.looked() {
            self.assembler.looked(looked);
        }
        let finished = self.assembler.advance(now, |at| export.unix_ns(at));
        let until = Boottime(now.0.saturating_add(TRACE_PATIENCE.0));
        self.untraced
            .extend(finished.into_iter().map(|capture| (until, capture)));
        for _ in 0..self.untraced.len() {
            let Some((until, mut capture)) = self.untraced.pop_front() else {
                break;
            };
            let linked = self.links.link(&mut capture);
            if !linked && now < until && is_starting(&capture) {
                self.untraced.push_back((until, capture));
                continue;
            }
            if !is_last && !self.keeper.has_room() && self.untraced.len() < HELD {
                // A whole group may have been killed at once: files take their time.
                self.untraced.push_front((until, capture));
                break;
            }
            let others = self.others(&capture);
            let refused = if is_last {
                self.keeper.keep_at_last(capture, others)
            } else {
                self.keeper.keep(capture, others)
            };
            if let Some(refused) = refused {
                export.oom(&refused);
            }
        }
    }

    /// The next capture that was kept, or could not be.
    pub(super) async fn next(&mut self) -> Option<Kept> {
        self.kept.recv().await
    }

    /// Finishes what is open, waits until it is kept, and tells it.
    pub(super) fn finish(&mut self, export: &mut Export) {
        for looked in self.looker.finish(LOOKS_PATIENCE) {
            self.assembler.looked(looked);
        }
        self.advance(AT_LAST, export, |_| false);
        self.keeper.finish();
        while let Ok(kept) = self.kept.try_recv() {
            export.oom(&kept);
        }
    }

    /// What it did and holds.
    pub(super) fn state(&self) -> OomState {
        let stats = self.assembler.stats();
        OomState {
            kept: self.keeper.stats(),
            open: (stats.open + self.untraced.len()) as u64,
            odd: vec![
                ("hurried", stats.hurried),
                ("repeated", stats.repeated),
                ("unmatched", stats.unmatched),
                ("forgotten", self.links.forgotten()),
            ],
        }
    }

    /// Processes that live in the victim's cgroup and see its files: a container's others.
    fn others(&self, capture: &Capture) -> Vec<u32> {
        let cgroup = &capture.victim.cgroup;
        if capture.victim.container_id.is_none() {
            return Vec::new();
        }
        let path = cgroup.path.value().map(String::as_str);
        self.hierarchy
            .as_ref()
            .map_or_else(Vec::new, |hierarchy| hierarchy.processes(cgroup.id, path))
    }
}

/// What was recorded before `kill`: of the cgroup whose limit was hit, else of the node.
fn before(kill: &OomKill, by: Option<&Recorder>) -> Known<Before> {
    let Some(recorder) = by else {
        return Known::absent(Reason::Off, "the flight recorder does not run");
    };
    let seen = recorder.recorded();
    let victim = Process {
        pid: kill.victim.tgid,
        start: Some(Boottime(kill.victim.start_boottime)),
    };
    match kill.memcg {
        0 => seen.before_kill_on_node(victim, Boottime(kill.id)),
        cgroup => seen.before_kill_in(cgroup, victim, Boottime(kill.id)),
    }
}
