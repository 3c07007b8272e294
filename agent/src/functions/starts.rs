//! Cold starts as somebody else saw them: told by the moment of the claim that opened them.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hearth_runtime::id::FunctionName;
use hearth_runtime::sandbox::ask::Claimed;
use tokio::sync::Notify;

use crate::time::Boottime;

/// Sees how functions start.
pub trait Watcher: Send + Sync {
    /// A sandbox was claimed at that time. Nothing is started in it before this returns.
    fn claimed(&self, function: &FunctionName, claimed: &Claimed, at: Boottime);

    /// The function in the sandbox that was claimed at that time asked for work.
    fn ready(&self, claimed: Boottime, at: Boottime);
}

/// How many are kept: those of the last requests.
const KEPT: usize = 200;

/// The last of them. What is kept is a document that nobody here looks into.
#[derive(Debug, Default)]
pub struct Starts {
    kept: Mutex<VecDeque<(Boottime, String)>>,
    came: Notify,
}

impl Starts {
    fn kept(&self) -> MutexGuard<'_, VecDeque<(Boottime, String)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One was seen: `document` is its JSON.
    pub fn saw(&self, claimed: Boottime, document: String) {
        let mut kept = self.kept();
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back((claimed, document));
        drop(kept);
        self.came.notify_waiters();
    }

    /// The one that a claim opened, waited for: it is told a moment after the function is ready.
    pub async fn of(&self, claimed: Boottime) -> String {
        loop {
            let came = self.came.notified();
            tokio::pin!(came);
            // From here on none is missed.
            came.as_mut().enable();
            let found = self
                .kept()
                .iter()
                .rev()
                .find(|(at, _)| *at == claimed)
                .cloned();
            if let Some((_, document)) = found {
                return document;
            }
            came.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_asks_early_waits_and_who_asks_late_finds_it() {
        let starts = std::sync::Arc::new(Starts::default());
        let early = tokio::spawn({
            let starts = std::sync::Arc::clone(&starts);
            async move { starts.of(Boottime(7)).await }
        });
        tokio::task::yield_now().await;
        for at in 0..=8 {
            starts.saw(Boottime(at), format!("{at}"));
        }
        assert_eq!(early.await.expect("no panic"), "7");
        assert_eq!(starts.of(Boottime(8)).await, "8");
        for at in 100..100 + KEPT as u64 {
            starts.saw(Boottime(at), String::new());
        }
        assert!(starts.kept().iter().all(|(at, _)| at.0 >= 100));
    }
}
