use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use hearth_runtime::channel::MAX_BODY;
use hearth_runtime::id::{FunctionName, RequestId};
use hearth_runtime::sandbox::ask::Claimed;
use hearth_runtime::sandbox::message::State;
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::UnixStream;

use super::*;
use crate::functions::fake::Fake;
use crate::functions::starts::Watcher;
use crate::functions::store::Store;
use crate::functions::view::SandboxState;
use crate::heal::Healer;
use crate::heal::healer::Limits;
use crate::time::Boottime;

/// An API with a node on which nothing runs, on a real socket.
struct Scene {
    folder: TempDir,
    node: Fake,
    manager: Manager,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    fn header(&self, name: &str) -> &str {
        let value = self
            .headers
            .get(name)
            .unwrap_or_else(|| panic!("no {name}"));
        value.to_str().expect("text")
    }

    /// It is a problem of this kind, and says so in full.
    #[track_caller]
    fn is_problem(&self, kind: Kind) -> Value {
        let json = self.json();
        assert_eq!(self.status.as_u16(), kind.status(), "{json}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert!(
            json["type"]
                .as_str()
                .expect("a type")
                .ends_with(&format!("#{}", kind.word())),
            "{json}"
        );
        assert_eq!(json["status"], kind.status());
        json
    }
}

impl Scene {
    async fn new() -> Self {
        Self::seen_by(None).await
    }

    /// With somebody who sees how functions start.
    async fn seen_by(watcher: Option<Arc<dyn Watcher>>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("shop")).expect("a folder");
        std::fs::write(folder.path().join("shop/bootstrap"), "#!").expect("a file");
        let scene = Self::with(folder, Fake::default(), watcher);
        scene.listen().await;
        scene
    }

    fn on(folder: TempDir, node: Fake) -> Self {
        Self::with(folder, node, None)
    }

    fn with(folder: TempDir, node: Fake, watcher: Option<Arc<dyn Watcher>>) -> Self {
        let store = Store::open(&folder.path().join("store")).expect("a store");
        let manager = Manager::new(store, Arc::new(node.clone()), watcher);
        Self {
            folder,
            node,
            manager,
        }
    }

    async fn listen(&self) {
        let listener = socket::listen(&self.socket()).await.expect("a socket");
        tokio::spawn(socket::serve(listener, router(self.manager.clone())));
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("run/api.sock")
    }

    fn definition(&self) -> Value {
        json!({
            "root": [self.folder.path().join("shop")],
            "command": ["/bootstrap"],
            "policy": "fixed:600",
        })
    }

    async fn connect(&self) -> hyper::client::conn::http1::SendRequest<Body> {
        let stream = UnixStream::connect(self.socket()).await.expect("somebody");
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .expect("HTTP");
        tokio::spawn(connection);
        sender
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "x");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.into()).expect("a request");
        let response = self
            .connect()
            .await
            .send_request(request)
            .await
            .expect("an answer");
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("all of it").to_bytes().to_vec();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await
    }

    async fn deploy(&self, name: &str, changes: Value) -> Answer {
        let mut definition = self.definition();
        for (key, value) in changes.as_object().expect("an object") {
            definition[key] = value.clone();
        }
        let path = format!("/v1/functions/{name}");
        self.send(Method::PUT, &path, &[], definition.to_string())
            .await
    }

    async fn invoke(&self, name: &str, payload: &str) -> Answer {
        let path = format!("/v1/functions/{name}/invocations");
        self.send(Method::POST, &path, &[], payload.to_owned())
            .await
    }

    /// Until something is so, that other threads see to.
    async fn until(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        for _ in 0..2_000 {
            if is_so(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("never so: {what}");
    }
}

#[tokio::test]
async fn a_function_is_deployed_invoked_shown_and_removed() {
    let scene = Scene::new().await;
    let deployed = scene.deploy("shop", json!({"memory": "256MiB"})).await;
    assert_eq!(deployed.status, 200);
    assert_eq!(deployed.json()["version"], 1);
    let answer = scene.invoke("shop", "{\"x\":1}").await;
    assert_eq!(
        (answer.status.as_u16(), &*answer.body),
        (200, &b"{\"x\":1}"[..])
    );
    assert!(answer.headers.get(invocations::FUNCTION_ERROR).is_none());
    assert_eq!(answer.header(invocations::ORIGIN), "parked");
    let timing = answer.header("server-timing");
    for step in ["wait;", "claim;", "root;", "spawn;", "init;", "invoke;"] {
        assert!(timing.contains(step), "{timing}");
    }
    // The same sandbox once more.
    let again = scene.invoke("shop", "2").await;
    assert_eq!(again.header(invocations::ORIGIN), "warm");
    assert_eq!(
        again.header(invocations::SANDBOX),
        answer.header(invocations::SANDBOX)
    );
    let shown = scene.get("/v1/functions/shop").await.json();
    assert_eq!(
        (
            &shown["pool"]["ready"],
            &shown["invocations"],
            &shown["starts"]
        ),
        (&json!(1), &json!(2), &json!(1))
    );
    assert_eq!(shown["definition"]["memory"], "256MiB");
    let sandboxes = scene.get("/v1/sandboxes").await.json();
    assert_eq!(sandboxes[0]["id"], answer.header(invocations::SANDBOX));
    assert_eq!(sandboxes[0]["state"], "idle");
    // What became of it is known for a while.
    let id = answer.header(invocations::REQUEST_ID);
    let later = scene.get(&format!("/v1/invocations/{id}")).await;
    assert_eq!(
        (later.status.as_u16(), later.body),
        (200, answer.body.clone())
    );

    let gone = scene
        .send(Method::DELETE, "/v1/functions/shop", &[], "")
        .await;
    assert_eq!(gone.status, 204);
    assert_eq!(scene.node.counts(), (1, 0));
    scene
        .get("/v1/functions/shop")
        .await
        .is_problem(Kind::UnknownFunction);
    assert_eq!(scene.get("/v1/functions").await.json(), json!([]));
}

#[tokio::test]
async fn huge_pages_are_asked_for_once_it_is_ready_and_where_they_are_wanted() {
    let scene = Scene::new().await;
    scene.deploy("plain", json!({})).await;
    scene.invoke("plain", "1").await;
    scene
        .deploy("huge", json!({"huge_pages": "collapse"}))
        .await;
    for _ in 0..2 {
        scene.invoke("huge", "1").await;
    }
    // By a thread that nobody waits for.
    while scene.node.collapsed().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(scene.node.counts().0, 2, "a sandbox of each");
    assert_eq!(scene.node.collapsed().len(), 1);
}

#[tokio::test]
async fn another_version_takes_over_and_the_old_sandboxes_end() {
    let scene = Scene::new().await;
    scene.deploy("shop", json!({})).await;
    scene.invoke("shop", "1").await;
    // Nothing is different: the sandbox stays.
    assert_eq!(scene.deploy("shop", json!({})).await.json()["version"], 1);
    assert_eq!(
        scene.invoke("shop", "1").await.header(invocations::ORIGIN),
        "warm"
    );
    assert_eq!(
        scene.deploy("shop", json!({"pids": 64})).await.json()["version"],
        2
    );
    assert_eq!(scene.node.counts(), (1, 0));
    let answer = scene.invoke("shop", "1").await;
    assert_eq!(answer.header(invocations::VERSION), "2");
    assert_eq!(answer.header(invocations::ORIGIN), "parked");
}

#[tokio::test]
async fn what_is_wrong_is_told_with_field_value_and_remedy() {
    let scene = Scene::new().await;
    scene.deploy("shop", json!({})).await;
    for (changes, field, words) in [
        (json!({"memory": "4B"}), "memory", "1 MiB"),
        (json!({"memory": 4}), "memory", "has no unit"),
        (json!({"memori": "4B"}), "memori", "unknown field"),
        (json!({"root": ["shop"]}), "root[0]", "the absolute path"),
        (json!({"root": ["/srv/../etc"]}), "root[0]", "without `..`"),
        (
            json!({"syscalls": ["bogus"]}),
            "syscalls[0]",
            "man 2 syscalls",
        ),
    ] {
        let problem = scene
            .deploy("other", changes)
            .await
            .is_problem(Kind::Invalid);
        assert_eq!(problem["field"], field, "{problem}");
        assert!(problem.to_string().contains(words), "{problem}");
    }
    let nowhere = scene
        .deploy("other", json!({"root": ["/nowhere/at/all"]}))
        .await;
    assert_eq!(nowhere.is_problem(Kind::Layer)["field"], "root[0]");
    scene
        .deploy("Shop", json!({}))
        .await
        .is_problem(Kind::Invalid);
    let unknown = scene
        .invoke("shopp", "{}")
        .await
        .is_problem(Kind::UnknownFunction);
    assert!(
        unknown["remedy"].as_str().expect("text").contains("shop"),
        "{unknown}"
    );
    scene.get("/v1/nothing").await.is_problem(Kind::UnknownPath);
    scene
        .send(Method::DELETE, "/v1/functions", &[], "")
        .await
        .is_problem(Kind::Method);
    scene
        .get("/v1/invocations/1")
        .await
        .is_problem(Kind::Invalid);
    let id = RequestId::random().expect("an id");
    scene
        .get(&format!("/v1/invocations/{id}"))
        .await
        .is_problem(Kind::UnknownInvocation);
    scene
        .get("/v1/functions/shop/logs?folow=1")
        .await
        .is_problem(Kind::Invalid);
    let path = "/v1/functions/shop/invocations";
    for (name, value) in [
        ("hearth-timeout", "5"),
        ("hearth-request-id", "1"),
        ("traceparent", "\u{f6}"),
    ] {
        let problem = scene.send(Method::POST, path, &[(name, value)], "{}").await;
        assert_eq!(problem.is_problem(Kind::Invalid)["field"], name);
    }
}

#[tokio::test]
async fn a_payload_that_is_too_large_is_refused_and_the_largest_is_not() {
    let scene = Scene::new().await;
    scene.deploy("shop", json!({})).await;
    let largest = "x".repeat(MAX_BODY);
    assert_eq!(scene.invoke("shop", &largest).await.body.len(), MAX_BODY);
    scene
        .invoke("shop", &format!("{largest}x"))
        .await
        .is_problem(Kind::TooLarge);
    // Who sends it all before it looks for an answer finds one.
    scene
        .invoke("shop", &"x".repeat(8 * MAX_BODY))
        .await
        .is_problem(Kind::TooLarge);
    scene
        .invoke("nosuch", &largest)
        .await
        .is_problem(Kind::UnknownFunction);
    // Without a length that announces it, too.
    let chunks =
        futures_util::stream::iter((0..7).map(|_| Ok::<_, std::io::Error>(vec![b'x'; 1 << 20])));
    let path = "/v1/functions/shop/invocations";
    let told = scene
        .send(Method::POST, path, &[], Body::from_stream(chunks))
        .await;
    told.is_problem(Kind::TooLarge);
    assert_eq!(
        scene.get("/v1/functions/shop").await.json()["invocations"],
        1
    );
}

#[tokio::test]
async fn the_failures_of_a_function_are_its_own() {
    let scene = Scene::new().await;
    scene.deploy("shop", json!({"timeout": "20ms"})).await;
    for (payload, kind, words) in [
        ("\"fail\"", "My.Error", "no"),
        (
            "\"wait\"",
            "Sandbox.Timedout",
            "timed out after 0.02 seconds",
        ),
        ("\"exit\"", "Runtime.ExitError", "ended before it answered"),
        ("\"hog\"", "Runtime.OutOfMemory", "it may have 128MiB"),
    ] {
        let answer = scene.invoke("shop", payload).await;
        let told = answer.json();
        assert_eq!(answer.status, 200, "{told}");
        assert_eq!(answer.header(invocations::FUNCTION_ERROR), kind);
        assert_eq!(told["errorType"], kind);
        assert!(
            told["errorMessage"].as_str().expect("text").contains(words),
            "{told}"
        );
    }
    // The one that only said an error lived on for the next; the others are gone.
    assert_eq!(scene.node.counts(), (3, 0));
    for (command, kind) in [
        ("/never", "Sandbox.Timedout"),
        ("/dies", "Runtime.ExitError"),
        ("/says", "My.InitError"),
    ] {
        scene.deploy("shop", json!({"command": [command]})).await;
        let answer = scene.invoke("shop", "{}").await;
        assert_eq!(
            answer.header(invocations::FUNCTION_ERROR),
            kind,
            "{command}"
        );
        assert_eq!(answer.json()["errorType"], kind);
    }
    assert_eq!(
        scene.node.counts().1,
        0,
        "nothing is left of what did not start"
    );
}

#[tokio::test]
async fn who_goes_away_cancels_and_the_outcome_is_known() {
    let scene = Scene::new().await;
    scene.deploy("shop", json!({"timeout": "1h"})).await;
    let id = RequestId::random().expect("an id").to_string();
    let mut sender = scene.connect().await;
    let request = Request::post("/v1/functions/shop/invocations")
        .header("host", "x")
        .header("hearth-request-id", &id)
        .body(Body::from("\"wait\""))
        .expect("a request");
    let waiting = tokio::spawn(async move { sender.send_request(request).await });
    let path = format!("/v1/invocations/{id}");
    // One that waits for its function to start would be forgotten.
    scene
        .until("it is at work", |scene| {
            let sandboxes = scene.manager.sandboxes();
            sandboxes.iter().any(|one| one.state == SandboxState::Busy)
        })
        .await;
    assert_eq!(scene.get(&path).await.status, 202);
    let headers = [("hearth-request-id", &*id)];
    let again = scene
        .send(
            Method::POST,
            "/v1/functions/shop/invocations",
            &headers,
            "1",
        )
        .await;
    again.is_problem(Kind::Repeated);
    waiting.abort();
    while scene.get(&path).await.status == 202 {
        tokio::task::yield_now().await;
    }
    let outcome = scene.get(&path).await;
    assert_eq!(
        outcome.header(invocations::FUNCTION_ERROR),
        "Sandbox.Cancelled"
    );
    scene
        .until("it is gone", |scene| scene.node.counts() == (1, 0))
        .await;
}

#[tokio::test]
async fn a_function_that_is_removed_ends_at_work_too() {
    let scene = Scene::new().await;
    scene.deploy("shop", json!({"timeout": "1h"})).await;
    let invoking = scene.invoke("shop", "\"wait\"");
    let removing = async {
        scene
            .until("it is at work", |scene| scene.node.counts().1 == 1)
            .await;
        let busy = || scene.manager.sandboxes();
        scene.until("it is known", |_| !busy().is_empty()).await;
        scene
            .send(Method::DELETE, "/v1/functions/shop", &[], "")
            .await
    };
    let (invoked, removed) = tokio::join!(invoking, removing);
    assert_eq!(removed.status, 204);
    assert_eq!(
        invoked.header(invocations::FUNCTION_ERROR),
        "Sandbox.Cancelled"
    );
    assert_eq!(invoked.json()["errorMessage"], "the function was removed");
    assert_eq!(scene.node.counts().1, 0);
}

#[tokio::test]
async fn sandboxes_of_a_function_removed_without_a_spawner_end_when_there_is_one() {
    let scene = Scene::new().await;
    scene.deploy("shop", json!({})).await;
    scene.invoke("shop", "1").await;
    tokio::spawn({
        let manager = scene.manager.clone();
        async move { manager.look_after().await }
    });
    scene.node.set_gone(true);
    let removed = scene
        .send(Method::DELETE, "/v1/functions/shop", &[], "")
        .await;
    assert_eq!(removed.status, 204);
    assert_eq!(scene.node.counts().1, 1);
    scene.node.set_gone(false);
    scene
        .until("it has ended", |scene| scene.node.counts().1 == 0)
        .await;
}

#[tokio::test]
async fn no_more_sandboxes_than_allowed_are_at_work() {
    let scene = Scene::new().await;
    scene.deploy("shop", json!({"max_instances": 2})).await;
    let all = futures_util::future::join_all((0..6).map(|_| scene.invoke("shop", "1"))).await;
    assert!(all.iter().all(|answer| answer.status == 200));
    assert!(scene.node.counts().0 <= 2);
    // One that waits for a sandbox waits no longer than it may take.
    scene
        .deploy(
            "shop",
            json!({"max_instances": 1, "timeout": "50ms", "init_timeout": "1ms"}),
        )
        .await;
    let busy = |answer: &Answer| answer.status == 429;
    let mut told = false;
    while !told {
        let both = [
            scene.invoke("shop", "\"wait\""),
            scene.invoke("shop", "\"wait\""),
        ];
        let answers = futures_util::future::join_all(both).await;
        assert!(!answers.iter().all(busy), "one of them was at work");
        for answer in answers.iter().filter(|answer| busy(answer)) {
            let told = answer.is_problem(Kind::Busy);
            assert_eq!(
                told["retry_after"].to_string(),
                answer.header("retry-after")
            );
        }
        told = answers.iter().any(busy);
    }
}

#[tokio::test]
async fn logs_are_kept_and_followed() {
    let scene = Scene::new().await;
    scene.deploy("shop", json!({})).await;
    let path = "/v1/functions/shop/logs?follow=true";
    let request = Request::get(path).header("host", "x").body(Body::empty());
    let followed = scene
        .connect()
        .await
        .send_request(request.expect("a request"))
        .await;
    let mut followed = followed.expect("an answer").into_body();
    let answer = scene.invoke("shop", "\"log\"").await;
    let lines = |bytes: &[u8]| -> Vec<Value> {
        let text = std::str::from_utf8(bytes).expect("UTF-8");
        text.lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    };
    let kept = lines(&scene.get("/v1/functions/shop/logs").await.body);
    let texts: Vec<&str> = kept
        .iter()
        .map(|line| line["text"].as_str().expect("text"))
        .collect();
    assert_eq!(texts[0], "it begins\n");
    assert!(texts[1].contains("bpf"), "{texts:?}");
    assert_eq!(
        (texts[2], &kept[2]["lost_bytes"], &kept[2]["stream"]),
        ("one\ntwo\n", &json!(5), &json!("stderr"))
    );
    assert_eq!(kept[0]["sandbox"], answer.header(invocations::SANDBOX));
    let after = lines(&scene.get("/v1/functions/shop/logs?after=2").await.body);
    assert_eq!(after, kept[2..]);
    let mut seen = Vec::new();
    while seen.len() < kept.len() {
        let frame = followed.frame().await.expect("more").expect("a frame");
        seen.extend(lines(&frame.into_data().expect("data")));
    }
    assert_eq!(seen, kept);
    assert_eq!(
        scene.get("/v1/functions/shop").await.json()["refused_calls"],
        json!({"bpf": 3})
    );
    // Who follows is told of the end, too.
    scene
        .send(Method::DELETE, "/v1/functions/shop", &[], "")
        .await;
    while let Some(frame) = followed.frame().await {
        frame.expect("a frame");
    }
}

#[tokio::test]
async fn idle_sandboxes_are_heard_and_the_dead_are_not_used() {
    let scene = Scene::new().await;
    scene.deploy("shop", json!({})).await;
    let answer = scene.invoke("shop", "1").await;
    let id = answer.header(invocations::SANDBOX).parse().expect("an id");
    tokio::spawn({
        let manager = scene.manager.clone();
        async move { manager.look_after().await }
    });
    scene.node.mutter(id);
    while !scene
        .get("/v1/functions/shop/logs")
        .await
        .body
        .windows(9)
        .any(|text| text == b"muttering")
    {
        tokio::task::yield_now().await;
    }
    scene.node.kill(id);
    let next = scene.invoke("shop", "2").await;
    assert_eq!(
        (next.header(invocations::ORIGIN), &*next.body),
        ("parked", &b"2"[..])
    );
    let id = next.header(invocations::SANDBOX).parse().expect("an id");
    scene.node.kill(id);
    scene
        .until("it is given back", |scene| scene.node.counts() == (2, 0))
        .await;
}

#[tokio::test]
async fn what_an_agent_before_left_is_found() {
    let scene = Scene::new().await;
    scene.deploy("shop", json!({})).await;
    let Scene {
        folder, manager, ..
    } = scene;
    drop(manager);
    // The store is free once the connections of the former agent are gone.
    std::fs::remove_file(folder.path().join("run/api.sock")).expect("a socket");
    let store = folder.path().join("store");
    std::fs::rename(&store, folder.path().join("was")).expect("renamed");
    std::fs::create_dir(&store).expect("a folder");
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(folder.path().join("was/."))
        .arg(&store)
        .status();
    assert!(copied.expect("cp").success());
    let node = Fake::default();
    node.set_gone(true);
    let request = RequestId::random().expect("an id");
    let idle = node.leave("shop", 1, State::Idle);
    let kept = node.leave("shop", 1, State::Answered { request });
    node.leave("shop", 9, State::Idle);
    node.leave("other", 1, State::Idle);
    node.leave("shop", 1, State::Starting);
    let scene = Scene::on(folder, node);
    scene.listen().await;

    let told = scene.invoke("shop", "1").await.is_problem(Kind::NoSpawner);
    assert!(
        told["remedy"]
            .as_str()
            .expect("text")
            .contains("hearth-spawner"),
        "{told}"
    );
    scene.node.set_gone(false);
    let answer = scene.invoke("shop", "1").await;
    assert_eq!(answer.header(invocations::ORIGIN), "warm");
    let path = format!("/v1/invocations/{request}");
    while scene.get(&path).await.status == 202 {
        tokio::task::yield_now().await;
    }
    let outcome = scene.get(&path).await;
    assert_eq!(
        (&*outcome.body, outcome.header(invocations::ORIGIN)),
        (&b"\"kept\""[..], "found")
    );
    let there: Vec<_> = scene
        .manager
        .sandboxes()
        .iter()
        .map(|sandbox| sandbox.id)
        .collect();
    let mut wanted = vec![idle, kept];
    wanted.sort_unstable();
    assert_eq!(there, wanted);
    assert_eq!(scene.node.counts(), (0, 2), "the others are ended");
}

#[tokio::test]
async fn the_socket_is_its_owners_and_one_agents() {
    use std::os::unix::fs::PermissionsExt as _;
    let scene = Scene::new().await;
    let mode = |path: PathBuf| std::fs::metadata(path).expect("it").permissions().mode() & 0o777;
    assert_eq!(mode(scene.socket()), 0o600);
    assert_eq!(mode(scene.folder.path().join("run")), 0o700);
    let taken = socket::listen(&scene.socket())
        .await
        .expect_err("taken")
        .to_string();
    assert!(taken.contains("functions.api_socket"), "{taken}");
    // One that nobody serves any more is no hindrance.
    let left = scene.folder.path().join("left.sock");
    drop(std::os::unix::net::UnixListener::bind(&left).expect("a socket"));
    socket::listen(&left).await.expect("a socket");
}

#[tokio::test]
async fn a_trace_context_and_the_arn_reach_the_function() {
    let scene = Scene::new().await;
    scene.deploy("shop", json!({})).await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let path = "/v1/functions/shop/invocations";
    let answer = scene
        .send(Method::POST, path, &[("traceparent", parent)], "\"trace\"")
        .await
        .json();
    assert!(
        answer["trace"]
            .as_str()
            .expect("text")
            .starts_with("Root=1-0af76519-"),
        "{answer}"
    );
    assert!(
        answer["arn"]
            .as_str()
            .expect("text")
            .ends_with(":function:shop:1"),
        "{answer}"
    );
}

#[tokio::test]
async fn how_a_function_started_is_told_where_somebody_saw_it() {
    struct Sees(std::sync::Mutex<Vec<Boottime>>);
    impl Watcher for Sees {
        fn claimed(&self, _: &FunctionName, _: &Claimed, at: Boottime) {
            self.0.lock().expect("no test panics with it").push(at);
        }
        fn ready(&self, claimed: Boottime, at: Boottime) {
            // What the fake says of every start.
            assert_eq!(at.0, 7);
            assert_eq!(self.0.lock().expect("no panic").last(), Some(&claimed));
        }
    }
    let blind = Scene::new().await;
    blind.deploy("shop", json!({})).await;
    let invoked = blind.invoke("shop", "1").await;
    let path = format!(
        "/v1/invocations/{}/cold-start",
        invoked.header("hearth-request-id")
    );
    blind.get(&path).await.is_problem(Kind::UnknownStart);

    let sees = Arc::new(Sees(std::sync::Mutex::default()));
    let scene = Scene::seen_by(Some(sees.clone())).await;
    scene.deploy("shop", json!({})).await;
    let invoked = scene.invoke("shop", "1").await;
    let claimed = sees.0.lock().expect("no panic")[0];
    scene
        .manager
        .starts()
        .saw(claimed, r#"{"total_ns":5}"#.to_owned());
    let path = format!(
        "/v1/invocations/{}/cold-start",
        invoked.header("hearth-request-id")
    );
    assert_eq!(scene.get(&path).await.json()["total_ns"], 5);
    let warm = scene.invoke("shop", "1").await;
    let path = format!(
        "/v1/invocations/{}/cold-start",
        warm.header("hearth-request-id")
    );
    scene.get(&path).await.is_problem(Kind::UnknownStart);
}

#[tokio::test]
async fn every_path_of_the_document_is_served() {
    let scene = Scene::new().await;
    let document = scene.get("/v1/openapi.json").await.json();
    let mut served = 0;
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for method in methods.as_object().expect("methods").keys() {
            let path = path.replace("{name}", "shop").replace("{id}", "1");
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).expect("a method");
            let told = scene.send(method, &path, &[], "").await;
            let kind =
                serde_json::from_slice::<Value>(&told.body).unwrap_or_default()["type"].clone();
            let kind = kind.as_str().unwrap_or_default();
            assert!(
                !kind.ends_with("#unknown-path") && told.status != 405,
                "{path}"
            );
            served += 1;
        }
    }
    assert_eq!(served, 12);
}

#[tokio::test]
async fn a_spawner_that_says_later_is_asked_again_a_few_times() {
    let scene = Scene::new().await;
    scene.deploy("shop", json!({})).await;
    scene.node.refuse(3);
    assert_eq!(scene.invoke("shop", "1").await.status, 200);
    scene.deploy("shop", json!({"pids": 9})).await;
    scene.node.refuse(1000);
    let told = scene.invoke("shop", "1").await.is_problem(Kind::NoSandbox);
    assert!(told.to_string().contains("no slot is clean"), "{told}");
}

#[tokio::test]
async fn what_was_decided_about_failures_is_told_a_page_at_a_time() {
    let scene = Scene::new().await;
    assert_eq!(scene.get("/v1/heal").await.body, b"", "nobody decides");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("shop")).expect("a folder");
    let mut scene = Scene::on(folder, Fake::default());
    let audit = scene.folder.path().join("heal");
    let (healer, _) = Healer::open(&audit, Limits::default(), |_| ()).expect("an audit");
    scene.manager = scene.manager.clone().healed_by(healer);
    scene.listen().await;
    for name in ["shop", "cart"] {
        scene.deploy(name, json!({})).await;
        scene.invoke(name, "\"exit\"").await;
    }
    let all = scene.get("/v1/heal").await;
    assert_eq!(all.header("content-type"), "application/x-ndjson");
    let kept = std::fs::read(audit.join("audit.jsonl")).expect("the audit");
    assert_eq!(all.body, kept);
    let lines = async |path: &str| -> Vec<Value> {
        let answer = scene.get(path).await;
        assert_eq!(answer.status, 200);
        let lines = answer.body.split_inclusive(|byte| *byte == b'\n');
        let json = |line| serde_json::from_slice(line).expect("JSON");
        lines.map(json).collect()
    };
    let last = lines("/v1/heal?function=shop&last=1").await;
    assert_eq!(
        (&last[0]["entry"], &last[0]["outcome"]),
        (&json!("outcome"), &json!("would"))
    );
    let before = format!("/v1/heal?function=shop&last=1&before={}", last[0]["seq"]);
    let before = lines(&before).await;
    assert_eq!(before[0]["fault"], "crashed");
    assert_eq!(before[0]["failing"]["failures"], 1);
    for wrong in ["last=0", "last=1001", "function=No", "follow=true"] {
        let answer = scene.get(&format!("/v1/heal?{wrong}")).await;
        answer.is_problem(Kind::Invalid);
    }
}
