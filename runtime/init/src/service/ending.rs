//! How requests end, and how all of it does; and in which order that is told: what the function
//! wrote, which calls were refused, and then the end.

use std::time::{Duration, Instant};

use hearth_runtime::id::RequestId;
use hearth_runtime::sandbox::message::{Exit, FromSandbox, NotStarted, fault};

use super::life::At;
use super::piece::Piece;
use super::{Ground, Service};

/// How often what waits for an end is told without one.
const TICK: Duration = Duration::from_secs(1);
/// Chunks that are read from a connection whose other end may be gone: the largest answer, in part
/// in the kernel's buffers.
const LAST_BREATH: usize = 1024;

/// An error as a function would tell it.
fn error(kind: &str, message: &str) -> Vec<u8> {
    let error = serde_json::json!({"errorType": kind, "errorMessage": message});
    error.to_string().into_bytes()
}

impl<G: Ground> Service<G> {
    pub(super) fn tell(&mut self, message: FromSandbox) {
        let request = self.life.request();
        self.agent.tell(Piece::new(message, request, Vec::new()));
    }

    /// The request is none that the function was given.
    pub(super) fn refuse(&mut self, request: RequestId, why: &str) {
        let kind = fault::REFUSED.to_owned();
        let body = error(&kind, why);
        let failed = FromSandbox::Failed { kind };
        self.agent.tell(Piece::new(failed, Some(request), body));
    }

    /// The function's work is over.
    pub(super) fn conclude(&mut self, message: FromSandbox, body: Vec<u8>) {
        let Some(work) = self.life.work() else { return };
        self.output.drain(Some(work.request));
        self.send_all_logs();
        let piece = Piece::new(message, Some(work.request), body);
        self.life.conclude(work, piece.clone());
        self.agent.tell(piece);
    }

    fn fail(&mut self, kind: &str, why: &str) {
        let kind = kind.to_owned();
        let body = error(&kind, why);
        self.conclude(FromSandbox::Failed { kind }, body);
    }

    /// What a function is doing cannot be undone: all of it ends.
    pub(super) fn give_up(&mut self, kind: &str, why: &str) {
        self.ground.kill();
        self.fail(kind, why);
        self.life.end(Instant::now(), None);
    }

    pub(super) fn not_started(&mut self, why: NotStarted, body: Vec<u8>) {
        self.end(FromSandbox::NotStarted { why }, body);
    }

    /// The function's first process has ended, and with it everything.
    pub(super) fn exited(&mut self, how: Exit) {
        if self.life.is_over() {
            return;
        }
        // First, so that nobody writes for ever what is read now.
        self.ground.kill();
        self.api.accept();
        for id in self.api.ids() {
            self.serve(id, LAST_BREATH);
        }
        match self.life.at {
            At::Over { .. } => {}
            At::Parked { .. } | At::Starting { .. } => {
                self.not_started(NotStarted::Exited { how }, Vec::new());
            }
            At::Ready | At::Work(_) => {
                self.fail(fault::EXITED, &format!("the function ended: {how}"));
                self.end(FromSandbox::Exited { how }, Vec::new());
            }
        }
    }

    fn end(&mut self, message: FromSandbox, body: Vec<u8>) {
        self.ground.kill();
        self.output.drain(None);
        self.send_all_logs();
        let piece = Piece::new(message, None, body);
        self.life.end(Instant::now(), Some(piece.clone()));
        self.agent.tell(piece);
    }

    /// As much of the log as is taken soon.
    pub(super) fn send_logs(&mut self) {
        self.output.logs.lose(self.agent.lost());
        while self.agent.has_room()
            && let Some(log) = self.output.logs.take()
        {
            self.agent.tell(Piece::log(log));
        }
    }

    /// All of it, to whoever is connected, since an end follows.
    pub(super) fn send_all_logs(&mut self) {
        self.output.logs.lose(self.agent.lost());
        while self.agent.since().is_some()
            && let Some(log) = self.output.logs.take()
        {
            self.agent.tell(Piece::log(log));
        }
        self.tell_refusals();
    }

    fn tell_refusals(&mut self) {
        if self.agent.since().is_some() && !self.refusals.is_empty() {
            let calls = self.refusals.take();
            self.tell(FromSandbox::Refused { calls });
        }
    }

    /// Tells parts of lines and refused calls where no end of a request does.
    pub(super) fn on_tick(&mut self, now: Instant) {
        let refused = self.agent.since().is_some() && !self.refusals.is_empty();
        match self.tick {
            None if refused || self.output.has_parts() => self.tick = Some(now + TICK),
            Some(tick) if tick <= now => {
                self.tick = None;
                self.output.flush(self.life.request());
                self.tell_refusals();
            }
            _ => {}
        }
    }
}
