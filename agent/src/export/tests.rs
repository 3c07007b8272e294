use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;

use super::{Collector, Record, SendError, TraceContext, WallClock, record, resource};
use crate::config::{Config, Otlp};
use crate::observe::cold_start::{ColdStart, PartSpan, Phase, PhaseName, Ready};
use crate::observe::identity::{Identity, Pod};
use crate::time::{Boottime, Nanos};

fn start() -> ColdStart {
    let phase = |name, begin, end| Phase {
        name,
        merged: Vec::new(),
        begin: Boottime(begin),
        end: Boottime(end),
        running_ns: None,
        queued_ns: None,
        io_ns: None,
        blocked_ns: None,
        minor_faults: None,
        major_faults: None,
        read_bytes: None,
        parts: Vec::new(),
    };
    let mut create = phase(PhaseName::Create, 1000, 5000);
    create.parts.push(PartSpan {
        name: "mounts",
        pid: 42,
        begin: Boottime(2000),
        end: Boottime(3000),
        waited: None,
    });
    let identity = Identity {
        pid: 7,
        container_id: Some("c".repeat(64)),
        pod: Some(Pod {
            name: Some("shop-1".into()),
            ..Pod::default()
        }),
        ..Identity::default()
    };
    ColdStart {
        begin: Boottime(1000),
        total_ns: Nanos(8000),
        ready: Ready::Exited,
        // Killed by signal 9.
        exit_status: Some(9),
        opener: "exec",
        phases: vec![create, phase(PhaseName::Exec, 5000, 9000)],
        parts_dropped: 0,
        identity,
        strategies: std::collections::BTreeMap::new(),
        lost: 0,
    }
}

fn told() -> Record {
    let context = TraceContext {
        trace_id: 1,
        span_id: 2,
    };
    record(&start(), &WallClock::new(), context)
}

#[test]
fn parts_are_inside_their_phase_and_phases_inside_the_start() {
    let Record {
        trace_id,
        spans,
        log,
    } = told();
    assert_eq!((trace_id, log.span, spans.len()), (1, 2, 4));
    let [root, create, mounts, exec] = &spans[..] else {
        panic!("four spans")
    };
    assert_eq!(
        (root.id, root.parent, create.parent, exec.parent),
        (2, 0, 2, 2)
    );
    assert_eq!(mounts.parent, create.id);
    assert_eq!(
        (root.name.as_str(), mounts.name.as_str()),
        ("cold_start ~unknown", "mounts")
    );
    assert_eq!(mounts.end_unix_ns - mounts.begin_unix_ns, 1000);
    assert_eq!(create.end_unix_ns, exec.begin_unix_ns);
    assert_eq!(log.unix_ns, root.end_unix_ns);
}

#[test]
fn what_is_not_known_is_left_out() {
    let Record { spans, .. } = told();
    let attribute = |name: &str| {
        let mut attributes = spans[0].attributes.iter();
        attributes
            .find(|(is, _)| is == name)
            .map(|(_, value)| value.clone())
    };
    assert_eq!(attribute("k8s.pod.name"), Some("shop-1".into()));
    assert_eq!(attribute("k8s.namespace.name"), None);
    assert_eq!(attribute("hearth.exit.signal"), Some(9.into()));
    assert_eq!(attribute("process.exit.code"), None);
    assert!(
        spans[3]
            .attributes
            .iter()
            .all(|(name, _)| !name.contains("running"))
    );
    assert!(spans[0].error.is_some() && spans[1].error.is_none());
}

#[test]
fn a_child_joins_by_the_ids_of_the_root() {
    let context = TraceContext {
        trace_id: 0xabc,
        span_id: 0x12,
    };
    let expected = "00-00000000000000000000000000000abc-0000000000000012-01";
    assert_eq!(context.traceparent(), expected);
    assert_ne!(TraceContext::random(), TraceContext::random());
}

fn otlp(text: &str) -> Otlp {
    let path = std::path::Path::new("hearth.toml");
    Config::parse(text, path, |_| None).expect("valid").otlp
}

/// A collector that answers `status` to traces; the headers of the last request.
async fn answering(status: StatusCode) -> (String, Arc<Mutex<HeaderMap>>) {
    let seen = Arc::new(Mutex::new(HeaderMap::new()));
    let keep = Arc::clone(&seen);
    let answer = async move |headers: HeaderMap| {
        *keep.lock().expect("not poisoned") = headers;
        status
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("an address");
    let router = Router::new().route("/v1/traces", post(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (format!("http://{address}"), seen)
}

async fn send(otlp: &Otlp) -> Result<(), SendError> {
    let endpoint = otlp.endpoint.clone().expect("an endpoint");
    let collector = Collector::new(&endpoint, otlp, &resource()).expect("a collector");
    collector.send_spans(&[told()]).await
}

#[tokio::test]
async fn an_answer_says_whether_the_same_may_be_sent_again() {
    for (status, refused) in [
        (StatusCode::BAD_REQUEST, true),
        (StatusCode::UNAUTHORIZED, true),
        (StatusCode::NOT_FOUND, true),
        (StatusCode::TOO_MANY_REQUESTS, false),
        (StatusCode::SERVICE_UNAVAILABLE, false),
    ] {
        let (endpoint, _) = answering(status).await;
        let text = format!("[otlp]\nendpoint = \"{endpoint}\"\nprotocol = \"http\"\n");
        let answer = send(&otlp(&text)).await.expect_err("no thanks");
        assert_eq!(
            matches!(answer, SendError::Refused(_)),
            refused,
            "{status}: {answer}"
        );
    }
    let (endpoint, _) = answering(StatusCode::OK).await;
    let text = format!("[otlp]\nendpoint = \"{endpoint}\"\nprotocol = \"http\"\n");
    assert_eq!(send(&otlp(&text)).await, Ok(()));
    for protocol in ["grpc", "http"] {
        let nobody = "http://127.0.0.1:1";
        let text = format!("[otlp]\nendpoint = \"{nobody}\"\nprotocol = \"{protocol}\"\n");
        let answer = send(&otlp(&text)).await.expect_err("nobody is there");
        assert!(matches!(answer, SendError::Away(_)), "{answer}");
    }
}

#[tokio::test]
async fn headers_arrive_as_they_are_written() {
    let (endpoint, seen) = answering(StatusCode::OK).await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "x-token: a%41 b\n").expect("written");
    let text = format!(
        "[otlp]\nendpoint = \"{endpoint}\"\nprotocol = \"http\"\nheaders_file = \"{}\"\n\
         [otlp.headers]\nauthorization = \"Bearer 100%\"\n",
        file.path().display()
    );
    send(&otlp(&text)).await.expect("taken");
    let seen = seen.lock().expect("not poisoned");
    assert_eq!(seen["authorization"], "Bearer 100%");
    assert_eq!(seen["x-token"], "a%41 b");
}

#[tokio::test]
async fn wrong_headers_are_refused_in_words() {
    use std::os::unix::fs::PermissionsExt as _;
    let file = tempfile::NamedTempFile::new().expect("a file");
    let connect = |text: &str| {
        let otlp = otlp(&format!(
            "[otlp]\nendpoint = \"http://127.0.0.1:1\"\n{text}"
        ));
        let endpoint = otlp.endpoint.clone().expect("an endpoint");
        Collector::new(&endpoint, &otlp, &resource())
            .expect_err("refused")
            .to_string()
    };
    let by_file = format!("headers_file = \"{}\"\n", file.path().display());
    std::fs::write(file.path(), "a: b\nnonsense\n").expect("written");
    assert!(connect(&by_file).contains(":2: write `Name: value`"));
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(file.path(), open).expect("set");
    assert!(connect(&by_file).contains("chmod 600"));
    let message = connect("[otlp.headers]\n\"a b\" = \"hunter2\"\n");
    assert!(
        message.contains("a b") && !message.contains("hunter2"),
        "{message}"
    );
}

#[tokio::test]
async fn a_collector_behind_tls_can_be_named() {
    for protocol in ["grpc", "http"] {
        let endpoint = "https://127.0.0.1:1";
        let text = format!("[otlp]\nendpoint = \"{endpoint}\"\nprotocol = \"{protocol}\"\n");
        assert!(matches!(send(&otlp(&text)).await, Err(SendError::Away(_))));
    }
}
