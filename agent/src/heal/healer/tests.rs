#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use std::time::Duration;

use super::*;
use crate::heal::audit::{Files, Line};
use crate::heal::fault::{Interrupted, Lost, What};

const MIB: u64 = 1 << 20;

struct Scene {
    _folder: TempDir,
    dir: PathBuf,
    told: Arc<Mutex<Vec<Healing>>>,
}

impl Scene {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        Self {
            dir: folder.path().join("heal"),
            _folder: folder,
            told: Arc::default(),
        }
    }

    fn open(&self) -> Healer {
        self.with(Limits::default())
    }

    fn with(&self, limits: Limits) -> Healer {
        let told = Arc::clone(&self.told);
        let node = || {
            Some(NodeMemory {
                available: 8192 * MIB,
                total: 16_384 * MIB,
            })
        };
        let tell = move |healing| told.lock().unwrap().push(healing);
        Healer::open_on(&self.dir, limits, node, tell).unwrap().0
    }

    /// Another agent, after this one.
    fn open_anew(&self, healer: Healer) -> Healer {
        drop(healer);
        self.open()
    }

    fn told(&self) -> Vec<Healing> {
        std::mem::take(&mut *self.told.lock().unwrap())
    }

    fn lines(&self) -> Vec<Line> {
        let (lines, found) = Files::open(&self.dir).unwrap().read().unwrap();
        assert_eq!(found, []);
        lines.into_iter().map(|(line, _)| line).collect()
    }

    fn outcomes(&self) -> Vec<(String, Resolved)> {
        let lines = self.lines().into_iter();
        lines
            .filter_map(|line| match line.entry {
                Entry::Outcome(outcome) => Some((outcome.action, outcome.outcome)),
                _ => None,
            })
            .collect()
    }
}

fn shop() -> FunctionName {
    "shop".parse().unwrap()
}

fn terms(mode: Mode) -> Terms {
    Terms {
        mode,
        memory: 128 * MIB,
        memory_max: 512 * MIB,
        idempotent: true,
        start: Duration::from_secs(10),
    }
}

fn fault(what: What) -> Fault {
    Fault {
        what,
        function: shop(),
        version: 2,
        instance: 1,
        lost: Some(Lost {
            sandbox: SandboxId::random().unwrap(),
            slot: "slot-0001".to_owned(),
            cgroup: Some("/hearth/slot-0001".to_owned()),
            claimed: Some(Boottime(5)),
        }),
        request: Some(Interrupted {
            id: RequestId::from_u128(7),
            left_ms: 10_000,
            replays: 0,
        }),
        failing: None,
        at: Boottime::now(),
    }
}

fn oom() -> Fault {
    fault(What::OomKilled {
        limit_bytes: 128 * MIB,
        peak_bytes: Some(128 * MIB),
    })
}

fn came_up() -> CameUp {
    CameUp {
        sandbox: SandboxId::random().unwrap(),
        claimed: Some(Boottime(9)),
        memory_bytes: Some(228 * MIB),
    }
}

const NONE: PoolNow = PoolNow {
    pause: Duration::ZERO,
    instances: 1,
    budget: None,
};

#[test]
fn what_is_acted_upon_is_written_before_and_told_when_all_of_it_is_known() {
    let scene = Scene::new();
    let healer = scene.open();
    let verdict = healer.fault(oom(), &terms(Mode::Act), NONE);
    assert_eq!(
        verdict,
        Verdict {
            replace: true,
            raise: true,
            replay: true
        }
    );
    let last = scene.lines().pop().unwrap();
    assert!(matches!(last.entry, Entry::Decision(_)), "{last:?}");
    assert_eq!(healer.memory_of(&shop(), 2, &terms(Mode::Act)), 228 * MIB);
    assert_eq!(healer.memory_of(&shop(), 3, &terms(Mode::Act)), 128 * MIB);
    let large = Terms {
        memory: 512 * MIB,
        ..terms(Mode::Act)
    };
    assert_eq!(healer.memory_of(&shop(), 2, &large), 512 * MIB);

    healer.starting(&shop(), 4);
    healer.started(9, &came_up());
    assert_eq!((scene.told(), scene.outcomes()), (vec![], vec![]));
    healer.started(4, &came_up());
    assert_eq!(scene.told(), [], "the request is still under way");
    healer.replayed(RequestId::from_u128(7), None);
    let [healing] = &scene.told()[..] else {
        panic!("once");
    };
    let outcomes: Vec<_> = healing
        .actions
        .iter()
        .map(|one| (&*one.action, one.outcome))
        .collect();
    assert_eq!(outcomes, [("raise", "done"), ("replay", "done")]);
    assert_eq!(healing.actions[0].claimed, Some(Boottime(9)));
    assert_eq!(healing.line, Some(last.seq));
    assert!(healing.chain.is_some() && healing.ended >= healing.at);
    assert_eq!(scene.outcomes().len(), 2);
}

#[test]
fn observe_and_dry_run_do_nothing_and_say_what_they_would() {
    for (mode, resolved) in [
        (Mode::Observe, Resolved::Would),
        (Mode::DryRun, Resolved::DryRun),
    ] {
        let scene = Scene::new();
        let healer = scene.open();
        assert_eq!(
            healer.fault(oom(), &terms(mode), NONE),
            Verdict::default(),
            "{mode:?}"
        );
        assert_eq!(healer.memory_of(&shop(), 2, &terms(Mode::Act)), 128 * MIB);
        let outcomes = ["raise", "replay"].map(|action| (action.to_owned(), resolved));
        assert_eq!(scene.outcomes(), outcomes);
        let told = scene.told();
        assert_eq!(told[0].actions[0].outcome, resolved.word());
        assert!(told[0].reason.contains("128 MiB"), "{}", told[0].reason);
    }
}

#[test]
fn a_decision_that_cannot_be_written_is_not_acted_upon() {
    let scene = Scene::new();
    let healer = scene.open();
    let _ = healer.fault(oom(), &terms(Mode::Observe), NONE);
    scene.told();
    drop(healer);
    // What is in the way of the file is no file.
    fs::remove_file(scene.dir.join("head")).unwrap();
    let healer = scene.open();
    fs::remove_file(scene.dir.join("audit.jsonl")).unwrap();
    fs::create_dir(scene.dir.join("audit.jsonl")).unwrap();
    let verdict = healer.fault(oom(), &terms(Mode::Act), NONE);
    assert_eq!(verdict, Verdict::default());
    assert_eq!(healer.memory_of(&shop(), 2, &terms(Mode::Act)), 128 * MIB);
    let told = scene.told();
    assert_eq!(told[0].actions[0].outcome, "not_written");
    assert!(told[0].actions[0].is_bad && told[0].line.is_none());
    // There is room again.
    fs::remove_dir(scene.dir.join("audit.jsonl")).unwrap();
    assert!(healer.fault(oom(), &terms(Mode::Act), NONE).replace);
}

#[test]
fn an_outcome_that_cannot_be_written_is_written_when_it_can() {
    let scene = Scene::new();
    let healer = scene.open();
    assert!(healer.fault(oom(), &terms(Mode::Act), NONE).replace);
    let (file, aside) = (scene.dir.join("audit.jsonl"), scene.dir.join("aside"));
    fs::rename(&file, &aside).unwrap();
    fs::create_dir(&file).unwrap();
    healer.starting(&shop(), 4);
    healer.started(4, &came_up());
    healer.replayed(RequestId::from_u128(7), None);
    assert_eq!(scene.told().len(), 1, "nobody waits for the file");
    healer.tick(Boottime::now());
    fs::remove_dir(&file).unwrap();
    fs::rename(&aside, &file).unwrap();
    assert_eq!(scene.outcomes(), []);
    healer.tick(Boottime::now());
    let done = |action: &str| (action.to_owned(), Resolved::Done);
    assert_eq!(scene.outcomes(), [done("raise"), done("replay")]);
    healer.tick(Boottime::now());
    assert_eq!(scene.outcomes().len(), 2, "once");
}

#[test]
fn budgets_hold_also_over_a_restart_and_a_dry_run_keeps_to_them() {
    for mode in [Mode::Act, Mode::DryRun] {
        let scene = Scene::new();
        let limits = Limits {
            of_function: 3,
            ..Limits::default()
        };
        for _ in 0..3 {
            let _ = scene.with(limits).fault(oom(), &terms(mode), NONE);
        }
        scene.told();
        let verdict = scene.with(limits).fault(oom(), &terms(mode), NONE);
        assert_eq!(verdict, Verdict::default());
        let told = scene.told();
        assert_eq!(told[0].actions[0].action, "none");
        assert!(told[0].refused[0].contains("had 3"), "{:?}", told[0]);
    }
}

#[test]
fn how_a_function_fails_goes_on_over_restarts_until_it_is_gone() {
    let failing = Failing {
        failures: 3,
        until: Boottime(Boottime::now().0 + 20_000_000_000),
    };
    let fails = |failing| Fault {
        failing: Some(failing),
        ..fault(What::Crashed { how: String::new() })
    };
    let scene = Scene::new();
    let healer = scene.open();
    // However often it failed without a change, and whatever comes of it.
    for _ in 0..QUIET_LINES + 3 {
        let _ = healer.fault(oom(), &terms(Mode::Observe), NONE);
    }
    let _ = healer.fault(fails(failing), &terms(Mode::Observe), NONE);
    let lines = scene.lines().len();
    let _ = healer.fault(fails(failing), &terms(Mode::Observe), NONE);
    assert_eq!(scene.lines().len(), lines, "nothing new");
    drop(healer);
    // The second one knows it from the line, the third one from where the second one begins.
    for _ in 0..2 {
        let healer = scene.open();
        assert_eq!(healer.failing(&shop(), 2), Some(failing));
        assert_eq!(healer.failing(&shop(), 3), None, "another version");
        healer.state().append(Boottime(1), &[]).unwrap();
    }
    let healer = scene.open();
    healer.keep(|function, version| (function, version) == (&shop(), 2));
    assert_eq!(healer.failing(&shop(), 2), Some(failing));
    healer.removed(&shop());
    assert_eq!(healer.failing(&shop(), 2), None);
    assert_eq!(scene.open_anew(healer).failing(&shop(), 2), None);
}

#[test]
fn a_flood_of_faults_that_lead_to_nothing_is_counted_not_written() {
    let scene = Scene::new();
    let healer = scene.open();
    for _ in 0..QUIET_LINES + 30 {
        let _ = healer.fault(oom(), &terms(Mode::Observe), NONE);
    }
    let told = u32::try_from(scene.told().len()).unwrap();
    assert_eq!(told, QUIET_LINES);
    // The next one that is written says how many were not.
    let _ = healer.fault(oom(), &terms(Mode::Act), NONE);
    let last = scene.lines().pop().unwrap();
    let Entry::Decision(decided) = last.entry else {
        panic!("{last:?}");
    };
    assert_eq!(decided.unwritten, 30);
}

#[test]
fn what_does_not_come_up_failed_and_what_is_never_seen_timed_out() {
    let scene = Scene::new();
    let healer = scene.open();
    let _ = healer.fault(oom(), &terms(Mode::Act), NONE);
    // That the node has no sandbox for one does not count as an attempt.
    healer.starting(&shop(), 3);
    healer.no_sandbox(3);
    healer.starting(&shop(), 4);
    healer.not_started(4, "exit status 7");
    healer.replayed(RequestId::from_u128(7), Some("no time was left"));
    let told = scene.told();
    assert_eq!(told[0].actions[0].outcome, "failed");
    assert_eq!(told[0].actions[0].why, "exit status 7");
    assert!(told[0].actions[1].is_bad);

    let paused = PoolNow {
        pause: Duration::from_secs(10),
        ..NONE
    };
    let _ = healer.fault(oom(), &terms(Mode::Act), paused);
    healer.tick(Boottime::now());
    assert_eq!(scene.told(), []);
    let later = Boottime(Boottime::now().0 + 51_000_000_000);
    healer.tick(later);
    assert_eq!(scene.told()[0].actions[0].outcome, "timed_out");

    let _ = healer.fault(oom(), &terms(Mode::Act), NONE);
    healer.removed(&shop());
    assert_eq!(scene.told()[0].actions[0].outcome, "obsolete");
    assert_eq!(healer.memory_of(&shop(), 2, &terms(Mode::Act)), 128 * MIB);
}

#[test]
fn an_agent_that_ends_in_between_leaves_it_unknown_and_the_limit_raised() {
    let scene = Scene::new();
    let healer = scene.open();
    let _ = healer.fault(oom(), &terms(Mode::Act), NONE);
    drop(healer);
    let healer = scene.open();
    assert_eq!(healer.memory_of(&shop(), 2, &terms(Mode::Act)), 228 * MIB);
    let unknown = scene.outcomes();
    let unknown = unknown.iter().filter(|one| one.1 == Resolved::Unknown);
    assert_eq!(unknown.count(), 2);
}

#[test]
fn what_was_raised_ends_with_its_version_and_is_never_above_its_cap() {
    let scene = Scene::new();
    let healer = scene.open();
    let _ = healer.fault(oom(), &terms(Mode::Act), NONE);
    let capped = Terms {
        memory_max: 160 * MIB,
        ..terms(Mode::Act)
    };
    assert_eq!(healer.memory_of(&shop(), 2, &capped), 160 * MIB);
    healer.keep(|function, version| (function, version) == (&shop(), 2));
    assert_eq!(healer.memory_of(&shop(), 2, &terms(Mode::Act)), 228 * MIB);
    // Its function was removed while nobody wrote that down.
    healer.keep(|_, _| false);
    drop(healer);
    let healer = scene.open();
    assert_eq!(healer.memory_of(&shop(), 2, &terms(Mode::Act)), 128 * MIB);
}
