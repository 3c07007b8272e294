use super::super::{BackOff, Served, Settings};
use super::*;

struct Scene {
    fleet: Fleet,
    now: Moment,
    tickets: u64,
}

fn settings(max: u32) -> Settings {
    Settings {
        min: 0,
        max,
        reserved: 0,
        queue: 2,
        hold: false,
        policy: "fixed:600".parse().expect("a policy"),
        memory_bytes: 100,
    }
}

impl Scene {
    fn new(functions: &[(&str, Settings)]) -> Self {
        let mut scene = Self {
            fleet: Fleet::default(),
            now: Moment::default(),
            tickets: 0,
        };
        for (name, settings) in functions {
            scene.tell(Input::Deploy {
                function: self::name(name),
                settings: Box::new(settings.clone()),
                renew: false,
            });
        }
        scene
    }

    fn tell(&mut self, input: Input) -> Vec<Action> {
        self.fleet.apply(self.now, input)
    }

    fn pass(&mut self, seconds: u64) -> Vec<Action> {
        self.now = self.now.after(Duration::from_secs(seconds));
        self.tell(Input::Tick)
    }

    fn arrive(&mut self, function: &str) -> Vec<Action> {
        self.tickets += 1;
        self.tell(Input::Arrive {
            function: name(function),
            ticket: Ticket(self.tickets),
            deadline: self.now.after(Duration::from_secs(30)),
        })
    }

    fn started(&mut self, function: &str, instance: u64) -> Vec<Action> {
        self.tell(Input::Started {
            function: name(function),
            instance: Instance(instance),
        })
    }

    fn served(&mut self, function: &str, instance: u64) -> Vec<Action> {
        self.tell(Input::Served {
            function: name(function),
            instance: Instance(instance),
            work: Duration::from_millis(5),
        })
    }
}

fn name(text: &str) -> FunctionName {
    text.parse().expect("a name")
}

fn start(function: &str, instance: u64) -> Action {
    Action::Start {
        function: name(function),
        instance: Instance(instance),
    }
}

fn serve(function: &str, ticket: u64, instance: u64, how: Served) -> Action {
    Action::Serve {
        function: name(function),
        ticket: Ticket(ticket),
        instance: Instance(instance),
        how,
    }
}

fn retire(function: &str, instance: u64, why: Retired) -> Action {
    Action::Retire {
        function: name(function),
        instance: Instance(instance),
        why,
    }
}

#[test]
fn the_first_request_starts_one_and_the_second_finds_it() {
    let mut scene = Scene::new(&[("a", settings(3))]);
    assert_eq!(scene.arrive("a"), [start("a", 1)]);
    assert_eq!(scene.started("a", 1), [serve("a", 1, 1, Served::Miss)]);
    assert_eq!(scene.served("a", 1), []);
    assert_eq!(scene.arrive("a"), [serve("a", 2, 1, Served::Hit)]);
    assert_eq!(scene.served("a", 1), []);
    assert_eq!(scene.pass(599), []);
    assert_eq!(scene.pass(1), [retire("a", 1, Retired::Idle)]);
}

#[test]
fn who_comes_when_all_are_at_work_waits_and_then_is_refused() {
    let mut scene = Scene::new(&[("a", settings(1))]);
    scene.arrive("a");
    scene.started("a", 1);
    assert_eq!(scene.arrive("a"), []);
    assert_eq!(scene.arrive("a"), []);
    let full = scene.arrive("a");
    assert!(
        matches!(&*full, [Action::Refuse { refusal, .. }]
            if refusal.reason == Reason::Full && refusal.retry_after >= Duration::from_secs(1)),
        "{full:?}"
    );
    assert_eq!(scene.served("a", 1), [serve("a", 2, 1, Served::Queued)]);
    let late = scene.pass(30);
    assert!(
        matches!(&*late, [Action::Refuse { ticket: Ticket(3), refusal, .. }]
            if refusal.reason == Reason::Late),
        "{late:?}"
    );
}

#[test]
fn memory_goes_to_who_waits_and_never_below_what_was_promised() {
    let kept = Settings {
        min: 1,
        ..settings(3)
    };
    let mut scene = Scene::new(&[("a", kept), ("b", settings(3)), ("c", settings(3))]);
    // Its promise is kept at the next look.
    assert_eq!(scene.fleet.pools[&name("a")].size().starting, 1);
    scene.started("a", 1);
    scene.tell(Input::Budget { bytes: 250 });
    scene.arrive("b");
    scene.started("b", 2);
    scene.served("b", 2);
    assert_eq!(
        scene.arrive("c"),
        [retire("b", 2, Retired::Evicted), start("c", 3)]
    );
    scene.started("c", 3);
    // One is promised, the other is at work.
    assert_eq!(scene.arrive("b"), []);
    scene.served("c", 3);
    assert_eq!(
        scene.pass(1),
        [retire("c", 3, Retired::Evicted), start("b", 4)]
    );
}

#[test]
fn what_there_is_no_sandbox_for_is_tried_again_soon_and_is_no_failure() {
    let kept = Settings {
        min: 2,
        ..settings(3)
    };
    let mut scene = Scene::new(&[("a", kept)]);
    let without = |instance| Input::NotStarted {
        function: name("a"),
        instance: Instance(instance),
        without: true,
        replace: false,
        outgrown: false,
    };
    for round in 0..50 {
        let first = 2 * round + 1;
        assert_eq!(scene.tell(without(first)), []);
        assert_eq!(scene.tell(without(first + 1)), []);
        assert_eq!(
            scene.pass(1),
            [start("a", first + 2), start("a", first + 3)],
            "a second later"
        );
    }
    let pool = &scene.fleet.pools[&name("a")];
    assert_eq!(pool.back_off(scene.now), (Duration::ZERO, 0));
}

fn deploy(function: &str, settings: Settings, renew: bool) -> Input {
    Input::Deploy {
        function: name(function),
        settings: Box::new(settings),
        renew,
    }
}

fn ended(function: &str, instance: u64, replace: bool) -> Input {
    Input::Ended {
        function: name(function),
        instance: Instance(instance),
        fault: true,
        replace,
        outgrown: false,
    }
}

fn starts(actions: &[Action]) -> usize {
    let is_start = |action: &&Action| matches!(action, Action::Start { .. });
    actions.iter().filter(is_start).count()
}

fn held(max: u32) -> Settings {
    Settings {
        hold: true,
        ..settings(max)
    }
}

/// So many are at work, as its first ones.
fn at_work(scene: &mut Scene, function: &str, many: u64) {
    for _ in 0..many {
        scene.arrive(function);
    }
    for number in 1..=many {
        scene.started(function, number);
    }
}

#[test]
fn what_was_to_be_replaced_is_not_when_something_newer_or_smaller_is_deployed() {
    for renew in [true, false] {
        let mut scene = Scene::new(&[("a", held(5))]);
        at_work(&mut scene, "a", 5);
        for instance in 1..=10 {
            scene.tell(ended("a", instance, true));
        }
        let mut actions = scene.tell(deploy("a", held(2), renew));
        let mut starts = 0;
        for _ in 0..50 {
            for action in std::mem::take(&mut actions) {
                if let Action::Start { instance, .. } = action {
                    starts += 1;
                    actions.extend(scene.started("a", instance.0));
                }
            }
            actions.extend(scene.pass(60));
        }
        assert_eq!(scene.fleet.pools[&name("a")].instances(), 0);
        assert!(starts <= 2, "{starts}");
    }
}

#[test]
fn the_cheapest_to_have_again_goes_first() {
    let mut scene = Scene::new(&[("a", settings(3)), ("b", settings(3)), ("c", settings(3))]);
    scene.tell(Input::Budget { bytes: 200 });
    for (function, start) in [("a", 5), ("b", 1)] {
        scene.tell(Input::Measured {
            function: name(function),
            start: Duration::from_secs(start),
        });
    }
    // The slow one is idle for longer, and stays.
    for (instance, function) in [(1, "a"), (2, "b")] {
        scene.arrive(function);
        scene.started(function, instance);
        scene.served(function, instance);
    }
    assert_eq!(
        scene.arrive("c"),
        [retire("b", 2, Retired::Evicted), start("c", 3)]
    );
}

#[test]
fn who_was_denied_memory_has_what_goes_at_once() {
    let mut scene = Scene::new(&[("a", settings(3)), ("b", settings(3))]);
    scene.tell(Input::Budget { bytes: 100 });
    at_work(&mut scene, "a", 1);
    assert_eq!(scene.arrive("b"), []);
    scene.tell(deploy("a", settings(3), true));
    assert_eq!(
        scene.served("a", 1),
        [retire("a", 1, Retired::Old), start("b", 2)]
    );
}

#[test]
fn after_a_pause_one_is_tried_first_and_the_rest_follow() {
    let mut scene = Scene::new(&[("a", held(5))]);
    at_work(&mut scene, "a", 5);
    // All five are one failure; so are those that took their places, and then there is a pause.
    for instance in 1..=10 {
        scene.tell(ended("a", instance, true));
    }
    assert_eq!(scene.fleet.pools[&name("a")].back_off(scene.now).1, 2);
    assert_eq!(scene.pass(9), []);
    assert_eq!(scene.pass(1), [start("a", 11)]);
    scene.arrive("a");
    scene.arrive("a");
    assert_eq!(scene.started("a", 11), [serve("a", 6, 11, Served::Miss)]);
    let rest = scene.served("a", 11);
    assert_eq!(rest[0], serve("a", 7, 11, Served::Queued));
    assert_eq!(starts(&rest), 4, "{rest:?}");
}

#[test]
fn one_that_lives_though_nobody_asks_is_followed_by_the_rest() {
    let kept = Settings { min: 3, ..held(5) };
    let mut scene = Scene::new(&[("a", kept)]);
    for instance in 1..=6 {
        scene.tell(ended("a", instance, false));
    }
    assert_eq!(scene.pass(10), [start("a", 7)]);
    assert_eq!(scene.started("a", 7), []);
    assert_eq!(scene.pass(9), []);
    assert_eq!(scene.pass(1), [start("a", 8), start("a", 9)]);
}

#[test]
fn those_that_run_something_older_are_not_replaced_while_nobody_waits() {
    let spare = Settings {
        reserved: 1,
        ..settings(50)
    };
    let mut scene = Scene::new(&[("a", settings(50))]);
    at_work(&mut scene, "a", 20);
    assert_eq!(scene.tell(deploy("a", settings(50), true)), []);
    assert_eq!(scene.arrive("a"), [start("a", 21)]);
    // One in reserve is one, whoever still is at work.
    let mut scene = Scene::new(&[("b", spare.clone())]);
    scene.started("b", 1);
    at_work(&mut scene, "b", 20);
    let actions = scene.tell(deploy("b", spare, true));
    assert_eq!(starts(&actions), 1, "{actions:?}");
}

#[test]
fn what_was_weighed_is_not_said_of_something_newer() {
    let mut scene = Scene::new(&[("a", settings(1))]);
    let weight = |scene: &Scene| scene.fleet.pools[&name("a")].weight();
    scene.tell(Input::Weighed {
        function: name("a"),
        bytes: 7,
    });
    scene.tell(deploy("a", settings(1), false));
    assert_eq!(weight(&scene), 7);
    scene.tell(deploy("a", settings(1), true));
    assert_eq!(weight(&scene), 100);
}

#[test]
fn a_request_that_never_came_to_its_instance_teaches_nothing() {
    let quantile = Settings {
        policy: "quantile:50".parse().expect("a policy"),
        ..settings(9)
    };
    let targets = [true, false].map(|is_used| {
        let mut scene = Scene::new(&[("a", quantile.clone())]);
        scene.arrive("a");
        scene.started("a", 1);
        for _ in 0..30 {
            scene.tell(if is_used {
                Input::Served {
                    function: name("a"),
                    instance: Instance(1),
                    work: Duration::from_secs(30),
                }
            } else {
                Input::Unused {
                    function: name("a"),
                    instance: Instance(1),
                }
            });
            scene.pass(1);
            scene.arrive("a");
        }
        scene.fleet.pools[&name("a")].size().target
    });
    // At the same rate, work of 30 s wants 30; work of which nothing is known wants one.
    assert_eq!(targets, [9, 1]);
}

#[test]
fn what_has_ended_is_replaced_though_nobody_asks_and_not_before_its_pause() {
    let mut scene = Scene::new(&[("shop", held(3))]);
    scene.arrive("shop");
    scene.started("shop", 1);
    assert_eq!(scene.tell(ended("shop", 1, true)), [start("shop", 2)]);
    scene.started("shop", 2);
    // The second one in a row: ten seconds.
    assert_eq!(scene.tell(ended("shop", 2, true)), []);
    assert_eq!(scene.pass(9), []);
    assert_eq!(scene.pass(1), [start("shop", 3)]);
    // One that does not come up either is still to be replaced, once.
    let not_started = Input::NotStarted {
        function: name("shop"),
        instance: Instance(3),
        without: false,
        replace: true,
        outgrown: false,
    };
    assert_eq!(scene.tell(not_started), []);
    assert_eq!(scene.pass(20), [start("shop", 4)]);
    scene.started("shop", 4);
    assert_eq!(scene.tell(ended("shop", 4, false)), []);
    assert_eq!(scene.pass(300), [], "nobody asked for it");
}

#[test]
fn what_was_failing_before_the_fleet_is_left_alone_for_the_rest_of_its_pause() {
    let kept = Settings { min: 2, ..held(3) };
    let mut scene = Scene::new(&[("a", held(3))]);
    scene.now = scene.now.after(Duration::from_hours(1));
    let until = scene.now.after(Duration::from_secs(12));
    let back_off = BackOff::resumed(scene.now, 3, until);
    let function = name("a");
    assert_eq!(scene.tell(Input::Resumed { function, back_off }), []);
    assert_eq!(scene.tell(deploy("a", kept, false)), []);
    assert_eq!(scene.arrive("a"), []);
    assert_eq!(scene.pass(11), []);
    assert_eq!(scene.pass(1), [start("a", 1)], "one is tried first");
    scene.tell(ended("a", 1, true));
    // It goes on as if it had never been interrupted.
    let (left, failures) = scene.fleet.pools[&name("a")].back_off(scene.now);
    assert_eq!((left, failures), (Duration::from_secs(40), 4));
}

fn outgrown(instance: u64) -> Input {
    Input::Ended {
        function: name("a"),
        instance: Instance(instance),
        fault: true,
        replace: true,
        outgrown: true,
    }
}

#[test]
fn those_with_too_little_memory_make_way_and_a_request_that_comes_again_waits_for_one_with_more() {
    let mut scene = Scene::new(&[("a", held(5))]);
    at_work(&mut scene, "a", 3);
    scene.served("a", 2);
    // As many as there were, but for the one at work.
    assert_eq!(
        scene.tell(outgrown(1)),
        [retire("a", 2, Retired::Old), start("a", 4), start("a", 5)]
    );
    let again = Input::Again {
        function: name("a"),
        ticket: Ticket(1),
        deadline: scene.now.after(Duration::from_secs(30)),
    };
    assert_eq!(scene.tell(again), []);
    assert_eq!(scene.started("a", 4), [serve("a", 1, 4, Served::Miss)]);
    assert_eq!(scene.started("a", 5), []);
    let actions = scene.served("a", 3);
    assert_eq!(actions[0], retire("a", 3, Retired::Old));
}

#[test]
fn each_that_is_lost_with_too_little_memory_is_replaced_though_others_went_before() {
    let mut scene = Scene::new(&[("a", held(5))]);
    at_work(&mut scene, "a", 3);
    assert_eq!(scene.tell(outgrown(1)), [start("a", 4)]);
    assert_eq!(scene.tell(ended("a", 2, true)), [start("a", 5)]);
    assert_eq!(scene.tell(ended("a", 3, true)), [start("a", 6)]);
}

#[test]
fn where_nothing_may_start_those_with_too_little_memory_stay() {
    let mut scene = Scene::new(&[("a", held(5))]);
    at_work(&mut scene, "a", 2);
    scene.served("a", 2);
    scene.tell(outgrown(1));
    scene.started("a", 3);
    scene.started("a", 4);
    // The second failure in a row: there is a pause.
    assert_eq!(scene.tell(outgrown(3)), []);
    assert_eq!(scene.arrive("a"), [serve("a", 3, 4, Served::Hit)]);
}
