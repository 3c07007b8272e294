//! What clients really send, whole and in pieces, and what none should.

use super::*;

const LIMIT: usize = 100;

/// All requests in `bytes`, fed in pieces of `cut` bytes.
fn parse(bytes: &[u8], cut: usize) -> Result<Vec<Request>, HttpError> {
    let mut parser = Parser::new(LIMIT);
    let mut requests = Vec::new();
    for part in bytes.chunks(cut) {
        parser.feed(part);
        while let Some(request) = parser.take()? {
            requests.push(request);
        }
    }
    Ok(requests)
}

fn one(text: &str) -> Request {
    let whole = parse(text.as_bytes(), usize::MAX).unwrap();
    for cut in 1..8 {
        assert_eq!(
            parse(text.as_bytes(), cut).unwrap(),
            whole,
            "in pieces of {cut}"
        );
    }
    assert_eq!(whole.len(), 1, "{text}");
    whole.into_iter().next().unwrap()
}

fn refused(text: &str) -> HttpError {
    let told = parse(text.as_bytes(), usize::MAX).unwrap_err();
    assert_eq!(parse(text.as_bytes(), 1).unwrap_err(), told);
    told
}

#[test]
fn a_request_of_each_kind_of_client() {
    // awslambdaric (curl within), a shell's curl, hyper.
    let next = one(
        "GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: 127.0.0.1:9001\r\nUser-Agent: aws-lambda-python/3.11\r\nAccept: */*\r\n\r\n",
    );
    assert_eq!(
        (&*next.method, next.body, next.keep_alive),
        ("GET", Some(Vec::new()), true)
    );
    let response =
        one("POST /r HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello");
    assert_eq!(
        (response.body.as_deref(), response.keep_alive),
        (Some(&b"hello"[..]), false)
    );
    let streamed = one(
        "POST /r HTTP/1.1\r\nTransfer-Encoding: chunked\r\nLambda-Runtime-Function-Response-Mode: streaming\r\n\r\n4\r\nhell\r\n1;x=y\r\no\r\n0\r\nLambda-Runtime-Function-Error-Type: Late\r\n\r\n",
    );
    assert_eq!(streamed.body.as_deref(), Some(&b"hello"[..]));
    assert_eq!(
        streamed.header("lambda-runtime-function-error-type"),
        Some("Late")
    );
    let old = one("GET / HTTP/1.0\r\n\r\n");
    assert!(!old.keep_alive);
}

#[test]
fn requests_may_follow_each_other_at_once() {
    let text = "POST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\nabGET /b HTTP/1.1\r\n\r\nPOST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    for cut in [1, 3, 1000] {
        let requests = parse(text.as_bytes(), cut).unwrap();
        let targets: Vec<&str> = requests.iter().map(|request| &*request.target).collect();
        assert_eq!(targets, ["/a", "/b", "/c"]);
    }
}

#[test]
fn a_body_over_the_limit_is_thrown_away_and_the_next_request_read() {
    let chunk = format!("3c\r\n{}\r\n", "x".repeat(60));
    let texts = [
        format!(
            "POST /a HTTP/1.1\r\nContent-Length: 101\r\n\r\n{}",
            "x".repeat(101)
        ),
        format!("POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n"),
    ];
    for text in texts {
        let text = text + "GET /b HTTP/1.1\r\n\r\n";
        for cut in [1, 7, 1000] {
            let requests = parse(text.as_bytes(), cut).unwrap();
            assert_eq!(requests[0].body, None);
            assert_eq!(requests[1].target, "/b");
        }
    }
    let just = format!(
        "POST /a HTTP/1.1\r\nContent-Length: 100\r\n\r\n{}",
        "x".repeat(100)
    );
    assert!(one(&just).body.is_some());
}

#[test]
fn who_asks_first_is_told_to_go_on_once() {
    let mut parser = Parser::new(LIMIT);
    parser.feed(b"POST /a HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(parser.take(), Ok(None));
    assert!(parser.wants_continue());
    assert!(!parser.wants_continue());
    parser.feed(b"ab");
    assert!(parser.take().unwrap().is_some());
    assert!(!parser.wants_continue());
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    let twice = "it says its length more than once";
    for headers in [
        "Content-Length: 2\r\nContent-Length: 3",
        "Content-Length: 2\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    ] {
        let text = format!("POST / HTTP/1.1\r\n{headers}\r\n\r\n");
        assert_eq!(refused(&text), HttpError::Malformed(twice));
    }
    for (headers, status) in [
        ("Content-Length: +2", 400),
        ("Content-Length: -1", 400),
        ("Content-Length: 99999999999999999999", 400),
        ("Content-Length: 99999999999", 413),
        ("Transfer-Encoding: gzip, chunked", 501),
        ("a: \u{1}", 400),
        (" folded: x", 400),
    ] {
        let text = format!("POST / HTTP/1.1\r\n{headers}\r\n\r\n");
        assert_eq!(refused(&text).status(), status, "{headers}");
    }
    let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (body, status) in [
        ("x\r\n", 400),
        ("2\r\nabc\r\n", 400),
        ("ffffffffffffffff\r\n", 413),
        ("2\r\nab\r\n0\r\n\u{1}: x\r\n\r\n", 400),
    ] {
        assert_eq!(
            refused(&format!("{chunked}{body}")).status(),
            status,
            "{body}"
        );
    }
}

#[test]
fn a_head_without_end_is_not_waited_for() {
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(MAX_HEAD));
    assert_eq!(refused(&long), HttpError::HeadTooLarge);
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65));
    assert_eq!(
        parse(many.as_bytes(), usize::MAX),
        Err(HttpError::HeadTooLarge)
    );
    let chunked = format!(
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;{}",
        "x".repeat(300)
    );
    assert_eq!(
        parse(chunked.as_bytes(), usize::MAX).unwrap_err().status(),
        400
    );
}

#[test]
fn a_reply_has_no_header_that_nobody_meant() {
    let mut reply = Reply::new(200, "{}");
    reply
        .headers
        .push(("Lambda-Runtime-Trace-Id", "a\r\nEvil: yes".into()));
    let mut out = Vec::new();
    reply.encode(true, &mut out);
    let text = String::from_utf8(out).unwrap();
    assert!(
        text.contains("Lambda-Runtime-Trace-Id: aEvil: yes\r\n"),
        "{text}"
    );
    assert!(
        text.ends_with("Content-Length: 2\r\nConnection: keep-alive\r\n\r\n{}"),
        "{text}"
    );
}
