//! What functions do, in order and out of it.

use proptest::prelude::*;

use super::*;

fn request(method: &str, path: &str, body: Option<&str>) -> Request {
    Request {
        method: method.into(),
        target: format!("/2018-06-01/runtime/{path}"),
        headers: vec![("lambda-runtime-function-error-type".into(), "Broken".into())],
        body: body.map(|body| body.as_bytes().to_vec()),
        keep_alive: true,
    }
}

fn get(path: &str) -> Request {
    request("GET", path, Some(""))
}

fn post(path: &str, body: &str) -> Request {
    let mut request = request("POST", path, Some(body));
    if path.ends_with("response") {
        request.headers.clear();
    }
    request
}

fn id(number: u128) -> RequestId {
    RequestId::from_u128(number)
}

fn invocation(number: u128) -> Invocation {
    Invocation {
        request: id(number),
        arn: "arn:hearth:function:resize".into(),
        left: Duration::from_secs(3),
        trace: Some("Root=1-2".into()),
        payload: b"work".to_vec(),
        ..Invocation::default()
    }
}

/// The connection that was replied to, and the status.
fn replied(effects: &[Effect<u32>]) -> Vec<(u32, u16)> {
    let replies = effects.iter().filter_map(|effect| match effect {
        Effect::Reply(connection, reply) => Some((*connection, reply.status)),
        Effect::Tell(_) => None,
    });
    replies.collect()
}

fn told(effects: &[Effect<u32>]) -> Vec<&Happening> {
    let happenings = effects.iter().filter_map(|effect| match effect {
        Effect::Tell(happening) => Some(happening),
        Effect::Reply(..) => None,
    });
    happenings.collect()
}

#[test]
fn a_function_gets_ready_works_and_answers() {
    let mut session = Session::new();
    let effects = session.call(1, get("invocation/next"));
    assert_eq!(told(&effects), [&Happening::Ready]);
    assert!(replied(&effects).is_empty(), "it waits");
    let before = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_millis();
    let effects = session.invoke(invocation(7)).unwrap();
    let [Effect::Reply(1, reply)] = &*effects else {
        panic!("{effects:?}")
    };
    let header = |name| reply.headers.iter().find(|(header, _)| *header == name);
    let after = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_millis();
    let deadline: u128 = header("Lambda-Runtime-Deadline-Ms")
        .unwrap()
        .1
        .parse()
        .unwrap();
    assert!(
        (before + 3000..=after + 3000).contains(&deadline),
        "{deadline}"
    );
    assert_eq!(
        header("Lambda-Runtime-Aws-Request-Id").unwrap().1,
        id(7).to_string()
    );
    assert!(header("Lambda-Runtime-Client-Context").is_none());
    assert_eq!(reply.body, b"work");
    let effects = session.call(1, post(&format!("invocation/{}/response", id(7)), "done"));
    assert_eq!(replied(&effects), [(1, 202)]);
    let answered = Happening::Answered {
        request: id(7),
        body: b"done".to_vec(),
    };
    assert_eq!(told(&effects), [&answered]);
    assert!(
        session.call(1, get("invocation/next")).is_empty(),
        "ready is told once"
    );
}

#[test]
fn work_that_comes_early_waits_and_a_second_is_refused() {
    let mut session = Session::new();
    assert!(session.invoke(invocation(1)).unwrap().is_empty());
    assert_eq!(session.invoke(invocation(2)), Err(Refused::Busy));
    let effects = session.call(4, get("invocation/next"));
    assert_eq!(
        (told(&effects), replied(&effects)),
        (vec![&Happening::Ready], vec![(4, 200)])
    );
    assert_eq!(session.at_work(), Some(id(1)));
    assert_eq!(session.invoke(invocation(2)), Err(Refused::Busy));
    let refused = session.call(5, get("invocation/next"));
    assert_eq!(replied(&refused), [(5, 403)]);
    session.call(4, post(&format!("invocation/{}/error", id(1)), "{}"));
    assert!(session.invoke(invocation(2)).unwrap().is_empty());
}

#[test]
fn an_answer_is_taken_once_and_only_to_what_was_asked() {
    let mut session = Session::new();
    session.call(1, get("invocation/next"));
    session.invoke(invocation(7)).unwrap();
    let path = |number| format!("invocation/{}/response", id(number));
    assert_eq!(replied(&session.call(1, post(&path(8), "x"))), [(1, 400)]);
    assert_eq!(session.at_work(), Some(id(7)), "a wrong id ends nothing");
    session.call(1, post(&path(7), "x"));
    let again = session.call(1, post(&path(7), "x"));
    let [Effect::Reply(1, reply)] = &*again else {
        panic!("{again:?}")
    };
    assert!(String::from_utf8_lossy(&reply.body).contains("was answered already"));
}

#[test]
fn errors_of_a_function_are_told_by_its_word() {
    let mut session = Session::new();
    session.call(1, get("invocation/next"));
    session.invoke(invocation(7)).unwrap();
    let effects = session.call(1, post(&format!("invocation/{}/error", id(7)), "why"));
    let failed = Happening::Failed {
        request: id(7),
        kind: "Broken".into(),
        body: b"why".to_vec(),
    };
    assert_eq!(told(&effects), [&failed]);
    session.call(1, get("invocation/next"));
    session.invoke(invocation(8)).unwrap();
    let path = format!("invocation/{}/response", id(8));
    let broke_off = session.call(1, request("POST", &path, Some("half")));
    assert!(matches!(told(&broke_off)[..], [Happening::Failed { .. }]));
    session.call(1, get("invocation/next"));
    session.invoke(invocation(9)).unwrap();
    let path = format!("invocation/{}/response", id(9));
    let too_large = session.call(1, request("POST", &path, None));
    assert_eq!(replied(&too_large), [(1, 413)]);
    assert!(
        matches!(told(&too_large)[..], [Happening::Failed { kind, .. }] if kind == TOO_LARGE_KIND)
    );
}

#[test]
fn a_function_that_cannot_start_gets_no_work() {
    let mut session = Session::new();
    session.invoke(invocation(1)).unwrap();
    let effects = session.call(1, post("init/error", "no module"));
    assert!(matches!(told(&effects)[..], [Happening::InitFailed { kind, .. }] if kind == "Broken"));
    assert_eq!(session.invoke(invocation(2)), Err(Refused::Failed));
    assert_eq!(
        replied(&session.call(1, get("invocation/next"))),
        [(1, 403)]
    );
    let mut started = Session::new();
    started.call(1, get("invocation/next"));
    assert_eq!(
        replied(&started.call(2, post("init/error", "late"))),
        [(2, 403)]
    );
}

#[test]
fn a_connection_that_closes_gets_no_work() {
    let mut session = Session::new();
    session.call(1, get("invocation/next"));
    session.call(2, get("invocation/next"));
    session.closed(1);
    assert_eq!(replied(&session.invoke(invocation(1)).unwrap()), [(2, 200)]);
    let mut session = Session::new();
    session.call(1, get("invocation/next"));
    session.closed(1);
    assert!(session.invoke(invocation(1)).unwrap().is_empty());
    assert_eq!(
        replied(&session.call(3, get("invocation/next"))),
        [(3, 200)]
    );
}

#[test]
fn a_snapshot_is_taken_where_the_function_says() {
    let mut session = Session::new();
    let effects = session.call(1, get("restore/next"));
    assert_eq!(told(&effects), [&Happening::Restorable]);
    assert_eq!(replied(&session.call(2, get("restore/next"))), [(2, 403)]);
    let reply = session.restored().unwrap();
    assert_eq!(replied(&[reply]), [(1, 200)]);
    assert!(session.restored().is_none());
    assert!(matches!(
        told(&session.call(1, get("invocation/next")))[..],
        [Happening::Ready]
    ));
    assert_eq!(replied(&session.call(1, get("restore/next"))), [(1, 403)]);
}

proptest! {
    /// Whatever a function calls in whatever order: each call gets one reply or waits, and each
    /// invocation that was taken ends at most once.
    #[test]
    fn nothing_is_answered_twice_whatever_a_function_does(steps in proptest::collection::vec((0..8_u8, 1..4_u128), 0..60)) {
        let mut session = Session::new();
        let mut taken = Vec::new();
        let mut ended = Vec::new();
        for (connection, (what, number)) in (0_u32..).zip(steps) {
            let effects = match what {
                0 | 1 => session.call(connection, get("invocation/next")),
                2 => session.call(connection, post(&format!("invocation/{}/response", id(number)), "x")),
                3 => session.call(connection, post(&format!("invocation/{}/error", id(number)), "x")),
                4 => session.call(connection, post("init/error", "x")),
                5 => session.call(connection, get("restore/next")),
                6 => {
                    session.closed(connection.saturating_sub(1));
                    Vec::new()
                }
                _ => match session.invoke(invocation(number)) {
                    Ok(effects) => {
                        taken.push(id(number));
                        effects
                    }
                    Err(_) => Vec::new(),
                },
            };
            let mine = replied(&effects).iter().filter(|(to, _)| *to == connection).count();
            prop_assert!(mine <= 1);
            for happening in told(&effects) {
                if let Happening::Answered { request, .. } | Happening::Failed { request, .. } = happening {
                    ended.push(*request);
                }
            }
            prop_assert!(session.waiting.len() <= MAX_WAITING);
        }
        prop_assert!(ended.len() <= taken.len());
        prop_assert_eq!(&taken[..ended.len()], &ended[..]);
    }
}
