//! The daemon's part for the `retransmit` signal: from counts to what is told.

use crate::export::Export;
use crate::kernel::probes::{Probes, ProbesError};
use crate::observe::cold_start::Tracker;
use crate::observe::retransmit::{Sent, Tally};
use crate::time::Boottime;

/// What the daemon keeps of the signal.
#[derive(Debug, Default)]
pub(super) struct Retransmits {
    tally: Tally,
    sent: Sent,
}

impl Retransmits {
    /// Reads what was counted, and tells what is new.
    pub(super) fn read(
        &mut self,
        probes: &mut Probes,
        tracker: &mut Tracker,
        export: &mut Export,
    ) -> Result<(), ProbesError> {
        let now = Boottime::now();
        if let Some(snapshot) = probes.retransmits()? {
            for resent in self.tally.take(&snapshot, now) {
                let cgroup = resent.by.and_then(|by| by.cgroup);
                let path = cgroup.and_then(|id| tracker.cgroup_path(id, now));
                export.resent(&resent, path);
                self.sent.want(resent.netns);
            }
            let gone = probes.forget_retransmits(&self.tally.quiet(now));
            for resent in self.tally.forget(&gone) {
                export.resent(&resent, None);
            }
        }
        if probes.watches_retransmits() {
            export.sent(self.sent.read(now));
        }
        Ok(())
    }
}
