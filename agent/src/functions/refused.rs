//! What is told to who is refused an instance.

use std::time::Duration;

use hearth_runtime::pool::{Reason, Refusal};

use super::function::Function;
use super::problem::{Kind, Problem};

/// Why a request was refused, and when it may do better.
pub(super) fn refused(function: &Function, refusal: Refusal) -> Problem {
    let state = function.state();
    let definition = &state.deployed.definition;
    let (most, queue) = (definition.max_instances, definition.queue);
    let problem = match refusal.reason {
        Reason::Full => Problem::new(
            Kind::Busy,
            format!("its {most} sandboxes are at work, and {queue} requests wait for one"),
            "try again later, or raise its `max_instances` or `queue`",
        ),
        Reason::Late => Problem::new(
            Kind::Busy,
            "no sandbox became free in time",
            "try again later, or raise its `max_instances`",
        ),
        Reason::Memory => Problem::new(
            Kind::NoMemory,
            "the node has no memory for another sandbox of it, and none became free in time",
            "try again later, lower what functions keep, or raise functions.memory_budget",
        ),
        Reason::NotStarted { .. } => Problem::new(
            Kind::NoSandbox,
            "the sandbox that was to take it did not come up",
            "try again",
        ),
        Reason::BackOff => Problem::new(
            Kind::BackOff,
            state.last_failure.as_ref().map_or_else(
                || "it keeps failing, and is left alone for a while".to_owned(),
                |last| {
                    format!(
                        "it keeps failing, and is left alone for a while; the last time: {last}"
                    )
                },
            ),
            "see its logs, and deploy a version that starts",
        ),
        Reason::Removed => {
            return Problem::new(Kind::UnknownFunction, "it is being removed", "")
                .about("name", &state.deployed.name);
        }
    };
    problem.after(refusal.retry_after.max(Duration::from_secs(1)))
}
