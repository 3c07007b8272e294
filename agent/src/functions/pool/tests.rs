use std::io::Cursor;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use hearth_runtime::id::{FunctionName, RequestId};
use hearth_runtime::pool::simulate::recorded::{Head, replay};
use hearth_runtime::pool::{Input, Moment};
use hearth_runtime::sandbox::ask::Claimed;
use hearth_runtime::sandbox::backend::{Backend as _, Outcome};
use hearth_runtime::sandbox::message::State;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::{Cause, Death, During};
use crate::functions::clock::{Clock, NodeClock};
use crate::functions::fake::Fake;
use crate::functions::invocation::Ending;
use crate::functions::manager::Request;
use crate::functions::node::Node as _;
use crate::functions::pool::{About, Found};
use crate::functions::starts::Watcher;
use crate::functions::store::Store;
use crate::functions::view::PoolView;
use crate::functions::{Definition, Kind, Manager};
use crate::observe::pool::Counter;
use crate::time::Boottime;

/// Its time of day is set by hand.
struct Wall(Mutex<SystemTime>);

impl Clock for Wall {
    fn now(&self) -> Moment {
        NodeClock.now()
    }

    fn wall(&self) -> SystemTime {
        *self.0.lock().expect("no test panics with it")
    }
}

struct Scene {
    folder: TempDir,
    node: Fake,
    clock: Arc<Wall>,
    manager: Manager,
}

impl Scene {
    fn new() -> Self {
        Self::on(Fake::default())
    }

    fn on(node: Fake) -> Self {
        Self::with(node, None)
    }

    fn with(node: Fake, watcher: Option<Arc<dyn Watcher>>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("shop")).expect("a folder");
        let store = Store::open(&folder.path().join("store")).expect("a store");
        let clock = Arc::new(Wall(Mutex::new(SystemTime::now())));
        let by: Arc<dyn Clock> = Arc::clone(&clock) as _;
        let manager = Manager::by(by, store, Arc::new(node.clone()), watcher);
        Self {
            folder,
            node,
            clock,
            manager,
        }
    }

    /// With somebody who looks after them.
    fn looked_after() -> Self {
        let scene = Self::new();
        let manager = scene.manager.clone();
        tokio::spawn(async move { manager.look_after().await });
        scene
    }

    fn definition(&self, changes: Value) -> Definition {
        // Each of them as it is: how many more the default one wants is its own affair.
        let mut definition = json!({
            "root": [self.folder.path().join("shop")],
            "command": ["/bootstrap"],
            "policy": "fixed:600",
        });
        let Value::Object(changes) = changes else {
            panic!("not an object: {changes}");
        };
        definition
            .as_object_mut()
            .expect("an object")
            .extend(changes);
        serde_json::from_value(definition).expect("a definition")
    }

    async fn deploy(&self, changes: Value) {
        let definition = self.definition(changes);
        let deployed = self.manager.deploy(shop(), definition).await;
        deployed.expect("deployed");
    }

    fn invoke(&self, payload: &str) -> JoinHandle<Ending> {
        let manager = self.manager.clone();
        let request = Request {
            id: RequestId::random().expect("an id"),
            payload: payload.as_bytes().to_vec(),
            ..Request::default()
        };
        tokio::spawn(async move { manager.invoke(&shop(), request).await })
    }

    fn pool(&self) -> PoolView {
        self.manager.show(&shop()).expect("a function").pool
    }

    /// Until the pool is so, that other threads see to.
    async fn until(&self, what: &str, is_so: impl Fn(&PoolView) -> bool) {
        for _ in 0..2_000 {
            if is_so(&self.pool()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("never so: {what}: {:?}", self.pool());
    }
}

fn shop() -> FunctionName {
    "shop".parse().expect("a name")
}

fn answer(ending: &Ending) -> &Outcome {
    &ending.as_ref().expect("an answer").outcome
}

fn kind(ending: &Ending) -> Option<&str> {
    match answer(ending) {
        Outcome::Answered(_) => None,
        Outcome::Failed { kind, .. } => Some(kind),
    }
}

#[tokio::test]
async fn a_burst_has_as_many_as_there_may_be_and_the_rest_waits() {
    let scene = Scene::new();
    scene.deploy(json!({"max_instances": 3})).await;
    scene.node.hold(true);
    let all: Vec<_> = (0..7).map(|_| scene.invoke("\"hold\"")).collect();
    scene
        .until("all are there", |pool| (pool.busy, pool.waiting) == (3, 4))
        .await;
    scene.node.hold(false);
    for one in all {
        assert_eq!(kind(&one.await.expect("no panic")), None);
    }
    assert_eq!(scene.node.counts(), (3, 3));
    let pool = scene.pool();
    assert_eq!((pool.misses, pool.queued, pool.hits), (3, 4, 0));
    assert_eq!(kind(&scene.invoke("1").await.expect("no panic")), None);
    assert_eq!((scene.pool().hits, scene.pool().ready), (1, 3));
}

#[tokio::test]
async fn who_is_too_many_or_too_late_is_told_when_to_come_again() {
    let scene = Scene::new();
    let definition = json!({"max_instances": 1, "queue": 1, "timeout": "1h"});
    scene.deploy(definition).await;
    scene.node.hold(true);
    let first = scene.invoke("\"hold\"");
    scene.until("at work", |pool| pool.busy == 1).await;
    let second = scene.invoke("2");
    scene.until("it waits", |pool| pool.waiting == 1).await;
    let third = scene.invoke("3").await.expect("no panic");
    let problem = third.expect_err("too many");
    assert_eq!((problem.kind, problem.kind.status()), (Kind::Busy, 429));
    assert!(problem.retry_after.is_some_and(|seconds| seconds > 0));
    assert!(problem.to_string().contains("1 requests wait"), "{problem}");
    // Who does not wait any more makes room.
    second.abort();
    scene.until("it has gone", |pool| pool.waiting == 0).await;
    let manager = scene.manager.clone();
    let hurried = Request {
        id: RequestId::random().expect("an id"),
        timeout: Some(Duration::from_millis(5)),
        ..Request::default()
    };
    scene
        .deploy(json!({"max_instances": 1, "init_timeout": "1ms"}))
        .await;
    let late = manager.invoke(&shop(), hurried).await;
    let problem = late.expect_err("too late");
    assert_eq!(problem.kind, Kind::Busy);
    assert!(problem.to_string().contains("in time"), "{problem}");
    assert!(problem.retry_after.is_some());
    scene.node.hold(false);
    assert_eq!(kind(&first.await.expect("no panic")), None);
    assert_eq!(scene.pool().refused, 2);
}

#[tokio::test]
async fn those_that_are_always_there_are_there_again_after_one_is_killed() {
    let scene = Scene::looked_after();
    scene.deploy(json!({"min_instances": 2})).await;
    scene.until("two", |pool| pool.ready == 2).await;
    assert_eq!(scene.node.counts(), (2, 2));
    let sandboxes = scene.manager.sandboxes();
    scene.node.kill(sandboxes[0].id);
    while scene.node.counts() != (3, 2) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    scene.until("two again", |pool| pool.ready == 2).await;
    let left: Vec<_> = scene.manager.sandboxes().iter().map(|one| one.id).collect();
    assert!(!left.contains(&sandboxes[0].id) && left.contains(&sandboxes[1].id));
}

#[tokio::test]
async fn one_that_the_node_tells_has_ended_is_replaced_though_nobody_looks_after_it() {
    let scene = Scene::new();
    scene.manager.watch();
    scene.manager.adopt().await.expect("adopted");
    scene.deploy(json!({"min_instances": 1})).await;
    // The second time it is told by a node that was away.
    for made in [1, 2] {
        scene
            .until("one", |pool| {
                pool.ready == 1 && scene.node.counts() == (made, 1) && scene.node.watchers() == 1
            })
            .await;
        if made == 2 {
            scene.node.set_gone(true);
            scene.until("away", |_| scene.node.watchers() == 0).await;
            scene.node.set_gone(false);
            scene.until("back", |_| scene.node.watchers() == 1).await;
        }
        let sandbox = scene.manager.sandboxes()[0].id;
        scene.node.kill(sandbox);
    }
    scene
        .until("another", |pool| {
            pool.ready == 1 && scene.node.counts() == (3, 1)
        })
        .await;
}

#[tokio::test]
async fn reserved_ones_wait_beside_those_at_work() {
    let scene = Scene::looked_after();
    let definition = json!({"reserved_instances": 1, "max_instances": 2});
    scene.deploy(definition).await;
    scene.until("one", |pool| pool.ready == 1).await;
    scene.node.hold(true);
    let held = scene.invoke("\"hold\"");
    scene
        .until("and one", |pool| (pool.ready, pool.busy) == (1, 1))
        .await;
    let other = scene.invoke("1").await.expect("no panic");
    assert_eq!(kind(&other), None);
    assert_eq!((scene.pool().hits, scene.pool().misses), (2, 0));
    scene.node.hold(false);
    held.await.expect("no panic").expect("an answer");
}

#[tokio::test]
async fn a_window_opens_and_closes() {
    let scene = Scene::looked_after();
    let every_minute = json!([{"at": "* * * * *", "for": "1min", "instances": 2}]);
    let definition = json!({"schedule": every_minute, "policy": "fixed:0"});
    scene.deploy(definition).await;
    scene.until("it is open", |pool| pool.ready == 2).await;
    // What is scheduled for the last day of February of leap years is not there on another day.
    let never = json!([{"at": "0 0 29 2 *", "for": "1h", "instances": 2}]);
    let begin = SystemTime::UNIX_EPOCH + Duration::from_hours(24 * 365);
    *scene.clock.0.lock().expect("no panic") = begin;
    let definition = json!({"schedule": never, "policy": "fixed:0"});
    scene.deploy(definition).await;
    scene
        .until("it is closed", |pool| pool.ready == 0 && pool.target == 0)
        .await;
    // In 1972; with every time zone's shift.
    let leap = Duration::from_hours(24 * (365 + 365 + 59));
    for half_hours in 0..52 {
        let shift = Duration::from_mins(30 * half_hours);
        let now = SystemTime::UNIX_EPOCH + leap - Duration::from_hours(13) + shift;
        *scene.clock.0.lock().expect("no panic") = now;
        tokio::time::sleep(Duration::from_millis(1)).await;
        scene.manager.0.pools.look_at_schedules();
        if scene.pool().target == 2 {
            return;
        }
    }
    panic!("it never opened");
}

#[tokio::test]
async fn each_has_had_its_warm_up_before_its_first_request() {
    let scene = Scene::new();
    scene.deploy(json!({"warm_up": "\"log\""})).await;
    let first = scene.invoke("1").await.expect("no panic");
    let steps = &first.as_ref().expect("an answer").steps;
    assert!(steps.iter().any(|step| step.name == "warm_up"), "{steps:?}");
    let mut logs = scene.manager.logs(&shop()).expect("logs");
    let warm = |pieces: &[crate::functions::logs::Piece]| {
        pieces
            .iter()
            .filter(|piece| piece.text == "one\ntwo\n")
            .count()
    };
    assert_eq!(warm(&logs.after(0, false).await), 1);
    scene
        .invoke("2")
        .await
        .expect("no panic")
        .expect("an answer");
    assert_eq!(warm(&logs.after(0, false).await), 1, "once each");
    // One that fails in it is warm all the same, one that ends in it never came up.
    scene.deploy(json!({"warm_up": "\"fail\""})).await;
    assert_eq!(kind(&scene.invoke("1").await.expect("no panic")), None);
    scene.deploy(json!({"warm_up": "\"exit\""})).await;
    let ended = scene.invoke("1").await.expect("no panic");
    assert_eq!(kind(&ended), Some("Runtime.ExitError"));
    assert_eq!(scene.node.counts().1, 0);
}

#[tokio::test]
async fn another_version_replaces_those_that_are_idle_now_and_those_at_work_then() {
    let scene = Scene::looked_after();
    scene.deploy(json!({"min_instances": 2})).await;
    scene.until("two", |pool| pool.ready == 2).await;
    scene.node.hold(true);
    let held = scene.invoke("\"hold\"");
    scene.until("at work", |pool| pool.busy == 1).await;
    scene.deploy(json!({"min_instances": 2, "pids": 99})).await;
    let versions = |scene: &Scene| -> Vec<u32> {
        let sandboxes = scene.manager.sandboxes();
        let mut versions: Vec<u32> = sandboxes.iter().map(|one| one.version).collect();
        versions.sort_unstable();
        versions
    };
    scene.until("new ones", |pool| pool.ready == 2).await;
    assert_eq!(versions(&scene), [1, 2, 2]);
    scene.node.hold(false);
    let old = held.await.expect("no panic").expect("an answer");
    assert_eq!(old.version, 1);
    scene
        .until("the old one gone", |_| {
            versions(&scene) == [2, 2] && scene.node.counts().1 == 2
        })
        .await;
}

#[tokio::test]
async fn who_waits_for_a_function_that_is_removed_is_told() {
    let scene = Scene::new();
    scene
        .deploy(json!({"max_instances": 1, "timeout": "1h"}))
        .await;
    scene.node.hold(true);
    let working = scene.invoke("\"hold\"");
    scene.until("at work", |pool| pool.busy == 1).await;
    let waiting = scene.invoke("1");
    scene.until("it waits", |pool| pool.waiting == 1).await;
    scene.manager.remove(&shop()).await.expect("removed");
    let told = waiting.await.expect("no panic").expect_err("no function");
    assert_eq!(told.kind, Kind::UnknownFunction);
    let cancelled = working.await.expect("no panic");
    assert_eq!(kind(&cancelled), Some("Sandbox.Cancelled"));
    assert_eq!(scene.node.counts(), (1, 0));
}

#[tokio::test]
async fn those_of_an_agent_before_count_for_those_that_are_always_there() {
    let node = Fake::default();
    node.set_gone(true);
    let scene = Scene::on(node);
    scene.deploy(json!({"min_instances": 2})).await;
    let kept = scene.node.leave("shop", 1, State::Idle);
    scene.node.set_gone(false);
    scene
        .invoke("1")
        .await
        .expect("no panic")
        .expect("an answer");
    scene.until("and another one", |pool| pool.ready == 2).await;
    assert_eq!(scene.node.counts(), (1, 2), "made, alive");
    let there = scene.manager.sandboxes();
    assert!(there.iter().any(|one| one.id == kept));
}

#[tokio::test]
async fn what_keeps_failing_at_its_start_is_left_alone_and_says_why() {
    let scene = Scene::new();
    scene.deploy(json!({"command": ["/dies"]})).await;
    for _ in 0..2 {
        let told = scene.invoke("1").await.expect("no panic");
        assert_eq!(kind(&told), Some("Runtime.ExitError"));
    }
    let pool = scene.pool();
    assert_eq!(pool.failures, 2);
    assert!((1..=10_000).contains(&pool.back_off_ms), "{pool:?}");
    // What is new begins anew.
    scene.deploy(json!({})).await;
    assert_eq!(kind(&scene.invoke("1").await.expect("no panic")), None);
    assert_eq!(scene.pool().back_off_ms, 0);
}

#[tokio::test]
async fn what_is_killed_or_hangs_at_work_is_left_alone_and_who_is_in_a_hurry_does_no_harm() {
    for (payload, timeout) in [("\"gone\"", "1h"), ("\"wait\"", "20ms")] {
        let scene = Scene::new();
        scene.deploy(json!({"timeout": timeout})).await;
        for failures in 1..=2 {
            let told = scene.invoke(payload).await.expect("no panic");
            assert!(kind(&told).is_some(), "{told:?}");
            assert_eq!(scene.pool().failures, failures, "{payload}");
        }
        assert!(scene.pool().back_off_ms > 0);
    }
    let scene = Scene::new();
    scene.deploy(json!({"timeout": "1h"})).await;
    for _ in 0..3 {
        let hurried = Request {
            id: RequestId::random().expect("an id"),
            timeout: Some(Duration::from_millis(20)),
            payload: b"\"wait\"".to_vec(),
            ..Request::default()
        };
        let told = scene.manager.invoke(&shop(), hurried).await;
        assert_eq!(kind(&told), Some("Sandbox.Timedout"));
    }
    assert_eq!(scene.pool().failures, 0);
}

#[tokio::test]
async fn a_request_that_is_given_what_has_ended_meanwhile_is_not_lost() {
    let scene = Scene::new();
    scene.deploy(json!({})).await;
    kind(&scene.invoke("1").await.expect("no panic"));
    let pools = &scene.manager.0.pools;
    let live = pools.look(|live, _| Some(Arc::clone(live))).remove(0);
    // It is at work: who works with it sees how it ends.
    scene.node.hold(true);
    let held = scene.invoke("\"hold\"");
    scene.until("at work", |pool| pool.busy == 1).await;
    assert!(!pools.ended_idle(&live));
    scene.node.hold(false);
    assert_eq!(kind(&held.await.expect("no panic")), None);
    // It has ended, and is given a request before that is told.
    assert!(pools.ended_idle(&live));
    assert!(!pools.ended_idle(&live), "once");
    let told = scene.invoke("\"gone\"").await.expect("no panic");
    assert_eq!(kind(&told), Some("Runtime.ExitError"));
    assert_eq!(scene.node.counts().0, 2, "another one has got it");
    let death = Death {
        during: During::Idle,
        cause: Cause::Exited,
        ended: None,
        elapsed: Duration::ZERO,
        interrupted: None,
    };
    pools.is_over(&live, death);
    assert_eq!(scene.pool().busy, 0);
}

#[tokio::test]
async fn what_one_weighs_is_read_and_no_more_are_started_than_there_is_memory_for() {
    let scene = Scene::looked_after();
    scene.node.weigh_each(3 << 20);
    scene.deploy(json!({})).await;
    assert_eq!(scene.pool().memory_bytes, 128 << 20, "its limit");
    scene
        .invoke("1")
        .await
        .expect("no panic")
        .expect("an answer");
    scene
        .until("it is weighed", |pool| pool.memory_bytes == 3 << 20)
        .await;
    scene.manager.set_memory(Some(4 << 20));
    scene.manager.0.pools.look_at_memory();
    scene.node.hold(true);
    let held = scene.invoke("\"hold\"");
    scene.until("at work", |pool| pool.busy == 1).await;
    let hurried = Request {
        id: RequestId::random().expect("an id"),
        timeout: Some(Duration::from_millis(5)),
        ..Request::default()
    };
    // The rest of its patience is the time of a start.
    scene.deploy(json!({"init_timeout": "1ms"})).await;
    let told = scene.manager.invoke(&shop(), hurried).await;
    let problem = told.expect_err("no memory");
    assert_eq!((problem.kind, problem.kind.status()), (Kind::NoMemory, 503));
    assert!(problem.retry_after.is_some(), "{problem}");
    scene.node.hold(false);
    held.await.expect("no panic").expect("an answer");
}

#[tokio::test]
async fn without_a_spawner_nothing_is_held_against_a_function() {
    let scene = Scene::looked_after();
    scene.deploy(json!({"min_instances": 1})).await;
    scene.until("one", |pool| pool.ready == 1).await;
    scene.node.set_gone(true);
    let sandbox = scene.manager.sandboxes()[0].id;
    scene.node.kill(sandbox);
    scene.until("it is gone", |pool| pool.ready == 0).await;
    for _ in 0..3 {
        let told = scene.invoke("1").await.expect("no panic");
        assert_eq!(told.expect_err("nobody").kind, Kind::NoSpawner);
    }
    assert_eq!(scene.pool().back_off_ms, 0);
    scene.node.set_gone(false);
    scene.until("one again", |pool| pool.ready == 1).await;
}

#[tokio::test]
async fn what_is_being_removed_is_neither_deployed_nor_removed_twice() {
    let scene = Scene::new();
    scene.deploy(json!({"timeout": "1h"})).await;
    scene.node.hold(true);
    let working = scene.invoke("\"stay\"");
    scene.until("at work", |pool| pool.busy == 1).await;
    let manager = scene.manager.clone();
    let removing = tokio::spawn(async move { manager.remove(&shop()).await });
    while !scene
        .manager
        .function(&shop())
        .expect("there")
        .state()
        .is_removed
    {
        tokio::task::yield_now().await;
    }
    // Whoever asked is gone; it is removed all the same.
    removing.abort();
    let again = scene.manager.remove(&shop()).await;
    assert_eq!(again.expect_err("once").kind, Kind::Busy);
    let definition = scene.definition(json!({}));
    let deployed = scene.manager.deploy(shop(), definition.clone()).await;
    assert_eq!(deployed.expect_err("not yet").kind, Kind::Busy);
    scene.node.hold(false);
    while scene.manager.function(&shop()).is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let _ = working.await.expect("no panic");
    let count = |counter| {
        let pools = scene.manager.pools().pools;
        let pool = pools.iter().find(|pool| pool.function == "shop");
        pool.expect("told a while yet").counts.counts[&counter]
    };
    assert_eq!(count(Counter::Retired("removed")), 1);
    // One of the same name goes on counting: no count is ever less than before.
    let deployed = scene.manager.deploy(shop(), definition).await;
    deployed.expect("deployed");
    assert_eq!(count(Counter::Retired("removed")), 1);
    assert_eq!(scene.manager.pools().pools.len(), 1);
}

#[tokio::test]
async fn an_instance_of_an_agent_before_goes_where_another_version_was_deployed_meanwhile() {
    let scene = Scene::new();
    scene.deploy(json!({})).await;
    scene
        .invoke("1")
        .await
        .expect("no panic")
        .expect("an answer");
    let function = scene.manager.function(&shop()).expect("a function");
    let first = Arc::clone(&function.state().deployed);
    let left = scene.node.leave("shop", 1, State::Idle);
    let found = scene.manager.0.node.list().expect("a list");
    let listed = found.iter().find(|one| one.sandbox == left);
    let (sandbox, _) = scene
        .manager
        .0
        .node
        .find(listed.expect("it"))
        .expect("it is there");
    scene.deploy(json!({"pids": 99})).await;
    scene.manager.0.pools.found(Found {
        function,
        deployed: first,
        about: About {
            id: left,
            slot: "7".to_owned(),
            cgroup: None,
            pid: 1,
            began: SystemTime::now(),
            claimed: None,
        },
        sandbox,
    });
    assert_eq!(scene.pool().ready, 0);
    assert_eq!(scene.node.counts(), (1, 0), "it has ended");
}

#[tokio::test]
async fn what_panics_at_work_or_at_its_start_leaves_nothing_behind() {
    let scene = Scene::new();
    scene.deploy(json!({})).await;
    let id = RequestId::random().expect("an id");
    let request = || Request {
        id,
        payload: b"\"panic\"".to_vec(),
        ..Request::default()
    };
    let told = scene.manager.invoke(&shop(), request()).await;
    assert_eq!(told.expect_err("no answer").kind, Kind::Lost);
    let known = scene.manager.outcome(id).await;
    assert!(known.is_err(), "its id is free again: {known:?}");
    assert_eq!(scene.node.counts(), (1, 0));
    scene.deploy(json!({"command": ["/panics"]})).await;
    let told = scene.invoke("1").await.expect("no panic");
    assert_eq!(told.expect_err("no answer").kind, Kind::Lost);
    assert_eq!((scene.pool().starting, scene.node.counts().1), (0, 0));
}

#[tokio::test]
async fn one_whose_socket_is_busy_is_found_all_the_same() {
    let node = Fake::default();
    node.set_gone(true);
    let scene = Scene::on(node);
    scene.deploy(json!({"min_instances": 1})).await;
    let kept = scene.node.leave("shop", 1, State::Idle);
    scene.node.be_busy(2);
    scene.node.set_gone(false);
    scene
        .invoke("1")
        .await
        .expect("no panic")
        .expect("an answer");
    assert_eq!(scene.manager.sandboxes()[0].id, kept);
    assert_eq!(scene.node.counts(), (0, 1));
}

#[tokio::test]
async fn who_takes_no_notice_holds_up_nobody_else_and_is_not_asked_twice() {
    let node = Fake::default();
    node.set_gone(true);
    let scene = Scene::on(node);
    scene.deploy(json!({"max_instances": 4})).await;
    let mut left: Vec<_> = (0..4)
        .map(|_| scene.node.leave("shop", 1, State::Idle))
        .collect();
    scene.node.mute(left.remove(0));
    // Each answers only while the others are spoken with, too.
    scene.node.answer_together(left.len());
    scene.node.set_gone(false);
    scene
        .invoke("1")
        .await
        .expect("no panic")
        .expect("an answer");
    let mut found: Vec<_> = scene.manager.sandboxes().iter().map(|one| one.id).collect();
    found.sort();
    left.sort();
    assert_eq!(found, left);
    assert_eq!(scene.node.spoken(), 1);
    assert_eq!(scene.node.counts(), (0, 3), "it has ended");
}

/// Sees starts: those in whose function's name somebody is in a hurry, before they are timed.
#[derive(Default)]
struct Seer {
    claims: Mutex<Vec<Boottime>>,
    manager: OnceLock<Manager>,
}

impl Watcher for Seer {
    fn claimed(&self, _: &FunctionName, _: &Claimed, at: Boottime) {
        self.claims.lock().expect("no panic").push(at);
    }

    fn ready(&self, claimed: Boottime, _: Boottime) {
        if let Some(manager) = self.manager.get() {
            manager.saw(claimed, Some(Duration::from_millis(111)), String::new());
        }
    }
}

#[tokio::test]
async fn a_start_that_somebody_saw_counts_as_it_was_seen_early_or_late() {
    let seer = Arc::new(Seer::default());
    let watcher: Arc<dyn Watcher> = Arc::clone(&seer) as _;
    let scene = Scene::with(Fake::default(), Some(watcher));
    let mut recording = scene.manager.record().expect("a recording");
    scene.deploy(json!({})).await;
    scene
        .invoke("1")
        .await
        .expect("no panic")
        .expect("an answer");
    let claimed = seer.claims.lock().expect("no panic")[0];
    let late = Some(Duration::from_millis(222));
    scene.manager.saw(claimed, late, String::new());
    // The next one is told of before it is up.
    assert!(seer.manager.set(scene.manager.clone()).is_ok());
    scene.deploy(json!({"pids": 99})).await;
    scene
        .invoke("2")
        .await
        .expect("no panic")
        .expect("an answer");
    let mut measured = Vec::new();
    while let Ok(Some(record)) =
        tokio::time::timeout(Duration::from_millis(200), recording.next()).await
    {
        if let Input::Measured { start, .. } = record.input {
            measured.push(start.as_millis());
        }
    }
    assert_eq!(measured, [222, 111]);
}

#[tokio::test]
async fn what_was_recorded_is_decided_alike_once_more() {
    let scene = Scene::looked_after();
    let mut recording = scene.manager.record().expect("a recording");
    let twice = scene.manager.record();
    assert_eq!(twice.err().map(|problem| problem.kind), Some(Kind::Busy));
    let definition =
        json!({"max_instances": 2, "min_instances": 1, "queue": 3, "policy": "fixed:0"});
    scene.deploy(definition).await;
    scene.node.hold(true);
    let all: Vec<_> = (0..8).map(|_| scene.invoke("\"hold\"")).collect();
    scene
        .until("some are refused", |pool| pool.refused == 3)
        .await;
    scene.node.hold(false);
    for one in all {
        // Three of them were refused.
        let _ = one.await.expect("no panic");
    }
    scene
        .invoke("\"exit\"")
        .await
        .expect("no panic")
        .expect("its failure");
    scene
        .until("the first is left", |pool| {
            pool.ready == 1 && pool.busy == 0
        })
        .await;
    scene.manager.remove(&shop()).await.expect("removed");
    let mut text = serde_json::to_string(&Head::default()).expect("JSON") + "\n";
    let mut actions = 0;
    // All that was told is in there by now.
    while let Ok(Some(record)) =
        tokio::time::timeout(Duration::from_millis(50), recording.next()).await
    {
        actions += record.actions.len();
        text += &(serde_json::to_string(&record).expect("JSON") + "\n");
    }
    assert!(actions > 8, "{text}");
    let inputs = replay(Path::new("recorded"), Cursor::new(&text)).expect("the same");
    assert!(inputs > 20, "{text}");
    // One that begins later begins with what there is.
    drop(recording);
    scene.deploy(json!({"min_instances": 1})).await;
    scene.until("one", |pool| pool.ready == 1).await;
    let mut later = scene.manager.record().expect("a recording");
    scene
        .invoke("1")
        .await
        .expect("no panic")
        .expect("an answer");
    let mut text = serde_json::to_string(&Head::default()).expect("JSON") + "\n";
    while let Ok(Some(record)) = tokio::time::timeout(Duration::from_millis(50), later.next()).await
    {
        text += &(serde_json::to_string(&record).expect("JSON") + "\n");
    }
    assert!(
        text.contains("\"found\"") && text.contains("\"hit\""),
        "{text}"
    );
    replay(Path::new("recorded"), Cursor::new(&text)).expect("the same");
}
