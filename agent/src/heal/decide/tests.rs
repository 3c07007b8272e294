use hearth_runtime::id::RequestId;
use proptest::prelude::*;

use super::*;
use crate::time::Boottime;

const MIB: u64 = 1 << 20;

fn fault(what: What) -> Fault {
    Fault {
        what,
        function: "shop".parse().expect("a name"),
        version: 1,
        instance: 3,
        lost: None,
        request: Some(Interrupted {
            id: RequestId::from_u128(7),
            left_ms: 20_000,
            replays: 0,
        }),
        failing: None,
        at: Boottime(1),
    }
}

fn oom(peak: Option<u64>) -> Fault {
    oom_at(128 * MIB, peak)
}

fn oom_at(limit_bytes: u64, peak_bytes: Option<u64>) -> Fault {
    fault(What::OomKilled {
        limit_bytes,
        peak_bytes,
    })
}

fn terms() -> Terms {
    Terms {
        mode: Mode::Act,
        memory: 128 * MIB,
        memory_max: 4096 * MIB,
        idempotent: true,
        start: Duration::from_secs(10),
    }
}

fn known() -> Known {
    Known {
        limit: 128 * MIB,
        pool: PoolNow::default(),
        of_function: Ok(()),
        of_node: Ok(()),
        node: Some(NodeMemory {
            available: 8192 * MIB,
            total: 16_384 * MIB,
        }),
    }
}

fn left_alone(seconds: u64) -> PoolNow {
    PoolNow {
        pause: Duration::from_secs(seconds),
        ..PoolNow::default()
    }
}

fn crashed() -> Fault {
    fault(What::Crashed {
        how: "exit status 7".to_owned(),
    })
}

fn why(decision: &Decision, action: &str) -> String {
    let refused = decision.refused.iter().find(|one| one.action == action);
    refused.map(|one| one.why.clone()).unwrap_or_default()
}

#[test]
fn the_raised_limit_is_a_hundred_mib_or_a_fifth_above_what_was_used() {
    for (limit, peak, raised) in [
        (128, Some(128), 228),
        (128, Some(120), 220),
        (128, None, 228),
        (1000, Some(1000), 1200),
        (500, Some(500), 600),
    ] {
        let known = Known {
            limit: limit * MIB,
            ..known()
        };
        let decision = decide(
            &oom_at(limit * MIB, peak.map(|peak| peak * MIB)),
            &terms(),
            &known,
        );
        assert_eq!(decision.raised(), Some(raised * MIB), "{limit} {peak:?}");
        assert_eq!(decision.actions.len(), 2, "{decision:?}");
    }
    // What is written to the cgroup is read back from it.
    let odd = decide(&oom(Some(128 * MIB - 1)), &terms(), &known());
    assert_eq!(odd.raised().map(|bytes| bytes % PAGE), Some(0));
}

#[test]
fn it_is_capped_by_the_definition_and_by_what_the_node_has_left() {
    let by_definition = Terms {
        memory_max: 160 * MIB,
        ..terms()
    };
    let decision = decide(&oom(None), &by_definition, &known());
    assert_eq!(decision.raised(), Some(160 * MIB));
    assert!(
        decision.reason.contains("160 MiB and not 228 MiB"),
        "{}",
        decision.reason
    );
    let at_the_cap = Known {
        limit: 160 * MIB,
        ..known()
    };
    let decision = decide(&oom_at(160 * MIB, None), &by_definition, &at_the_cap);
    assert_eq!(decision.raised(), None);
    assert!(why(&decision, "raise").contains("memory_max"));
    // It is brought back with what it had.
    assert!(decision.actions[0].replaces(), "{decision:?}");

    let node = |available| Known {
        node: Some(NodeMemory {
            available: available * MIB,
            total: 1000 * MIB,
        }),
        ..known()
    };
    let decision = decide(&oom(None), &terms(), &node(264));
    assert_eq!(decision.raised(), Some(200 * MIB), "64 MiB are left");
    let decision = decide(&oom(None), &terms(), &node(192));
    assert_eq!(decision.raised(), None);
    assert!(why(&decision, "raise").contains("the node has 192 MiB left"));
    let unknown = Known {
        node: None,
        ..known()
    };
    let decision = decide(&oom(None), &terms(), &unknown);
    assert!(why(&decision, "raise").contains("not known"));
}

#[test]
fn those_that_are_killed_together_raise_it_once() {
    let raised = Known {
        limit: 228 * MIB,
        ..known()
    };
    for peak in [None, Some(128 * MIB)] {
        let decision = decide(&oom(peak), &terms(), &raised);
        assert_eq!(decision.raised(), None);
        assert!(decision.actions[0].replaces(), "{decision:?}");
        let why = why(&decision, "raise");
        assert!(why.contains("have 228 MiB already"), "{why}");
    }
}

#[test]
fn there_has_to_be_enough_for_all_instances_and_in_the_memory_of_functions() {
    let with = |available, instances, budget: Option<u64>| Known {
        node: Some(NodeMemory {
            available: available * MIB,
            total: 1000 * MIB,
        }),
        pool: PoolNow {
            instances,
            budget: budget.map(|budget| budget * MIB),
            ..PoolNow::default()
        },
        ..known()
    };
    // 64 MiB are kept free; three beside it have 128 MiB each, and grow, too.
    let decision = decide(&oom(None), &terms(), &with(64 + 336, 4, None));
    assert_eq!(decision.raised(), Some(180 * MIB));
    let decision = decide(&oom(None), &terms(), &with(64 + 128, 4, None));
    assert_eq!(decision.raised(), None);
    let told = why(&decision, "raise");
    assert!(told.contains("4 instances would grow"), "{told}");
    let decision = decide(&oom(None), &terms(), &with(900, 2, Some(300)));
    assert_eq!(decision.raised(), Some(150 * MIB));
    let decision = decide(&oom(None), &terms(), &with(900, 1, Some(100)));
    let told = why(&decision, "raise");
    assert!(told.contains("may have 100 MiB together"), "{told}");
}

#[test]
fn where_the_node_ran_out_the_limit_stays() {
    let decision = decide(&oom(Some(20 * MIB)), &terms(), &known());
    assert_eq!(decision.raised(), None);
    let why = why(&decision, "raise");
    assert!(why.contains("20 MiB of 128 MiB"), "{why}");
}

#[test]
fn a_request_is_done_again_only_where_that_is_allowed_and_of_use() {
    let again = |fault: &Fault, terms: &Terms, known: &Known| {
        let decision = decide(fault, terms, known);
        let does = decision.actions.contains(&Action::Replay { replay: 1 });
        (does, why(&decision, "replay"))
    };
    assert!(again(&crashed(), &terms(), &known()).0);
    let once = Terms {
        idempotent: false,
        ..terms()
    };
    let (does, why) = again(&crashed(), &once, &known());
    assert!(!does && why.contains("idempotent"), "{why}");
    let mut late = crashed();
    late.request = late.request.map(|request| Interrupted {
        left_ms: 0,
        ..request
    });
    let (does, why) = again(&late, &terms(), &known());
    assert!(!does && why.contains("over"), "{why}");
    let left_alone = Known {
        pool: left_alone(20),
        ..known()
    };
    let (does, why) = again(&crashed(), &terms(), &left_alone);
    assert!(!does && why.contains("before the function"), "{why}");
    let hung = fault(What::Hung { after_ms: 1000 });
    assert!(!again(&hung, &terms(), &known()).0);
    let mut often = crashed();
    often.request = often.request.map(|request| Interrupted {
        replays: REPLAYS,
        ..request
    });
    let (does, why) = again(&often, &terms(), &known());
    assert!(!does && why.contains("2 times"), "{why}");
}

#[test]
fn a_budget_that_is_used_up_leaves_nothing_to_do() {
    let spent = Err(Spent {
        actions: 30,
        within: Duration::from_mins(10),
    });
    let of_function = Known {
        of_function: spent,
        ..known()
    };
    let of_node = Known {
        of_node: spent,
        ..known()
    };
    for (known, whose) in [(of_function, "the function"), (of_node, "the node")] {
        let decision = decide(&oom(None), &terms(), &known);
        assert!(decision.actions.is_empty());
        let why = why(&decision, "replace");
        assert!(why.contains(whose) && why.contains("30"), "{why}");
    }
}

#[test]
fn the_pause_is_kept_and_said() {
    let known = Known {
        pool: left_alone(40),
        ..known()
    };
    let decision = decide(&crashed(), &terms(), &known);
    assert_eq!(decision.actions[0], Action::Replace { after_ms: 40_000 });
    assert!(decision.reason.contains("for 40 s"), "{}", decision.reason);
}

proptest! {
    #[test]
    fn no_limit_is_ever_lowered_or_above_a_cap(
        limit in 1..2_u64 << 40, peak in proptest::option::of(0..2_u64 << 40),
        most in 1..2_u64 << 40, available in 0..2_u64 << 40, total in 0..2_u64 << 40,
        instances in 0..50_u32,
    ) {
        let terms = Terms { memory_max: most, ..terms() };
        let node = Some(NodeMemory { available, total });
        let decision = {
            let pool = PoolNow { instances, ..PoolNow::default() };
            decide(&oom_at(limit, peak), &terms, &Known { limit, pool, node, ..known() })
        };
        if let Some(raised) = decision.raised() {
            prop_assert!(raised > limit && raised <= most);
            let more = raised + u64::from(instances.max(1) - 1) * (raised - limit);
            prop_assert!(more <= available.saturating_sub(MARGIN_BYTES));
        } else {
            prop_assert!(!why(&decision, "raise").is_empty());
        }
    }
}
