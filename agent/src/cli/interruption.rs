//! Being asked to end.

use std::io;

/// The signals by which a terminal, a service manager or `timeout` asks us to end. The command
/// is ours to end then: nobody else knows of it.
#[derive(Debug)]
pub(super) struct Interruption([tokio::signal::unix::Signal; 3]);

impl Interruption {
    /// From now on.
    pub(super) fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    /// Waits for one.
    pub(super) async fn arrived(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
