//! A parked sandbox becomes somebody's.

use hearth_runtime::cgroup::{self, Limits, Outcome, Report};
use hearth_runtime::id::{FunctionName, SandboxId};
use hearth_runtime::journal::Entry;
use hearth_runtime::sandbox::Resources;
use hearth_runtime::sandbox::ask::{Answer, Claimed, Listed};

use crate::clients::{Asker, Clients};
use crate::log::say;
use crate::sandbox::{Sandbox, State};
use crate::spawner::{STOPPING, Spawner};

/// Claims that may wait at once.
const MOST_WANTED: usize = 256;
/// Sandboxes in one answer: their text must fit into the head of a frame.
const LISTED: usize = 128;

/// A claim that found none parked.
#[derive(Debug)]
pub(crate) struct Wanted {
    asker: Asker,
    function: FunctionName,
    limits: Limits,
}

/// Why a sandbox is not handed over.
enum Unfit {
    /// It is the sandbox: another one may do.
    Sandbox(String),
    /// It is what was asked for.
    Asked(cgroup::Error),
}

impl Spawner {
    pub(crate) fn claim(
        &mut self,
        asker: Asker,
        function: FunctionName,
        resources: &Resources,
        clients: &mut Clients,
    ) {
        let limits = match resources.limits() {
            Ok(limits) => limits,
            Err(error) => return self.refuse(asker, &error.to_string(), false, clients),
        };
        if self.stop.is_some() {
            return self.refuse(asker, STOPPING, true, clients);
        }
        let mut wanted = Some(Wanted {
            asker,
            function,
            limits,
        });
        if self.wanted.is_empty() {
            wanted = wanted.and_then(|wanted| self.give(wanted, true, clients));
        }
        if let Some(wanted) = wanted {
            self.wait_for_one(wanted, clients);
        }
    }

    /// Of those that are parked, the first that will do. The claim again where none does.
    fn give(&mut self, wanted: Wanted, was_parked: bool, clients: &mut Clients) -> Option<Wanted> {
        while let Some(number) = self.parked.pop_front() {
            match self.hand_over(number, &wanted, was_parked) {
                Ok(claimed) => {
                    self.counts.hits += u64::from(was_parked);
                    self.counts.misses += u64::from(!was_parked);
                    clients.answer(wanted.asker, Answer::Claimed(claimed), &self.poll);
                    return None;
                }
                Err(Unfit::Sandbox(why)) => {
                    say!("a parked sandbox cannot be used: {why}");
                    self.end(number, false);
                }
                Err(Unfit::Asked(error)) => {
                    // Some of the limits may hold.
                    self.end(number, false);
                    self.refuse(wanted.asker, &error.to_string(), false, clients);
                    return None;
                }
            }
        }
        Some(wanted)
    }

    /// The order matters: whoever is told of a sandbox finds it in the journal, and one that goes
    /// on without the spawner was in there before.
    fn hand_over(
        &mut self,
        number: u32,
        wanted: &Wanted,
        was_parked: bool,
    ) -> Result<Claimed, Unfit> {
        let gone = || Unfit::Sandbox("it is gone".to_owned());
        let sandbox = self.sandboxes.get_mut(&number).ok_or_else(gone)?;
        sandbox.slot.limit(&wanted.limits).map_err(|error| {
            if error.is_gone() {
                Unfit::Sandbox(error.to_string())
            } else {
                Unfit::Asked(error)
            }
        })?;
        let State::Parked { control } = &sandbox.state else {
            return Err(gone());
        };
        let process = sandbox.init.as_ref().ok_or_else(gone)?.process;
        let entry = Entry::Claimed {
            sandbox: sandbox.id,
            epoch: sandbox.epoch,
            function: wanted.function.clone(),
            before: sandbox.slot.baseline(),
        };
        self.journal
            .append(entry)
            .map_err(|error| Unfit::Sandbox(error.to_string()))?;
        rustix::io::write(control, b"c")
            .map_err(|error| Unfit::Sandbox(format!("its hearth-init is gone: {error}")))?;
        sandbox.state = State::Claimed;
        sandbox.function = Some(wanted.function.clone());
        sandbox.slot.close_files();
        let path = sandbox.slot.cgroup.path();
        let below = self
            .mounts
            .iter()
            .filter_map(|mount| path.strip_prefix(mount).ok())
            .min_by_key(|rest| rest.as_os_str().len());
        Ok(Claimed {
            sandbox: sandbox.id,
            epoch: sandbox.epoch,
            init: process,
            slot: sandbox.name,
            cgroup: format!("/{}", below.unwrap_or(path).display()),
            was_parked,
            limits: told(&sandbox.slot.limits),
        })
    }

    /// Makes one now, unless one is on its way already.
    fn wait_for_one(&mut self, wanted: Wanted, clients: &mut Clients) {
        if self.wanted.len() >= MOST_WANTED {
            let why = format!("{MOST_WANTED} claims wait already");
            return self.refuse(wanted.asker, &why, true, clients);
        }
        self.wanted.push_back(wanted);
        if self.parking() < self.wanted.len()
            && let Err(error) = self.park()
        {
            say!("no new sandbox: {error}");
            if let Some(wanted) = self.wanted.pop_back() {
                self.refuse(wanted.asker, &error.to_string(), true, clients);
            }
        }
    }

    /// To whom waits, in the order in which they came.
    pub(crate) fn serve_wanted(&mut self, clients: &mut Clients) {
        while !self.parked.is_empty()
            && let Some(wanted) = self.wanted.pop_front()
        {
            if !clients.is_there(wanted.asker) {
                continue;
            }
            if let Some(wanted) = self.give(wanted, false, clients) {
                self.wanted.push_front(wanted);
            }
        }
    }

    /// Whoever waits longest waits in vain.
    pub(crate) fn refuse_first(&mut self, why: &str, clients: &mut Clients) {
        if let Some(wanted) = self.wanted.pop_front() {
            self.refuse(wanted.asker, why, true, clients);
        }
    }

    pub(crate) fn refuse_all(&mut self, why: &str, clients: &mut Clients) {
        while !self.wanted.is_empty() {
            self.refuse_first(why, clients);
        }
    }

    pub(crate) fn refuse(&self, asker: Asker, why: &str, again: bool, clients: &mut Clients) {
        let why = why.chars().take(2000).collect();
        clients.answer(asker, Answer::Refused { why, again }, &self.poll);
    }

    pub(crate) fn list(&self, after: Option<SandboxId>) -> Answer {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        let numbers = self
            .by_id
            .range((from, Unbounded))
            .map(|(_, number)| number);
        let sandboxes = numbers.filter_map(|number| self.sandboxes.get(number));
        let mut claimed: Vec<Listed> = sandboxes.filter_map(listed).take(LISTED + 1).collect();
        let more = claimed.len() > LISTED;
        claimed.truncate(LISTED);
        Answer::Sandboxes { claimed, more }
    }
}

fn listed(sandbox: &Sandbox) -> Option<Listed> {
    if !matches!(sandbox.state, State::Claimed) {
        return None;
    }
    Some(Listed {
        sandbox: sandbox.id,
        epoch: sandbox.epoch,
        function: sandbox.function.clone()?,
        slot: sandbox.name,
        init: sandbox.init.as_ref()?.process,
        adopted: sandbox.adopted,
    })
}

fn told(report: &Report) -> Vec<(String, Result<String, String>)> {
    let all = report.0.iter().map(|(setting, outcome)| {
        let outcome = match outcome {
            Outcome::Applied(value) => Ok(value.clone()),
            Outcome::Unsupported(why) => Err((*why).to_owned()),
        };
        (setting.to_string(), outcome)
    });
    all.collect()
}
