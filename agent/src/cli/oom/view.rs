//! What `hearth oom show` shows: the capture, and what follows from it.

use serde::Serialize;

use crate::observe::oom::enough::{Enough, enough};
use crate::observe::oom::missing::missing;
use crate::observe::oom::model::{Absent, Capture, Known};
use crate::observe::oom::sentence;
use crate::observe::oom::symbols::{KernelName, Named, Names};

/// The whole answer; its JSON form is described by `docs/schema/oom.schema.json`.
#[derive(Debug, Serialize)]
pub(super) struct View<'a> {
    /// One sentence.
    pub(super) summary: String,
    /// What limit would have been enough.
    pub(super) enough: Known<Enough>,
    /// The stacks, named.
    pub(super) stacks: Vec<Stack>,
    /// What the asker was doing in the kernel.
    pub(super) asker_stack: Known<Vec<KernelName>>,
    /// What is missing.
    pub(super) missing: Vec<MissingField>,
    /// The capture itself.
    pub(super) capture: &'a Capture,
}

/// The stacks of one thread.
#[derive(Debug, Serialize)]
pub(super) struct Stack {
    /// Thread.
    pub(super) tid: u32,
    /// User stack, innermost first.
    pub(super) user: Known<Vec<Named>>,
    /// What a function that had made no frame returns to.
    pub(super) leaf: Option<Named>,
    /// Kernel stack, innermost first.
    pub(super) kernel: Known<Vec<KernelName>>,
}

/// A field that is missing.
#[derive(Debug, Serialize)]
pub(super) struct MissingField {
    /// Dotted name in `capture`.
    pub(super) field: &'static str,
    /// Why.
    #[serde(flatten)]
    pub(super) why: Absent,
    /// How often.
    pub(super) times: u64,
}

impl<'a> View<'a> {
    /// Of `capture`, at the boot `boot_id`.
    pub(super) fn of(capture: &'a Capture, boot_id: &str) -> Self {
        let names = Names::of(capture, boot_id);
        let kernel = |known: &Known<Vec<_>>| match known {
            Known::Value(frames) => Known::Value(names.kernel(frames)),
            Known::Absent(absent) => Known::Absent(absent.clone()),
        };
        let stacks = capture.threads.iter().map(|thread| Stack {
            tid: thread.tid,
            user: match &thread.user_stack {
                Known::Value(frames) => Known::Value(names.user(frames)),
                Known::Absent(absent) => Known::Absent(absent.clone()),
            },
            leaf: thread.leaf.value().map(|frame| names.returned_to(frame)),
            kernel: kernel(&thread.kernel_stack),
        });
        let missing = missing(capture).into_iter().map(|missing| MissingField {
            field: missing.field,
            why: missing.why.clone(),
            times: missing.times,
        });
        Self {
            summary: sentence::of(capture),
            enough: enough(capture).into(),
            stacks: stacks.collect(),
            asker_stack: kernel(&capture.asker.kernel_stack),
            missing: missing.collect(),
            capture,
        }
    }
}
