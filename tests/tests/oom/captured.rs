//! What the kernel side says of kills, before anything has been made of it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hearth::kernel::drain::Events;
use hearth::kernel::event::{Event, OomEvent};
use hearth::kernel::ledger::LedgerLine;
use hearth::kernel::oom::OomLimits;
use hearth::kernel::probes::{Probes, Request};
use hearth::kernel::table::Signal;
use hearth_abi::{Fate, OomEnd, OomKill, OomMemory, OomThread, OomVma, Probe};

/// How long a record may take on a machine that does other things.
const PATIENCE: Duration = Duration::from_secs(20);

/// Everything of one victim.
#[derive(Debug, Default)]
pub(crate) struct Capture {
    pub(crate) kills: Vec<OomKill>,
    pub(crate) threads: Vec<OomThread>,
    pub(crate) vmas: Vec<OomVma>,
    pub(crate) memories: Vec<OomMemory>,
    pub(crate) ends: Vec<OomEnd>,
}

impl Capture {
    /// The one kill.
    pub(crate) fn kill(&self) -> Result<&OomKill> {
        ensure!(self.kills.len() == 1, "{} kills", self.kills.len());
        Ok(&self.kills[0])
    }
}

/// The probes, and what they have said so far.
pub(crate) struct Captures {
    probes: Probes,
    events: Events,
    said: Vec<OomEvent>,
}

impl Captures {
    pub(crate) fn start(limits: OomLimits) -> Result<Self> {
        Self::without(limits, &[])
    }

    /// As if this kernel did not take these programs.
    pub(crate) fn without(limits: OomLimits, programs: &[&'static str]) -> Result<Self> {
        let request = Request {
            oom: limits,
            without: programs.to_vec(),
            ..Request::of([Signal::Oom])
        };
        let (probes, events) = Probes::start(&request)?;
        for line in probes.report() {
            ensure!(line.strategy.is_some(), "{line:#?}");
        }
        Ok(Self {
            probes,
            events,
            said: Vec::new(),
        })
    }

    /// The strategy that a kind got.
    pub(crate) fn strategy(&self, kind: &str) -> Option<String> {
        self.probes.strategies().get(kind).cloned()
    }

    fn take(&mut self) {
        let mut batch = Vec::new();
        self.events.take(&mut batch);
        self.said.extend(batch.into_iter().filter_map(|event| {
            let Event::Oom(event) = event else {
                return None;
            };
            Some(event)
        }));
    }

    /// What was said of a process so far.
    pub(crate) fn of(&mut self, tgid: u32) -> Capture {
        self.take();
        let mut capture = Capture::default();
        for event in &self.said {
            match event {
                OomEvent::Kill(kill) if kill.victim.tgid == tgid => capture.kills.push(**kill),
                OomEvent::Thread(thread) if thread.task.tgid == tgid => {
                    capture.threads.push(**thread);
                }
                OomEvent::Vma(vma) if vma.tgid == tgid => capture.vmas.push(**vma),
                OomEvent::Memory(memory) if memory.tgid == tgid => capture.memories.push(**memory),
                OomEvent::End(end) if end.tgid == tgid => capture.ends.push(**end),
                _ => {}
            }
        }
        capture
    }

    /// The same when its kill and its end have been told.
    pub(crate) fn whole(&mut self, tgid: u32) -> Result<Capture> {
        let begin = Instant::now();
        loop {
            let capture = self.of(tgid);
            if !capture.kills.is_empty() && !capture.ends.is_empty() {
                // Threads that were under way when the last one left.
                std::thread::sleep(Duration::from_millis(50));
                return Ok(self.of(tgid));
            }
            ensure!(
                begin.elapsed() < PATIENCE,
                "of process {tgid}: {} kills, {} threads, {} ends; {:#?}",
                capture.kills.len(),
                capture.threads.len(),
                capture.ends.len(),
                self.ledger()?
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Every kill so far.
    pub(crate) fn kills(&mut self) -> Vec<OomKill> {
        self.take();
        let kill = |event: &OomEvent| match event {
            OomEvent::Kill(kill) => Some(**kill),
            _ => None,
        };
        self.said.iter().filter_map(kill).collect()
    }

    fn ledger(&self) -> Result<Vec<LedgerLine>> {
        let mut ledger = self.probes.ledger()?;
        ledger.retain(|line| line.probe.name().starts_with("oom_"));
        Ok(ledger)
    }

    /// That nothing was lost, and that what the ledger counts is what came.
    pub(crate) fn balance(&mut self) -> Result<()> {
        for line in self.ledger()? {
            ensure!(line.dropped() == 0, "{line:?}");
        }
        // Others can be killed meanwhile.
        let least = self.submitted()?;
        let begin = Instant::now();
        while (self.kills().len() as u64) < least {
            let came = self.kills().len();
            ensure!(begin.elapsed() < PATIENCE, "{came} of {least} came");
            std::thread::sleep(Duration::from_millis(5));
        }
        let came = self.kills().len() as u64;
        let most = self.submitted()?;
        ensure!(came <= most, "{most} submitted, {came} came");
        Ok(())
    }

    /// Kills that the kernel side has made a record of.
    fn submitted(&self) -> Result<u64> {
        let ledger = self.ledger()?;
        let line = ledger.iter().find(|line| line.probe == Probe::OomKill);
        let line = line.context("the ledger has no such line")?;
        Ok(line.count(Fate::Submitted))
    }
}
