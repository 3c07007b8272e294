//! What is waited for.

use std::io;
use std::time::Instant;

use hearth_runtime::sandbox::message::Stream;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::{Ground, Service, api};

/// Where something is to be done.
#[derive(Clone, Copy)]
pub(super) enum Source {
    /// Somebody connects to the channel.
    Callers,
    /// Who is connected says something, or takes more.
    Agent,
    /// The function connects to the Runtime API.
    Clients,
    /// A connection of the function.
    Client(api::Id),
    /// The function wrote something.
    Output(Stream),
    /// A call that is not allowed was made.
    Refusal,
    /// Nobody is left who could make one.
    NoRefusals,
    /// A process has ended.
    Ended,
}

impl<G: Ground> Service<G> {
    /// Since when somebody is connected, and whether all that was told has been sent.
    pub(super) fn connected(&self) -> Option<(Instant, bool)> {
        let since = self.agent.since()?;
        let (_, waits) = self.agent.connection()?;
        Some((since, !waits))
    }

    /// Waits until something is to be done, or something is late; where.
    pub(super) fn wait(&self) -> io::Result<Vec<Source>> {
        let mut sources = Vec::new();
        let mut polled = Vec::new();
        let mut add = |source, descriptor, flags| {
            sources.push(source);
            polled.push(PollFd::from_borrowed_fd(descriptor, flags));
        };
        add(Source::Callers, self.agent.listener(), PollFlags::IN);
        if let Some((connection, writes)) = self.agent.connection() {
            let mut flags = PollFlags::IN;
            flags.set(PollFlags::OUT, writes);
            add(Source::Agent, connection, flags);
        }
        if !self.life.is_over() {
            for (stream, pipe) in self.output.pipes() {
                add(Source::Output(stream), pipe, PollFlags::IN);
            }
            if let Some(listener) = self.refusals.descriptor() {
                add(Source::Refusal, listener, PollFlags::IN);
            }
            for (id, connection, is_deaf) in self.api.connections() {
                let flags = if is_deaf {
                    PollFlags::OUT
                } else {
                    PollFlags::IN
                };
                add(Source::Client(id), connection, flags);
            }
            add(Source::Clients, self.api.listener(), PollFlags::IN);
        }
        // The last, since what a process said before its end is heard before it.
        if let Some(ended) = self.ground.ended() {
            add(Source::Ended, ended, PollFlags::IN);
        }
        let until = [self.life.next(self.connected()), self.tick];
        let timeout = until.into_iter().flatten().min().map(left);
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
        let ready = sources.into_iter().zip(&polled);
        let ready = ready.filter_map(|(source, polled)| {
            let events = polled.revents();
            match source {
                _ if events.is_empty() => None,
                Source::Refusal if !events.contains(PollFlags::IN) => Some(Source::NoRefusals),
                source => Some(source),
            }
        });
        Ok(ready.collect())
    }
}

fn left(until: Instant) -> Timespec {
    let left = until.saturating_duration_since(Instant::now());
    Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: left.subsec_nanos().into(),
    }
}
