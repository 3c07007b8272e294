//! Clients that ask functions all the time, and what becomes of each request.
//!
//! A client does what the documentation tells it to, and no more:
//!
//! - A request has an id and a deadline. It is over when it is answered, refused, or late.
//! - Who loses the connection asks for the outcome by the id. Where nothing is known of it, or the
//!   function failed meanwhile, a request of a function that is idempotent is sent again; any other is
//!   left alone: it may have had its effect.
//! - A problem with status 429 or 503 is a plain refusal: nothing was done.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use serde_json::{Value, json};

use crate::api::{Api, Reply};
use crate::seed::Seed;

/// Between two looks for an outcome, or for somebody who answers.
const PAUSE: Duration = Duration::from_millis(50);

/// A function that is asked: its order `act` does what it is told, and says so.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its name.
    pub name: String,
    /// Whether a request may be done twice.
    pub idempotent: bool,
}

/// One request, and what became of it.
#[derive(Clone, Debug)]
pub struct Request {
    /// The function.
    pub function: String,
    /// Whether it may be done twice.
    pub idempotent: bool,
    /// What the right answer has in it.
    pub nonce: String,
    /// Ids under which it was sent, the last one at the end.
    pub ids: Vec<String>,
    /// When it was sent for the first time.
    pub began: Instant,
    /// From then until it was over.
    pub took: Duration,
    /// What became of it.
    pub end: End,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The right answer, by this sandbox, whose function was asked so many times by then.
    Right {
        /// Which sandbox.
        sandbox: String,
        /// The function's own count.
        count: u64,
    },
    /// An answer that is not right.
    Wrong(String),
    /// A plain refusal: nothing was done.
    Refused(String),
    /// The function failed.
    Failed(String),
    /// It may have been done or not.
    Unknown(String),
    /// No word of it before its deadline.
    Late(String),
}

impl End {
    /// The word for it.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Right { .. } => "right",
            Self::Wrong(_) => "wrong",
            Self::Refused(_) => "refused",
            Self::Failed(_) => "failed",
            Self::Unknown(_) => "unknown",
            Self::Late(_) => "late",
        }
    }
}

/// Clients at work; they end when this is dropped.
#[derive(Debug)]
pub struct Load {
    over: Arc<AtomicBool>,
    done: Arc<Mutex<Vec<Request>>>,
    clients: Vec<JoinHandle<()>>,
}

/// How clients ask.
#[derive(Clone, Debug)]
pub struct Pace {
    /// How many there are.
    pub clients: usize,
    /// The longest that a function works on one.
    pub work: Duration,
    /// The longest pause of a client between two.
    pub pause: Duration,
    /// Until when a request is of use.
    pub deadline: Duration,
}

impl Load {
    /// Begins: each client asks one of the functions after the other, as the seed says.
    #[must_use]
    pub fn start(api: &Api, functions: &[Asked], pace: &Pace, seed: &mut Seed) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let done = Arc::<Mutex<Vec<_>>>::default();
        let client = |number: usize| {
            let mut client = Client {
                number,
                api: api.clone(),
                functions: functions.to_vec(),
                pace: pace.clone(),
                seed: Seed::new(seed.next()),
            };
            let (over, done) = (Arc::clone(&over), Arc::clone(&done));
            thread::spawn(move || {
                for nth in 0_u64.. {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    if let Some(request) = client.ask(nth) {
                        done.lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push(request);
                    }
                    let pause = client.seed.between(Duration::ZERO, client.pace.pause);
                    thread::sleep(pause);
                }
            })
        };
        Self {
            clients: (0..pace.clients).map(client).collect(),
            over,
            done,
        }
    }

    /// How many requests are over.
    #[must_use]
    pub fn count(&self) -> usize {
        self.done
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// How many of a function were answered right so far.
    #[must_use]
    pub fn right(&self, function: &str) -> usize {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        let right = |request: &&Request| {
            request.function == function && matches!(request.end, End::Right { .. })
        };
        done.iter().filter(right).count()
    }

    /// Waits until every client is done with what it asked; all of it.
    pub fn stop(mut self) -> Result<Vec<Request>> {
        self.over.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            client.join().map_err(|_| anyhow!("a client panicked"))?;
        }
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::take(&mut done))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

struct Client {
    number: usize,
    api: Api,
    functions: Vec<Asked>,
    pace: Pace,
    seed: Seed,
}

impl Client {
    fn ask(&mut self, nth: u64) -> Option<Request> {
        let asked = self.seed.one_of(&self.functions)?.clone();
        let nonce = format!("{}-{nth}-{:016x}", self.number, self.seed.next());
        let work = self.seed.between(Duration::ZERO, self.pace.work);
        let payload = json!({ "do": "act", "nonce": nonce, "seconds": work.as_secs_f64() });
        let began = Instant::now();
        let mut asking = Asking {
            api: &self.api,
            asked: &asked,
            payload,
            deadline: began + self.pace.deadline,
            ids: Vec::new(),
        };
        let end = asking.until_over(&mut self.seed);
        Some(Request {
            function: asked.name.clone(),
            idempotent: asked.idempotent,
            nonce,
            ids: asking.ids,
            began,
            took: began.elapsed(),
            end,
        })
    }
}

struct Asking<'a> {
    api: &'a Api,
    asked: &'a Asked,
    payload: Value,
    deadline: Instant,
    ids: Vec<String>,
}

impl Asking<'_> {
    fn until_over(&mut self, seed: &mut Seed) -> End {
        let mut why = String::from("nobody was there");
        loop {
            let left = self.left();
            if left.is_zero() {
                return End::Late(why);
            }
            let id = seed.uuid();
            self.ids.push(id.clone());
            let lost = match self.send(&id, left) {
                Ok(reply) => return self.read(&reply),
                Err(error) => format!("{error:#}"),
            };
            if lost.contains("connect to") {
                // Nobody heard it.
                why = lost;
                thread::sleep(PAUSE);
                continue;
            }
            match self.outcome(&id) {
                Some(reply) if reply.status == 404 && self.asked.idempotent => {}
                Some(reply) if reply.status == 404 => {
                    return End::Unknown(format!("{lost}; then {reply}"));
                }
                Some(reply) => match self.read(&reply) {
                    End::Failed(_) if self.asked.idempotent => {}
                    end => return end,
                },
                None => return End::Late(lost),
            }
            why = lost;
        }
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    fn send(&self, id: &str, left: Duration) -> Result<Reply> {
        let limit = format!("{}ms", left.as_millis().max(1));
        let headers = [("hearth-request-id", id), ("hearth-timeout", &limit)];
        let line = format!("POST /v1/functions/{}/invocations", self.asked.name);
        let body = self.payload.to_string();
        // The agent says by then that it is late; who hears nothing at all finds out, too.
        let patience = left + Duration::from_secs(5);
        self.api.ask(&line, &headers, body.as_bytes(), patience)
    }

    /// What became of a request whose answer was lost, where that is told before the deadline.
    fn outcome(&self, id: &str) -> Option<Reply> {
        let line = format!("GET /v1/invocations/{id}");
        while !self.left().is_zero() {
            let told = self.api.ask(&line, &[], b"", self.left());
            match told {
                Ok(reply) if reply.status != 202 => return Some(reply),
                // It is at work, or nobody is there yet who knows.
                _ => thread::sleep(PAUSE),
            }
        }
        None
    }

    fn read(&self, reply: &Reply) -> End {
        if let 429 | 503 = reply.status {
            return End::Refused(reply.to_string());
        }
        if reply.status == 502 {
            return End::Unknown(reply.to_string());
        }
        if let Some(kind) = reply.header("hearth-function-error") {
            return End::Failed(format!("{kind}: {reply}"));
        }
        let answer = reply.json().unwrap_or_default();
        let sandbox = reply.header("hearth-sandbox");
        match (answer["count"].as_u64(), sandbox) {
            (Some(count), Some(sandbox))
                if reply.status == 200 && answer["echo"] == self.payload =>
            {
                End::Right {
                    sandbox: sandbox.to_owned(),
                    count,
                }
            }
            _ => End::Wrong(format!("{} got {reply}", self.payload)),
        }
    }
}

/// How many requests ended how, for a line of text.
#[must_use]
pub fn ends(requests: &[Request]) -> String {
    let mut counts = BTreeMap::<_, usize>::new();
    for request in requests {
        *counts.entry(request.end.word()).or_default() += 1;
    }
    let counts = counts.iter().map(|(word, count)| format!("{count} {word}"));
    counts.collect::<Vec<_>>().join(", ")
}
