//! What became of a request, and of those before it for a while.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hearth_runtime::id::{FunctionName, RequestId, SandboxId};
use hearth_runtime::sandbox::backend::Outcome;

use super::problem::{Kind, Problem};
use crate::time::Boottime;

/// How long an outcome is kept for who asks again.
const KEPT: Duration = Duration::from_mins(10);
/// How many are kept.
const MAX_KEPT: usize = 1000;
/// Bytes of answers that are kept.
const MAX_BYTES: usize = 16 << 20;

/// Where the sandbox of a request came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The function was there, and idle.
    Warm,
    /// The function was started, in a sandbox that was parked.
    Parked,
    /// The function was started, in a sandbox that was made for it.
    Fresh,
    /// It was found at work after this agent began.
    Found,
}

impl Origin {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Parked => "parked",
            Self::Fresh => "fresh",
            Self::Found => "found",
        }
    }
}

/// One step on the way of a request: when it began, after the request came in, and how long it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What was done.
    pub name: String,
    /// When it began.
    pub begin: Duration,
    /// How long it took.
    pub length: Duration,
}

/// A request that reached its function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invoked {
    /// Which.
    pub request: RequestId,
    /// The function.
    pub function: FunctionName,
    /// Its version.
    pub version: u32,
    /// The sandbox, where there was one.
    pub sandbox: Option<SandboxId>,
    /// Where that came from.
    pub origin: Origin,
    /// When the sandbox was claimed, where the function was started for this request.
    pub claimed: Option<Boottime>,
    /// What took how long.
    pub steps: Vec<Step>,
    /// What the function said.
    pub outcome: Outcome,
}

/// How it ended.
pub type Ending = Result<Arc<Invoked>, Problem>;

/// Where a request is.
#[derive(Clone, Debug)]
pub enum Known {
    /// Its function is at work on it.
    Running,
    /// It is over.
    Over(Ending),
}

impl Known {
    /// Whether it is over.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self, Self::Over(_))
    }
}

/// Requests that are under way, and the outcomes of the last ones.
#[derive(Debug, Default)]
pub struct Outcomes {
    running: HashSet<RequestId>,
    over: HashMap<RequestId, Ending>,
    /// By age.
    order: VecDeque<(Instant, RequestId, usize)>,
    bytes: usize,
}

impl Outcomes {
    /// Begins one; each id is for one request.
    pub fn begin(&mut self, request: RequestId) -> Result<(), Problem> {
        if self.over.contains_key(&request) || !self.running.insert(request) {
            return Err(Problem::new(
                Kind::Repeated,
                "there is or was a request with this id, which may have had its effect",
                format!("ask for its outcome at /v1/invocations/{request}, or use another id"),
            )
            .about("hearth-request-id", request));
        }
        Ok(())
    }

    /// One did not come to its function: its id is free again.
    pub fn abandon(&mut self, request: RequestId) {
        self.running.remove(&request);
    }

    /// Ends one.
    pub fn end(&mut self, request: RequestId, ending: Ending, now: Instant) {
        self.running.remove(&request);
        let bytes = match &ending {
            Ok(invoked) => match &invoked.outcome {
                Outcome::Answered(body) | Outcome::Failed { body, .. } => body.len(),
            },
            Err(_) => 0,
        };
        self.bytes += bytes;
        self.over.insert(request, ending);
        self.order.push_back((now, request, bytes));
        self.forget(now);
    }

    /// Forgets what is old, or too much.
    pub fn forget(&mut self, now: Instant) {
        while let Some((when, request, bytes)) = self.order.front().copied() {
            let is_old = now.saturating_duration_since(when) > KEPT;
            if !is_old && self.order.len() <= MAX_KEPT && self.bytes <= MAX_BYTES {
                break;
            }
            self.order.pop_front();
            self.over.remove(&request);
            self.bytes -= bytes;
        }
    }

    /// Where one is.
    pub fn get(&self, request: RequestId) -> Result<Known, Problem> {
        if self.running.contains(&request) {
            return Ok(Known::Running);
        }
        let over = self.over.get(&request).cloned().map(Known::Over);
        over.ok_or_else(|| {
            Problem::new(
                Kind::UnknownInvocation,
                "no request had this id in the last 10 minutes, or there were too many since",
                "",
            )
            .about("id", request)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(n: u128) -> RequestId {
        RequestId::from_u128(n)
    }

    fn answered(n: u128, bytes: usize) -> Arc<Invoked> {
        Arc::new(Invoked {
            request: request(n),
            function: "shop".parse().expect("a name"),
            version: 1,
            sandbox: None,
            origin: Origin::Warm,
            claimed: None,
            steps: Vec::new(),
            outcome: Outcome::Answered(vec![0; bytes]),
        })
    }

    #[test]
    fn an_id_is_for_one_request() {
        let mut outcomes = Outcomes::default();
        outcomes.begin(request(1)).expect("new");
        let again = outcomes.begin(request(1)).expect_err("at work");
        assert_eq!(again.kind, Kind::Repeated);
        assert!(matches!(outcomes.get(request(1)), Ok(Known::Running)));
        outcomes.end(request(1), Ok(answered(1, 3)), Instant::now());
        assert!(matches!(outcomes.get(request(1)), Ok(Known::Over(Ok(_)))));
        assert!(outcomes.begin(request(1)).is_err());
        let unknown = outcomes.get(request(2)).expect_err("unknown");
        assert_eq!(unknown.kind, Kind::UnknownInvocation);
    }

    #[test]
    fn outcomes_are_kept_for_a_while_and_not_too_many() {
        let begin = Instant::now();
        let mut outcomes = Outcomes::default();
        for n in 0..=1000 {
            outcomes.end(request(n), Ok(answered(n, 0)), begin);
        }
        assert!(outcomes.get(request(0)).is_err());
        assert!(outcomes.get(request(1)).is_ok());
        for n in 2000..2003 {
            outcomes.end(request(n), Ok(answered(n, 6 << 20)), begin);
        }
        assert!(outcomes.get(request(2000)).is_err());
        assert!(outcomes.get(request(2001)).is_ok());
        outcomes.forget(begin + KEPT + Duration::from_secs(1));
        assert!(outcomes.get(request(2001)).is_err());
        assert_eq!((outcomes.bytes, outcomes.over.len()), (0, 0));
    }
}
