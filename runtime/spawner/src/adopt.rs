//! What a former spawner left: claimed sandboxes go on, all else is taken away.

use anyhow::{Context as _, Result};
use hearth_runtime::cgroup::{Cgroup, Name, Slot};
use hearth_runtime::journal::{Life, Replay};

use crate::log::say;
use crate::poll::Source;
use crate::sandbox::{Init, Sandbox, State};
use crate::spawner::Spawner;

impl Spawner {
    /// Takes up what the journal says, and takes away what it does not speak of.
    pub(crate) fn take_over(&mut self, replay: &Replay) -> Result<()> {
        if replay.other_version {
            say!("the journal is of another version of hearth: all that there was is taken away");
        }
        if replay.damaged > 0 {
            say!(
                "{} damaged lines of the journal were left out",
                replay.damaged
            );
        }
        for life in replay.lives.iter() {
            self.take_up(life)
                .with_context(|| format!("take up sandbox {}", life.sandbox))?;
        }
        let adopted = self.sandboxes.values().filter(|one| one.adopted).count();
        if !self.sandboxes.is_empty() {
            let ended = self.sandboxes.len() - adopted;
            say!(
                "of the spawner before this one: {adopted} sandboxes go on, {ended} are taken away"
            );
        }
        self.sweep_cgroups()?;
        self.sweep_sockets()
    }

    fn take_up(&mut self, life: &Life) -> Result<()> {
        let name = Name::new(life.slot.to_string())?;
        let cgroup = Cgroup::open(&self.subtree, name)?;
        let pidfd = match life.process {
            Some(process) => process.open()?.map(|pidfd| (process, pidfd)),
            None => None,
        };
        let init = pidfd.map(|(process, pidfd)| Init {
            process,
            pidfd,
            is_child: false,
            exit: None,
        });
        let goes_on = init.is_some() && life.function.is_some();
        if let Some(init) = &init {
            self.poll.add(&init.pidfd, Source::Adopted(life.slot.0))?;
        }
        let sandbox = Sandbox {
            id: life.sandbox,
            epoch: life.epoch,
            name: life.slot,
            slot: Slot::adopt(cgroup, life.before),
            init,
            function: life.function.clone(),
            adopted: goes_on,
            state: if goes_on {
                State::Claimed
            } else {
                State::Begun
            },
        };
        self.by_id.insert(life.sandbox, life.slot.0);
        self.sandboxes.insert(life.slot.0, sandbox);
        if !goes_on {
            self.end(life.slot.0, false);
        }
        Ok(())
    }

    /// Nobody else makes cgroups in ours: those of no life are of one whose end was not yet clean.
    fn sweep_cgroups(&mut self) -> Result<()> {
        for name in self.subtree.names()? {
            let is_known = |one: &Sandbox| one.slot.cgroup.name() == &name;
            if self.sandboxes.values().any(is_known) {
                continue;
            }
            match Cgroup::open(&self.subtree, name) {
                Ok(cgroup) => self.pool.discard(cgroup),
                Err(error) => say!("a cgroup of nobody stays: {error}"),
            }
        }
        Ok(())
    }

    fn sweep_sockets(&mut self) -> Result<()> {
        let directory = self.places.sandboxes();
        let list = || format!("list {}", directory.display());
        for entry in std::fs::read_dir(&directory).with_context(list)? {
            let path = entry.with_context(list)?.path();
            let mut known = self.by_id.keys().map(|id| self.places.sandbox(*id));
            if known.any(|known| known == path) {
                continue;
            }
            if let Err(error) = std::fs::remove_file(&path) {
                say!("{} is nobody's and stays: {error}", path.display());
            }
        }
        Ok(())
    }
}
