//! Functions that live on.

use hearth_runtime::channel::MAX_BODY;
use hearth_runtime::invoke::TOO_LARGE_KIND;
use hearth_runtime::sandbox::message::State;

use super::super::*;
use super::plain::{LONG, Served, program, python};

const ECHO: &str = "
while True:
    id, body = take()
    answer(id, body)
";

#[test]
fn a_shell_gets_ready_works_and_answers() {
    let served = Served::new();
    let (mut caller, _) = served.connect();
    let script = r#"
        api="http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation"
        while true; do
            head=$(mktemp)
            work=$(curl -sS -D "$head" "$api/next")
            id=$(sed -n 's/^lambda-runtime-aws-request-id: \([-0-9a-f]*\).*/\1/pI' "$head")
            rm "$head"
            curl -sS -o /dev/null "$api/$id/response" -d "$work and $MINE in $TZ, $NODE_OPTIONS"
        done
    "#;
    caller.start(&program(&["sh", "-c", script]), LONG);
    let FromSandbox::Spawned { steps } = caller.next().message else {
        panic!("nothing spawned");
    };
    assert_eq!(steps, [("spawn".to_owned(), 1)]);
    assert!(matches!(caller.next().message, FromSandbox::Ready { .. }));
    for request in 1..4 {
        caller.invoke(request, LONG, b"work");
        let expected = b"work and kept in UTC+3, --max-old-space-size=95";
        caller.answered(request, expected);
        caller.taken(request);
    }
    drop(caller);
    let (mut caller, state) = served.connect();
    assert_eq!(state, State::Idle);
    caller.invoke(9, LONG, b"");
    caller.say(ToSandbox::Cancel, Some(9), None, b"");
    caller.failed(9, fault::CANCELLED);
    served.ended();
}

#[test]
fn its_own_error_is_told_as_it_told_it_and_it_lives_on() {
    let (_served, mut caller) = Served::ready(
        r#"
while True:
    id, _ = take()
    kind = {"Lambda-Runtime-Function-Error-Type": "Mine.Broken"}
    post(f"invocation/{id}/error", '{"errorMessage": "no luck"}', kind)
"#,
    );
    for request in 1..3 {
        caller.invoke(request, LONG, b"");
        let said = caller.failed(request, "Mine.Broken");
        assert_eq!(said, r#"{"errorMessage": "no luck"}"#);
        caller.taken(request);
    }
}

#[test]
fn a_second_answer_is_refused_and_changes_nothing() {
    let (_served, mut caller) = Served::ready(
        r#"
id, _ = take()
first = answer(id, "first")
second = answer(id, "second")
id, _ = take()
answer(id, f"{first} {second}")
take()
"#,
    );
    caller.invoke(1, LONG, b"");
    caller.answered(1, b"first");
    caller.taken(1);
    caller.invoke(2, LONG, b"");
    caller.answered(2, b"202 400");
}

#[test]
fn the_largest_payload_goes_both_ways_and_a_larger_answer_is_an_error() {
    let (_served, mut caller) = Served::ready(
        "
id, body = take()
answer(id, body)
id, body = take()
answer(id, body + b'x')
id, _ = take()
def chunks():
    for _ in range(7):
        yield b'x' * (1 << 20)
answer(id, chunks())
take()
",
    );
    let payload: Vec<u8> = (b'a'..=b'z').cycle().take(MAX_BODY).collect();
    caller.invoke(1, LONG, &payload);
    caller.answered(1, &payload);
    caller.taken(1);
    for request in 2..4 {
        caller.invoke(request, LONG, &payload);
        let said = caller.failed(request, TOO_LARGE_KIND);
        assert!(said.contains("6291456"), "{said}");
        caller.taken(request);
    }
}

#[test]
fn it_may_wait_to_be_told_that_its_answer_is_welcome() {
    let served = Served::new();
    let (mut caller, _) = served.connect();
    // curl asks for a large body, and waits a second for leave.
    let script = r#"
        api="http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation"
        curl -sS -D - -o /dev/null "$api/next" > head.$$
        id=$(sed -n 's/^lambda-runtime-aws-request-id: \([-0-9a-f]*\).*/\1/pI' head.$$)
        rm head.$$
        head -c 3000000 /dev/zero | tr '\0' x |
            curl -sSv -H "Expect: 100-continue" -H "Transfer-Encoding: chunked" \
                --expect100-timeout 1000 "$api/$id/response" --data-binary @- 2>&1 | grep 100
        sleep 1000
    "#;
    let mut start = program(&["sh", "-c", &format!("cd /tmp; {script}")]);
    start.memory_bytes = None;
    caller.start(&start, LONG);
    caller.next();
    assert!(matches!(caller.next().message, FromSandbox::Ready { .. }));
    caller.invoke(1, LONG, b"");
    let (frame, _) = caller.after_logs();
    assert_eq!(frame.body.len(), 3_000_000);
}

#[test]
fn what_it_wrote_for_a_request_comes_before_the_end_of_it_and_with_its_id() {
    let (_served, mut caller) = Served::ready(
        r#"
while True:
    id, body = take()
    os.write(1, b"out of " + body + b"\nno line")
    os.write(2, b"err of " + body + b"\n")
    answer(id, "done")
"#,
    );
    for request in 1..20 {
        caller.invoke(request, LONG, format!("{request}").as_bytes());
        let logged = caller.answered(request, b"done");
        assert_eq!(logged.out, format!("out of {request}\nno line"));
        assert_eq!(logged.err, format!("err of {request}\n"));
        let id = Some(RequestId::from_u128(request));
        assert!(logged.requests.iter().all(|request| *request == id));
        caller.taken(request);
    }
}

#[test]
fn a_part_of_a_line_is_told_though_nothing_ends() {
    let (_served, mut caller) = Served::ready("take(); os.write(1, b'so far'); time.sleep(1000)");
    caller.invoke(1, LONG, b"");
    // The rest of the line never comes.
    let told = caller.next();
    assert_eq!(told.body, b"so far");
}

#[test]
fn a_flood_of_logs_that_nobody_takes_is_bounded_and_counted_and_stops_nobody() {
    const FLOOD: usize = 3_000_000;
    let (served, mut caller) = Served::ready(&format!(
        "
id, _ = take()
sys.stdin.read()
time.sleep(0.2)
for _ in range({FLOOD} // 100):
    os.write(1, b'x' * 99 + b'\\n')
answer(id, 'done')
take()
"
    ));
    caller.invoke(1, LONG, b"");
    drop(caller);
    let request = RequestId::from_u128(1);
    let mut caller = served.until(State::Answered { request });
    let logged = caller.answered(1, b"done");
    assert!(logged.dropped > 0, "all of it was kept");
    assert!(logged.out.len() <= 256 * 1024);
    caller.taken(1);
}

#[test]
fn who_comes_back_finds_the_work_and_then_the_answer() {
    let fifo = tempfile::tempdir().unwrap();
    let path = fifo.path().join("go");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
    let (served, mut caller) = Served::ready(&format!(
        "
id, body = take()
open('{}').read()
answer(id, body)
take()
",
        path.display()
    ));
    caller.invoke(5, LONG, b"kept");
    drop(caller);
    let request = RequestId::from_u128(5);
    let (mut second, state) = served.connect();
    assert_eq!(state, State::Work { request });
    // Who connects last is the one that is spoken with.
    let (third, state) = served.connect();
    assert_eq!(state, State::Work { request });
    assert_eq!(second.0.receive(LONG).unwrap(), None);
    drop(third);
    std::fs::write(&path, "go").unwrap();
    let mut caller = served.until(State::Answered { request });
    caller.answered(5, b"kept");
    drop(caller);
    // It was not said that it has arrived: it is told again.
    let (mut caller, state) = served.connect();
    assert_eq!(state, State::Answered { request });
    caller.answered(5, b"kept");
    caller.invoke(6, LONG, b"");
    let said = caller.failed(6, fault::REFUSED);
    assert!(said.contains(&request.to_string()), "{said}");
    caller.taken(5);
    drop(caller);
    let (mut caller, state) = served.connect();
    assert_eq!(state, State::Idle);
    caller.invoke(7, Duration::from_millis(1), b"");
    caller.failed(7, fault::TIMED_OUT);
}

#[test]
fn an_answer_that_nobody_takes_is_dropped_at_its_deadline_and_the_next_is_taken() {
    let (_served, mut caller) = Served::ready(ECHO);
    caller.invoke(1, Duration::from_secs(3), b"one");
    caller.answered(1, b"one");
    for _ in 0..200 {
        caller.invoke(2, LONG, b"two");
        let (frame, _) = caller.after_logs();
        if frame.message == FromSandbox::Answered {
            return assert_eq!(frame.body, b"two");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("it is kept for ever");
}

#[test]
fn somebody_who_reads_nothing_does_not_stop_the_function() {
    let done = tempfile::tempdir().unwrap();
    let path = done.path().join("done");
    let (served, mut stuck) = Served::ready(&format!(
        "
id, body = take()
for _ in range(40_000):
    os.write(1, b'y' * 99 + b'\\n')
answer(id, body)
open('{}', 'w').close()
take()
",
        path.display()
    ));
    let payload = vec![b'x'; MAX_BODY];
    stuck.invoke(1, LONG, &payload);
    while !path.exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let (mut caller, state) = served.connect();
    let request = RequestId::from_u128(1);
    assert_eq!(state, State::Answered { request });
    caller.answered(1, &payload);
    drop(stuck);
}

#[test]
fn one_that_closes_its_outputs_works_on() {
    let (_served, mut caller) = Served::ready(&format!("os.close(1); os.close(2)\n{ECHO}"));
    for request in 1..3 {
        caller.invoke(request, LONG, b"work");
        caller.answered(request, b"work");
        caller.taken(request);
    }
}

#[test]
fn no_number_of_its_connections_keeps_it_from_its_work() {
    let (_served, mut caller) = Served::ready(
        "
import socket
id, _ = take()
host, port = os.environ['AWS_LAMBDA_RUNTIME_API'].split(':')
open_ones = [socket.create_connection((host, int(port))) for _ in range(200)]
refused = sum(1 for one in open_ones[63:] if b' 503 ' in one.recv(100))
for one in open_ones:
    one.close()
answer(id, str(refused))
take()
",
    );
    caller.invoke(1, LONG, b"");
    // With the one that it has its work from, 64 may be open.
    caller.answered(1, b"137");
}

#[test]
fn requests_that_are_sent_ahead_are_answered_one_after_the_other() {
    let (_served, mut caller) = Served::ready(
        r#"
import socket
id, _ = take()
host, port = os.environ["AWS_LAMBDA_RUNTIME_API"].split(":")
ahead = socket.create_connection((host, int(port)))
give = f"POST /2018-06-01/runtime/invocation/{id}/response HTTP/1.1\r\nContent-Length: 5\r\n\r\nfirst"
take_next = "GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\n\r\n"
ahead.sendall((give + take_next + "GET /none HTTP/1.1\r\n\r\n").encode())
got = b""
while got.count(b"HTTP/1.1") < 3:
    got += ahead.recv(10000)
id = got.split(b"Aws-Request-Id: ")[1].split(b"\r\n")[0].decode()
answer(id, " ".join(part[:3].decode() for part in got.split(b"HTTP/1.1 ")[1:]))
take()
"#,
    );
    caller.invoke(1, LONG, b"");
    caller.answered(1, b"first");
    caller.taken(1);
    caller.invoke(2, LONG, b"");
    caller.answered(2, b"202 200 404");
}

#[test]
fn a_snapshot_that_nobody_takes_is_not_waited_for() {
    let text = format!("assert call('GET', 'restore/next')[0].status == 200\n{ECHO}");
    let served = Served::new();
    let (mut caller, _) = served.connect();
    caller.start(&python(&text), LONG);
    caller.next();
    assert!(matches!(caller.next().message, FromSandbox::Ready { .. }));
}
