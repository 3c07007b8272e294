//! Random faults under load: what users are promised holds, whatever goes wrong in whichever order.
//!
//! `HEARTH_SEED` replays a sequence, `HEARTH_FAULTS` says how long it is.
//!
//! - No answer is wrong: each has the nonce of its request and the next number of its sandbox.
//! - No request of an idempotent function is lost: by its deadline it has the right answer, or a plain
//!   refusal (429 or 503), by which nothing was done. What its client does is in
//!   [`hearth_tests::load`]. Three may fail, and their client is told: one that goes wrong while the
//!   agent cannot write down what it would do; one that had an agent for less than half of its time,
//!   as that was killed and another one had to begin; and one whose process was stopped, which shows
//!   only when its time is over, so no more of these than processes that were stopped.
//! - A request of any other function is done once at most, and not at all where it was refused.
//! - What was done about a fault is in the audit before: each request that was done again, each limit
//!   that was raised, each sandbox that was replaced; and what came of it is, too. Nothing is done
//!   for a function that is only observed.
//! - Whatever was at fault, every function answers again.
//! - At the end the machine has no process, namespace, mount, cgroup or socket more than before, and
//!   the spawner no descriptor.

mod acted;
mod audit;
mod disk;
mod happened;
mod inject;
mod oracles;
mod plan;
mod process;
mod scene;

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hearth_tests::load::{self, Asked, Load, Pace};
use hearth_tests::machine;
use hearth_tests::node;
use hearth_tests::seed::Seed;
use hearth_tests::whole::Whole;

use disk::Disk;
use plan::Plan;
use scene::{Scene, WATCHED};

/// How many faults, where nobody says otherwise: each kind once at least.
const FAULTS: u32 = 60;
/// And where all takes longer.
const FAULTS_EMULATED: u32 = 16;
/// After so many each function is waited for.
const AT_ONCE: u32 = 10;

/// The functions that are asked all the time.
fn asked() -> Vec<Asked> {
    let asked = |name: &str, idempotent| Asked {
        name: name.to_owned(),
        idempotent,
    };
    vec![
        asked("again", true),
        asked("again-too", true),
        asked("once", false),
        asked(WATCHED, false),
    ]
}

const PACE: Pace = Pace {
    clients: 8,
    work: Duration::from_millis(60),
    pause: Duration::from_millis(40),
    deadline: Duration::from_secs(20),
};

#[test]
fn what_is_promised_holds_whatever_goes_wrong() -> Result<()> {
    let _hold = machine::shared()?;
    let chosen = Seed::chosen()?;
    let faults = match std::env::var("HEARTH_FAULTS") {
        Ok(text) => text.parse().context("HEARTH_FAULTS is no number")?,
        Err(_) if machine::is_emulated() => FAULTS_EMULATED,
        Err(_) => FAULTS,
    };
    // A word that also whoever sees the test fail can use.
    eprintln!("again: HEARTH_SEED={chosen} HEARTH_FAULTS={faults}");
    let replay = || format!("HEARTH_SEED={chosen} HEARTH_FAULTS={faults} brings it back");
    run(chosen, faults).with_context(replay)
}

fn run(seed: u64, faults: u32) -> Result<()> {
    let mut seed = Seed::new(seed);
    node::sweep("faults").and_then(|()| Disk::sweep())?;
    let whole = Whole::now("hearth-test-faults-")?;
    let asked = asked();
    let mut scene = Scene::new(&asked)?;
    let mut plan = Plan::new(Seed::new(seed.next()));
    let load = Load::start(&scene.api(), &asked, &PACE, &mut seed);
    let began = Instant::now();
    for nth in 0..faults {
        let (fault, pause) = plan.next();
        eprintln!("{:.1?}: fault {nth}, {fault:?}", began.elapsed());
        scene
            .inject(fault, &mut plan.seed)
            .with_context(|| format!("fault {nth}, {fault:?}"))?;
        thread::sleep(pause);
        if nth % AT_ONCE == AT_ONCE - 1 {
            scene
                .all_answer(&load, &asked)
                .with_context(|| format!("after fault {nth}, {fault:?}"))?;
        }
    }
    scene.all_answer(&load, &asked)?;
    let took = began.elapsed();
    let requests = load.stop()?;
    eprintln!("{faults} faults in {took:.1?}: {}", plan.told());
    eprintln!("{} requests: {}", requests.len(), load::ends(&requests));
    let (mut wrong, name) = scene.end(&requests, began)?;
    wrong.extend(oracles::machine(&name, &whole)?);
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
