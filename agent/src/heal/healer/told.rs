//! A decision in the words of those who are told of it.

use crate::heal::audit::{Decided, Resolved};
use crate::heal::decide::Decision;
use crate::heal::fault::{Fault, Mode};
use crate::observe::healing::{HealAction, Healing, LostSandbox};
use crate::time::Boottime;

/// What comes of a decision that is not acted upon.
pub(super) fn nothing_done(decided: &Decided) -> Resolved {
    match decided.mode {
        _ if decided.decision.actions.is_empty() => Resolved::Nothing,
        Mode::Observe => Resolved::Would,
        Mode::DryRun | Mode::Act => Resolved::DryRun,
    }
}

/// All that was decided came to the same.
pub(super) fn resolve_all(healing: &mut Healing, outcome: &'static str, is_bad: bool, why: &str) {
    for action in &mut healing.actions {
        action.outcome = outcome;
        action.is_bad = is_bad;
        why.clone_into(&mut action.why);
    }
}

pub(super) fn healing(fault: &Fault, mode: Mode, decision: &Decision) -> Healing {
    let actions = decision.actions.iter().map(|action| HealAction {
        action: action.word().to_owned(),
        ..HealAction::default()
    });
    let mut actions: Vec<HealAction> = actions.collect();
    if actions.is_empty() {
        actions.push(HealAction {
            action: "none".to_owned(),
            ..HealAction::default()
        });
    }
    let refused = decision.refused.iter();
    Healing {
        function: fault.function.to_string(),
        version: fault.version,
        mode: mode.word(),
        fault: fault.what.word(),
        at: fault.at,
        ended: Boottime::now(),
        reason: decision.reason.clone(),
        refused: refused
            .map(|refused| format!("{}: {}", refused.action, refused.why))
            .collect(),
        actions,
        lost: fault.lost.as_ref().map(|lost| LostSandbox {
            sandbox: lost.sandbox.to_string(),
            cgroup: lost.cgroup.clone(),
            claimed: lost.claimed,
        }),
        request: fault.request.map(|request| request.id.to_string()),
        ..Healing::default()
    }
}

/// For whoever reads the agent's own log.
pub(super) fn say(fault: &Fault, mode: Mode, decision: &Decision) {
    let function = &fault.function;
    let what = match mode {
        _ if decision.actions.is_empty() => "nothing is done".to_owned(),
        Mode::Observe => format!("heal = \"act\" would {}", decision.in_words()),
        Mode::DryRun => format!("but for the dry run: {}", decision.in_words()),
        Mode::Act => decision.in_words(),
    };
    let reason = &decision.reason;
    let refused = decision.refused.iter();
    let refused: Vec<String> = refused
        .map(|refused| format!("no {}: {}", refused.action, refused.why))
        .collect();
    let refused = refused.join("; ");
    tracing::warn!("function {function}: {reason}: {what}; {refused}");
}

/// As much of it as a line should have.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(500).collect()
}
