//! The end of a sandbox: it is over when nothing of it is left, and told when it is over.

use std::time::{Duration, Instant};

use hearth_runtime::id::SandboxId;
use hearth_runtime::journal::Entry;
use hearth_runtime::sandbox::ask::{Answer, Ended};
use hearth_runtime::sandbox::message::Exit;
use rustix::io::Errno;
use rustix::process::{Signal, WaitOptions, WaitStatus, pidfd_send_signal, wait};

use crate::clients::{Asker, Clients};
use crate::log::say;
use crate::sandbox::{Ending, Sandbox, State};
use crate::spawner::{STUCK, Spawner};

/// Between looks at one that is not gone yet: at first, and at most.
const FIRST: Duration = Duration::from_millis(2);
const LAST: Duration = Duration::from_secs(1);
/// One that is still there then is killed as a whole.
const STUBBORN: Duration = Duration::from_millis(100);
/// How long a kill that has not worked at first may hold up all others.
const KILL: Duration = Duration::from_millis(2);
/// How many that ended by themselves are remembered for their owners.
const REMEMBERED: usize = 1024;
/// Who may wait for the end of one sandbox.
const MOST_ASKERS: usize = 64;

impl Spawner {
    pub(crate) fn end_asked(&mut self, asker: Asker, id: SandboxId, clients: &mut Clients) {
        let number = self.by_id.get(&id).copied();
        let sandbox = number.and_then(|number| self.sandboxes.get_mut(&number));
        // It may have ended by itself a moment before: how is what its owner wants to know.
        if sandbox.is_none()
            && let Some(index) = self.ended.iter().position(|ended| ended.sandbox == id)
            && let Some(ended) = self.ended.remove(index)
        {
            return clients.answer(asker, Answer::Ended(ended), &self.poll);
        }
        let Some(sandbox) = sandbox.filter(|one| one.function.is_some()) else {
            let why = format!("sandbox {id} is not there: it has ended, or was never claimed");
            return self.refuse(asker, &why, false, clients);
        };
        let number = sandbox.name.0;
        self.end(number, false);
        let sandbox = self.sandboxes.get_mut(&number);
        if let Some(State::Ending(ending)) = sandbox.map(|sandbox| &mut sandbox.state) {
            if ending.askers.len() < MOST_ASKERS {
                ending.askers.push(asker);
            } else {
                let why = format!("{MOST_ASKERS} others wait for the end of {id}");
                self.refuse(asker, &why, true, clients);
            }
        }
    }

    /// Begins the end: from now on it is nobody's.
    pub(crate) fn end(&mut self, number: u32, by_itself: bool) {
        let Some(sandbox) = self.sandboxes.get_mut(&number) else {
            return;
        };
        if sandbox.is_ending() {
            return;
        }
        let now = Instant::now();
        let ending = State::Ending(Ending {
            since: now,
            due: now,
            pause: FIRST,
            askers: Vec::new(),
            by_itself,
        });
        match std::mem::replace(&mut sandbox.state, ending) {
            State::Parking { control, .. } => self.poll.remove(&control),
            State::Parked { .. } => self.parked.retain(|parked| *parked != number),
            State::Begun | State::Claimed | State::Ending(_) => {}
        }
        kill(sandbox);
    }

    /// Children that have ended. Those that are none of the sandboxes lost their parents.
    pub(crate) fn reap(&mut self, clients: &mut Clients) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let is_it = |one: &&Sandbox| {
                let init = one.init.as_ref().filter(|init| init.is_child);
                init.is_some_and(|init| i32::try_from(init.process.pid) == Ok(pid.as_raw_pid()))
            };
            let number = self.sandboxes.values().find(is_it).map(|one| one.name.0);
            if let Some(number) = number {
                self.init_ended(number, how(status), clients);
            }
        }
    }

    pub(crate) fn init_ended(&mut self, number: u32, exit: Exit, clients: &mut Clients) {
        let Some(sandbox) = self.sandboxes.get_mut(&number) else {
            return;
        };
        let Some(init) = &mut sandbox.init else {
            return;
        };
        if init.exit.replace(exit).is_some() {
            return;
        }
        if !init.is_child {
            self.poll.remove(&init.pidfd);
        }
        match &sandbox.state {
            // What it said last is still in the socket.
            State::Parking { .. } => {
                self.hear(number, clients);
                let sandbox = self.sandboxes.get(&number);
                if sandbox.is_some_and(|sandbox| !sandbox.is_ending()) {
                    self.end(number, false);
                    let why = format!("hearth-init ended before it was ready: {exit}");
                    self.parking_failed(&why, clients);
                }
            }
            State::Parked { .. } => {
                say!("a parked sandbox has ended: {exit}");
                self.end(number, false);
            }
            State::Claimed => self.end(number, true),
            State::Begun | State::Ending(_) => {}
        }
        self.tidy(number, clients);
    }

    /// Looks after all whose time has come.
    pub(crate) fn tidy_due(&mut self, clients: &mut Clients) {
        let now = Instant::now();
        let mut due = Vec::new();
        for sandbox in self.sandboxes.values() {
            match &sandbox.state {
                State::Ending(ending) if ending.due <= now => due.push(sandbox.name.0),
                State::Parking { until, .. } if *until <= now => due.push(sandbox.name.0),
                _ => {}
            }
        }
        for number in due {
            let sandbox = self.sandboxes.get(&number);
            if sandbox.is_some_and(|sandbox| !sandbox.is_ending()) {
                self.end(number, false);
                self.parking_failed("hearth-init did not get ready in time", clients);
            }
            self.tidy(number, clients);
        }
    }

    /// Takes away what is left, if that can be done now.
    fn tidy(&mut self, number: u32, clients: &mut Clients) {
        let Some(sandbox) = self.sandboxes.get_mut(&number) else {
            return;
        };
        let State::Ending(ending) = &mut sandbox.state else {
            return;
        };
        let pause = ending.pause;
        ending.due = Instant::now() + pause;
        ending.pause = (pause * 2).min(LAST);
        // Once, or nearly.
        if (STUCK..STUCK + LAST).contains(&ending.since.elapsed()) {
            say!(
                "sandbox {} of {} does not end; it is tried again",
                sandbox.id,
                sandbox.name
            );
        }
        if is_inhabited(sandbox) {
            // The first look comes right after the kill.
            if pause > FIRST {
                kill(sandbox);
            }
            if pause > STUBBORN {
                let _ = sandbox.slot.cgroup.kill(Instant::now() + KILL);
            }
            return;
        }
        let usage = sandbox.slot.usage().unwrap_or_default();
        match std::fs::remove_file(self.places.sandbox(sandbox.id)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                say!(
                    "the socket of sandbox {} cannot be removed: {error}",
                    sandbox.id
                );
                return;
            }
            _ => {}
        }
        let entry = Entry::End {
            sandbox: sandbox.id,
            epoch: sandbox.epoch,
        };
        if let Err(error) = self.journal.append(entry) {
            say!("{error}");
            return;
        }
        let Some(sandbox) = self.sandboxes.remove(&number) else {
            return;
        };
        self.by_id.remove(&sandbox.id);
        let memory = usage.memory.as_ref();
        let ended = Ended {
            sandbox: sandbox.id,
            how: sandbox
                .init
                .and_then(|init| init.exit)
                .unwrap_or(Exit::Unknown),
            oom_kills: memory.and_then(|memory| memory.oom_kills),
            peak_bytes: memory.and_then(|memory| memory.peak),
            cpu: usage.cpu.used,
        };
        self.pool.give_back(sandbox.slot);
        if let State::Ending(ending) = sandbox.state {
            if ending.by_itself {
                clients.tell(&Answer::Ended(ended.clone()), &self.poll);
                if ending.askers.is_empty() {
                    self.ended.truncate(REMEMBERED - 1);
                    self.ended.push_front(ended.clone());
                }
            }
            for asker in ending.askers {
                clients.answer(asker, Answer::Ended(ended.clone()), &self.poll);
            }
        }
    }
}

/// Whether anything in it still runs, as far as can be seen.
fn is_inhabited(sandbox: &Sandbox) -> bool {
    let runs = sandbox
        .init
        .as_ref()
        .is_some_and(|init| init.exit.is_none());
    runs || match sandbox.slot.cgroup.is_populated() {
        Ok(populated) => populated,
        Err(error) => !error.is_gone(),
    }
}

/// Sends all of it to its end. The first process takes its pid namespace with it.
fn kill(sandbox: &Sandbox) {
    if let Some(init) = sandbox.init.as_ref().filter(|init| init.exit.is_none()) {
        match pidfd_send_signal(&init.pidfd, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => say!("process {} cannot be killed: {error}", init.process.pid),
        }
    }
    match sandbox.slot.cgroup.begin_kill() {
        Err(error) if !error.is_gone() => say!("{error}"),
        _ => {}
    }
}

fn how(status: WaitStatus) -> Exit {
    if let Some(code) = status.exit_status() {
        return Exit::Code(code);
    }
    status
        .terminating_signal()
        .map_or(Exit::Unknown, Exit::Signal)
}
