//! Functions that end, or never begin.

use hearth_runtime::sandbox::message::State;

use super::super::*;
use super::plain::{Caller, LONG, Served, program, python};

fn started(start: &Start, left: Duration) -> (Served, Caller) {
    let served = Served::new();
    let (mut caller, _) = served.connect();
    caller.start(start, left);
    (served, caller)
}

#[test]
fn one_that_says_that_it_cannot_start_is_believed() {
    let (served, mut caller) = started(
        &python(
            r#"
print("no database", flush=True)
kind = {"Lambda-Runtime-Function-Error-Type": "Mine.NoDatabase"}
status = post("init/error", '{"errorMessage": "no database"}', kind)
time.sleep(1000)
"#,
        ),
        LONG,
    );
    caller.next();
    let (why, body, logged) = caller.not_started();
    let kind = "Mine.NoDatabase".to_owned();
    assert_eq!(why, NotStarted::Itself { kind });
    assert_eq!(body, r#"{"errorMessage": "no database"}"#);
    assert_eq!(logged.out, "no database\n");
    caller.end();
    served.ended();
}

#[test]
fn one_that_dies_in_its_start_is_told_with_what_it_wrote_last() {
    let how = Exit::Code(3);
    let (served, mut caller) = started(&program(&["sh", "-c", "echo why >&2; exit 3"]), LONG);
    caller.next();
    let (why, _, logged) = caller.not_started();
    assert_eq!(why, NotStarted::Exited { how });
    assert_eq!(logged.err, "why\n");
    caller.end();
    served.ended();
    let (_served, mut caller) = started(&program(&["sh", "-c", "kill -SEGV $$"]), LONG);
    caller.next();
    let how = Exit::Signal(11);
    assert_eq!(caller.not_started().0, NotStarted::Exited { how });
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let (served, mut caller) = started(&program(&["/no/such/program"]), LONG);
    let (why, ..) = caller.not_started();
    assert!(why.to_string().contains("/no/such/program"), "{why}");
    caller.end();
    served.ended();
}

#[test]
fn one_that_is_not_ready_in_time_ends() {
    let after = Duration::from_millis(300);
    let (served, mut caller) = started(&program(&["sh", "-c", "sleep 1000"]), after);
    caller.next();
    assert_eq!(caller.not_started().0, NotStarted::Deadline { after });
    caller.end();
    served.ended();
}

#[test]
fn one_that_does_not_answer_in_time_ends_with_what_it_wrote() {
    let (served, mut caller) =
        Served::ready("take(); print('long', end='', flush=True); time.sleep(1000)");
    caller.invoke(1, Duration::from_secs(2), b"");
    let (frame, logged) = caller.after_logs();
    let kind = fault::TIMED_OUT.to_owned();
    assert_eq!(frame.message, FromSandbox::Failed { kind });
    assert_eq!(logged.out, "long");
    let said = String::from_utf8(frame.body).unwrap();
    assert!(said.contains("2.00 s"), "{said}");
    caller.taken(1);
    caller.end();
    served.ended();
}

#[test]
fn one_that_is_cancelled_ends_and_what_is_not_its_work_is_not_cancelled() {
    let (served, mut caller) = Served::ready("take(); time.sleep(1000)");
    caller.say(ToSandbox::Cancel, Some(2), None, b"");
    caller.invoke(1, LONG, b"");
    caller.say(ToSandbox::Cancel, Some(2), None, b"");
    caller.invoke(3, LONG, b"");
    caller.failed(3, fault::REFUSED);
    caller.say(ToSandbox::Cancel, Some(1), None, b"");
    caller.failed(1, fault::CANCELLED);
    caller.taken(1);
    caller.end();
    served.ended();
}

#[test]
fn one_that_dies_at_work_fails_the_request_and_then_has_ended() {
    let (served, mut caller) = Served::ready("take(); os.write(2, b'dying'); os._exit(7)");
    caller.invoke(1, LONG, b"");
    let (frame, logged) = caller.after_logs();
    let kind = fault::EXITED.to_owned();
    assert_eq!(frame.message, FromSandbox::Failed { kind });
    assert_eq!(logged.err, "dying");
    let said = String::from_utf8(frame.body).unwrap();
    assert!(said.contains("exit status 7"), "{said}");
    let how = Exit::Code(7);
    assert_eq!(caller.next().message, FromSandbox::Exited { how });
    caller.taken(1);
    caller.end();
    served.ended();
}

#[test]
fn an_answer_that_was_sent_before_the_end_is_heard_before_it() {
    for _ in 0..5 {
        let (served, mut caller) = Served::ready(
            r#"
id, _ = take()
connection.close()
connection.request("POST", f"/2018-06-01/runtime/invocation/{id}/response", b"x" * 6_000_000)
os._exit(0)
"#,
        );
        caller.invoke(1, LONG, b"");
        caller.answered(1, &vec![b'x'; 6_000_000]);
        let how = Exit::Code(0);
        assert_eq!(caller.next().message, FromSandbox::Exited { how });
        caller.taken(1);
        caller.end();
        served.ended();
    }
}

#[test]
fn an_outcome_waits_for_who_comes_back_even_when_all_is_over() {
    let (served, mut caller) = Served::ready("take(); time.sleep(0.3); os._exit(7)");
    caller.invoke(1, LONG, b"");
    drop(caller);
    let mut caller = served.until(State::Over);
    caller.failed(1, fault::EXITED);
    let how = Exit::Code(7);
    assert_eq!(caller.next().message, FromSandbox::Exited { how });
    caller.taken(1);
    caller.end();
    served.ended();
}

#[test]
fn what_is_no_message_ends_the_connection_and_not_the_sandbox() {
    let (served, mut caller) = Served::ready("id, body = take(); answer(id, body); take()");
    // A second start.
    caller.start(&program(&["true"]), LONG);
    caller.end();
    let (mut caller, state) = served.connect();
    assert_eq!(state, State::Idle);
    // No time left is told.
    caller.say(ToSandbox::Invoke(Ask::default()), Some(1), None, b"");
    caller.end();
    let (mut caller, _) = served.connect();
    caller.invoke(2, LONG, b"on");
    caller.answered(2, b"on");
}
