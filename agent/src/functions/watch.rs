//! Ends of idle sandboxes, heard of as they come. Whatever is missed (nobody tells it while
//! `hearth-spawner` is restarted) is seen by who looks at all of them now and then.

use std::sync::Arc;
use std::thread::{self, Builder};
use std::time::Duration;

use super::Manager;
use super::node::Node as _;

/// How long until somebody who does not tell is asked again.
const AGAIN: Duration = Duration::from_millis(500);

impl Manager {
    /// Listens for ends, on a thread of its own, as long as there is a manager.
    pub(super) fn watch(&self) {
        let node = Arc::clone(&self.0.node);
        let pools = Arc::downgrade(&self.0.pools);
        let listens = move || {
            let mut hear = |ended| {
                let Some(pools) = pools.upgrade() else {
                    return false;
                };
                if let Some(sandbox) = ended {
                    pools.is_told_ended(sandbox);
                }
                true
            };
            while hear(None) {
                match node.watch(&mut hear) {
                    Ok(()) => return,
                    // Who cannot be asked is told of where sandboxes are claimed.
                    Err(error) => tracing::debug!("nobody tells of sandboxes that end: {error}"),
                }
                thread::sleep(AGAIN);
            }
        };
        let thread = Builder::new().name("hearth-watch".to_owned());
        if let Err(error) = thread.spawn(listens) {
            tracing::warn!("sandboxes that end while idle are noticed later: no thread: {error}");
        }
    }
}
