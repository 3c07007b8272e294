//! The daemon's part for healings: each is told with what it has to do with, which is told a little
//! earlier or later.

use std::collections::VecDeque;

use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::export::{Export, HealLink, TraceContext};
use crate::observe::cold_start::ColdStart;
use crate::observe::healing::Healing;
use crate::observe::oom::keeper::Kept;
use crate::time::{Boottime, Nanos};

/// Healings on their way to here.
const ON_THE_WAY: usize = 256;
/// Healings that wait for what they have to do with.
const WAITING: usize = 256;
/// Starts that are remembered: sandboxes that may be lost yet.
const STARTS: usize = 4096;
/// Kills that are remembered.
const KILLS: usize = 256;
/// How long a healing waits: a start is told a second after it at most, a capture when its victim's
/// threads have ended.
const PATIENCE: Nanos = Nanos(3_000_000_000);

/// Healings as they come.
pub(super) struct Healings {
    come: Receiver<Healing>,
    waiting: VecDeque<(Boottime, Healing)>,
    starts: VecDeque<(Boottime, TraceContext)>,
    kills: VecDeque<Kill>,
}

struct Kill {
    at: Boottime,
    cgroups: Vec<String>,
    link: HealLink,
}

/// Who tells them, and who takes them.
pub(super) fn healings() -> (impl Fn(Healing) + Send + Sync + 'static, Healings) {
    let (tell, come) = channel(ON_THE_WAY);
    let tell = move |healing| offer(&tell, healing);
    let healings = Healings {
        come,
        waiting: VecDeque::new(),
        starts: VecDeque::new(),
        kills: VecDeque::new(),
    };
    (tell, healings)
}

/// It is in the audit, whoever hears of it.
fn offer(tell: &Sender<Healing>, healing: Healing) {
    if tell.try_send(healing).is_err() {
        tracing::warn!("a healing is not told: too many wait, or hearth ends");
    }
}

impl Healings {
    /// The next one.
    pub(super) async fn next(&mut self) -> Option<Healing> {
        self.come.recv().await
    }

    /// It waits for what it has to do with.
    pub(super) fn take_in(&mut self, healing: Healing, export: &mut Export) {
        if self.waiting.len() >= WAITING
            && let Some((_, first)) = self.waiting.pop_front()
        {
            self.tell(&first, export);
        }
        let until = Boottime(Boottime::now().0.saturating_add(PATIENCE.0));
        self.waiting.push_back((until, healing));
    }

    /// A cold start was told.
    pub(super) fn started(&mut self, start: &ColdStart, context: TraceContext) {
        if start.opener == "claim" {
            remember(&mut self.starts, STARTS, (start.begin, context));
        }
    }

    /// A kill was told.
    pub(super) fn killed(&mut self, kept: &Kept) {
        let capture = &kept.capture;
        let cgroups = [&capture.victim.cgroup.path, &capture.cgroup.path];
        let digits = |digits: &str| u128::from_str_radix(digits, 16).ok();
        let context = capture.trace.value().and_then(|trace| {
            Some(TraceContext {
                trace_id: digits(&trace.trace_id)?,
                span_id: u64::try_from(digits(&trace.span_id)?).ok()?,
            })
        });
        let kill = Kill {
            at: capture.killed,
            cgroups: cgroups
                .into_iter()
                .filter_map(|path| path.value().cloned())
                .collect(),
            link: HealLink {
                what: "oom",
                context,
                capture: Some(capture.id.as_str().to_owned()),
            },
        };
        remember(&mut self.kills, KILLS, kill);
    }

    /// Tells those of which all is known, and those that have waited for long enough.
    pub(super) fn advance(&mut self, now: Boottime, export: &mut Export) {
        for _ in 0..self.waiting.len() {
            let Some((until, healing)) = self.waiting.pop_front() else {
                return;
            };
            if now >= until || self.is_whole(&healing) {
                self.tell(&healing, export);
            } else {
                self.waiting.push_back((until, healing));
            }
        }
    }

    /// Tells all that there are.
    pub(super) fn finish(&mut self, export: &mut Export) {
        while let Ok(healing) = self.come.try_recv() {
            self.take_in(healing, export);
        }
        self.advance(Boottime(u64::MAX), export);
    }

    fn tell(&self, healing: &Healing, export: &mut Export) {
        export.healing(healing, &self.links(healing));
    }

    fn is_whole(&self, healing: &Healing) -> bool {
        let links = self.links(healing);
        let has = |what: &str| links.iter().any(|link| link.what == what);
        let replaced = healing.actions.iter().any(|one| one.claimed.is_some());
        let killed = healing.fault == "oom_killed";
        (!replaced || has("cold_start")) && (!killed || has("oom"))
    }

    fn links(&self, healing: &Healing) -> Vec<HealLink> {
        let start = |what, claimed: Option<Boottime>| {
            let mut starts = self.starts.iter().rev();
            let (_, context) = starts.find(|(begin, _)| Some(*begin) == claimed)?;
            Some(HealLink {
                what,
                context: Some(*context),
                capture: None,
            })
        };
        let claimed = healing.actions.iter().find_map(|action| action.claimed);
        let lost = healing.lost.as_ref();
        let lost_start = lost.and_then(|lost| lost.claimed);
        let kill = lost.and_then(|lost| {
            let cgroup = lost.cgroup.as_ref()?;
            let since = lost.claimed.unwrap_or_default();
            let mut kills = self.kills.iter().rev();
            kills.find(|kill| {
                kill.cgroups.contains(cgroup) && (since..=healing.at).contains(&kill.at)
            })
        });
        [
            start("cold_start", claimed),
            start("lost_start", lost_start),
            kill.map(|kill| kill.link.clone()),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// The oldest goes where there are too many.
fn remember<T>(all: &mut VecDeque<T>, most: usize, one: T) {
    if all.len() >= most {
        all.pop_front();
    }
    all.push_back(one);
}
