//! Late detail of an identity: what runtimes tell about a container, asked after its start.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{Bundles, Cri, Identity};

/// How long one start waits for its detail.
const PATIENCE: Duration = Duration::from_secs(1);
/// Starts that wait at once; more go without.
const AT_ONCE: usize = 16;

/// Adds function and pod to the identities of containers. It never fails: what cannot be
/// told stays unknown, and is counted.
#[derive(Debug)]
pub struct Resolver {
    label: String,
    bundles: Bundles,
    cri: Option<Cri>,
    turns: Semaphore,
    timeouts: AtomicU64,
    failures: AtomicU64,
    busy: AtomicU64,
}

/// How often detail could not be had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResolverStats {
    /// Nobody answered in time.
    pub timeouts: u64,
    /// The CRI socket answered with an error.
    pub failures: u64,
    /// Too many starts waited already.
    pub busy: u64,
}

impl Resolver {
    /// Takes a container's function from its label or annotation `label`; asks `cri` for
    /// pods, where there is one.
    #[must_use]
    pub fn new(label: String, bundles: Bundles, cri: Option<Cri>) -> Self {
        Self {
            label,
            bundles,
            cri,
            turns: Semaphore::new(AT_ONCE),
            timeouts: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            busy: AtomicU64::new(0),
        }
    }

    /// Adds what can be had within a second. Needs a tokio runtime with time enabled.
    pub async fn resolve(&self, identity: &mut Identity) {
        let Some(container) = identity.container_id.clone() else {
            return;
        };
        let Ok(_turn) = self.turns.try_acquire() else {
            self.busy.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if timeout(PATIENCE, self.add(&container, identity))
            .await
            .is_err()
        {
            self.timeouts.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often detail could not be had.
    #[must_use]
    pub fn stats(&self) -> ResolverStats {
        ResolverStats {
            timeouts: self.timeouts.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            busy: self.busy.load(Ordering::Relaxed),
        }
    }

    async fn add(&self, container: &str, identity: &mut Identity) {
        if identity.function.is_none() {
            let (bundles, id, label) = (
                self.bundles.clone(),
                container.to_owned(),
                self.label.clone(),
            );
            let read = tokio::task::spawn_blocking(move || bundles.annotation(&id, &label));
            identity.function = read.await.ok().flatten();
        }
        let Some(cri) = &self.cri else { return };
        match cri.look_up(container).await {
            Ok(Some(known)) => {
                if identity.function.is_none() {
                    identity.function = known.label(&self.label).map(str::to_owned);
                }
                identity.pod = Some(known.pod);
            }
            Ok(None) => {}
            Err(error) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(%error, container, "no pod");
            }
        }
    }
}
