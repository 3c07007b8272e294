//! The walk back: from the process that became ready to the opener's.

use std::ops::Range;

use super::start::{Process, Start};

/// One process of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) process: Process,
    /// Index of the `Fork` mark that made it, stamped by the link before it.
    pub(super) fork: Option<usize>,
}

/// The ancestry of the process that became ready, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) links: Vec<Link>,
    /// Whether it reaches the opener; without, a `Fork` mark was lost.
    pub(super) complete: bool,
}

impl Chain {
    pub(super) fn walk(start: &Start, tip: Option<Process>) -> Self {
        let mut links = Vec::new();
        let mut next = tip;
        let mut complete = false;
        // Each step must go back in the order of marks, so that no record can make a ring.
        let mut before = start.marks().len();
        while let Some(process) = next {
            let fork = start.fork_of(process).filter(|&index| index < before);
            links.push(Link { process, fork });
            if start.opening.process == Some(process) {
                complete = true;
                break;
            }
            next = fork.map(|index| start.marks()[index].process());
            before = fork.unwrap_or(0);
        }
        links.reverse();
        Self { links, complete }
    }

    /// Indices of marks in which a link was the chain's tip: from its birth to the fork of
    /// the next link, or to `end`.
    pub(super) fn window(&self, link: usize, end: usize) -> Range<usize> {
        let from = self.links[link].fork.unwrap_or(0);
        let to = self
            .links
            .get(link + 1)
            .and_then(|next| next.fork)
            .unwrap_or(end);
        from..to.max(from)
    }
}
