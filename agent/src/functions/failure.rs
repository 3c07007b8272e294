//! What is told of a function that did not answer.

use hearth_runtime::sandbox::ask::Ended;
use hearth_runtime::sandbox::backend::{Outcome, SandboxError};
use hearth_runtime::sandbox::message::{NotStarted, fault};
use hearth_runtime::sandbox::spawner::SpawnerError;

use super::problem::{Kind, Problem};
use crate::config::Size;

/// The kind of the failure of a function that ran out of memory, as AWS Lambda calls it.
const OUT_OF_MEMORY: &str = "Runtime.OutOfMemory";
/// The kind of the failure of a function whose program cannot be run.
const NO_PROGRAM: &str = "Runtime.InvalidEntrypoint";

/// What comes of a request without an answer: the function's failure, or a problem that is not its.
pub(super) type Unanswered = Result<Outcome, Problem>;

/// Somebody in it was killed for want of memory.
pub(super) fn ran_out(ended: Option<&Ended>) -> bool {
    ended.and_then(|ended| ended.oom_kills).unwrap_or(0) > 0
}

/// An error as functions on AWS Lambda have them.
pub(super) fn error_body(kind: &str, message: &str) -> Vec<u8> {
    serde_json::json!({ "errorType": kind, "errorMessage": message })
        .to_string()
        .into_bytes()
}

pub(super) fn failed(kind: &str, message: &str) -> Outcome {
    Outcome::Failed {
        kind: kind.to_owned(),
        body: error_body(kind, message),
    }
}

/// It ended while it was at work; it might have so many bytes of memory.
pub(super) fn exited(limit: u64, ended: Option<&Ended>) -> Outcome {
    if ran_out(ended) {
        let memory = Size(limit);
        let message = format!(
            "the function was killed for want of memory: it may have {memory}; raise its \
             `memory`, and see `hearth oom list`"
        );
        return failed(OUT_OF_MEMORY, &message);
    }
    let how = ended.map_or_else(String::new, |ended| format!(" ({})", ended.how));
    let message = format!("the function ended before it answered{how}");
    failed(fault::EXITED, &message)
}

/// It did not start.
pub(super) fn not_started(error: SandboxError, limit: u64, ended: Option<&Ended>) -> Unanswered {
    let SandboxError::NotStarted { why, said } = error else {
        return match error {
            SandboxError::Gone => Ok(exited(limit, ended)),
            error => Err(no_sandbox(&error)),
        };
    };
    let message = why.to_string();
    Ok(match why {
        NotStarted::Sandbox { .. } => {
            let remedy = "see the log of hearth-spawner";
            return Err(Problem::new(Kind::NoSandbox, message, remedy));
        }
        NotStarted::Program { .. } => failed(
            NO_PROGRAM,
            &format!("{message}; `command` names a program of its layers, which may run"),
        ),
        NotStarted::Itself { kind } if !said.is_empty() => Outcome::Failed { kind, body: said },
        NotStarted::Itself { kind } => failed(&kind, &message),
        NotStarted::Exited { .. } if ran_out(ended) => exited(limit, ended),
        NotStarted::Exited { .. } => failed(fault::EXITED, &message),
        NotStarted::Deadline { .. } => failed(
            fault::TIMED_OUT,
            &format!("{message}; raise its `init_timeout` if it needs more"),
        ),
    })
}

/// Why there is no sandbox.
pub(super) fn no_sandbox(error: &SandboxError) -> Problem {
    let detail = error.to_string();
    match error {
        SandboxError::Spawner(SpawnerError::Connect { .. } | SpawnerError::Closed { .. }) => {
            Problem::new(
                Kind::NoSpawner,
                detail,
                "functions need hearth-spawner: start it (systemctl start hearth-spawner), or \
                 name its directory in functions.spawner_dir",
            )
        }
        SandboxError::Owned { .. } => Problem::new(
            Kind::NoSpawner,
            detail,
            "end the other hearth, or give this one a hearth-spawner of its own and name its \
             directory in functions.spawner_dir",
        ),
        SandboxError::Spawner(SpawnerError::Refused { again: true, .. }) => {
            Problem::new(Kind::NoSandbox, detail, "try again")
        }
        _ => Problem::new(Kind::NoSandbox, detail, "see the log of hearth-spawner"),
    }
}
