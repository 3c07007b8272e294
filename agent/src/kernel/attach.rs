//! Walks the hook table on this kernel: loads and attaches the best strategy of each kind, and
//! keeps why the better ones were refused.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use std::time::Instant;

use aya::{
    Btf, Ebpf,
    programs::{
        Program as Loaded, ProgramError, fentry::FEntryLink, fexit::FExitLink, kprobe::KProbeLink,
        raw_trace_point::RawTracePointLink, tp_btf::BtfTracePointLink,
    },
};
use serde::Serialize;

use super::{
    btf,
    table::{Hook, Point, Program, Set, Signal, Strategy, hooks},
};

/// What is asked of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The daemon: always-on strategies; those of the watch set come and go on top.
    Daemon,
    /// `hearth trace`: the watch set is attached for the whole start.
    Trace,
}

/// A strategy that was tried and cannot be had on this kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// Its name.
    pub strategy: &'static str,
    /// Why, for people.
    pub reason: String,
}

/// What became of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HookReport {
    /// What it belongs to.
    pub signal: Signal,
    /// Kind.
    pub kind: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// The strategy that stamps it all the time; `None` if there is none.
    pub strategy: Option<&'static str>,
    /// The better one that stamps it while something is watched, if there is one.
    pub while_watching: Option<&'static str>,
    /// Error bound in ns of the best one attached; `None` where it depends on the program.
    pub error_ns: Option<u64>,
    /// What is lost or gained.
    pub note: &'static str,
    /// Better strategies, and why they were refused.
    pub refused: Vec<Refusal>,
}

/// What the walk left behind.
#[derive(Debug, Default)]
pub struct Attached {
    /// Links of the always-on strategies.
    pub links: Vec<Link>,
    /// One line a kind, in the table's order.
    pub report: Vec<HookReport>,
    /// Programs of the watch set, loaded and not attached.
    pub watch_programs: Vec<Program>,
    /// System calls to look at, and what for.
    pub syscalls: BTreeMap<u32, u32>,
}

/// Which kinds are wanted: every one of the signals, but for the ready rules that nobody uses.
#[must_use]
pub fn wanted(hook: &Hook, signals: &BTreeSet<Signal>, ready: &[&str]) -> bool {
    if !signals.contains(&hook.signal) {
        return false;
    }
    match hook.kind.strip_prefix("ready:") {
        Some(rule) => ready.contains(&rule),
        None => true,
    }
}

/// Walks the table for `signals`. `ready` names the kinds of ready rules in use,
/// `without` the programs that are not to be had whatever the kernel has.
pub fn attach(
    ebpf: &mut Ebpf,
    types: &btf::Btf,
    aya_types: &Btf,
    reach: Reach,
    signals: &BTreeSet<Signal>,
    ready: &[&str],
    without: &[&'static str],
) -> Attached {
    let mut done = Attached::default();
    let left_out = |&name: &&'static str| (name, Err("left out, as asked for".to_owned()));
    let mut loaded: HashMap<&'static str, Result<(), String>> =
        without.iter().map(left_out).collect();
    for hook in hooks().filter(|hook| wanted(hook, signals, ready)) {
        let report = attach_hook(ebpf, types, aya_types, reach, hook, &mut loaded, &mut done);
        done.report.push(report);
    }
    done
}

fn attach_hook(
    ebpf: &mut Ebpf,
    types: &btf::Btf,
    aya_types: &Btf,
    reach: Reach,
    hook: &Hook,
    loaded: &mut HashMap<&'static str, Result<(), String>>,
    done: &mut Attached,
) -> HookReport {
    let mut report = HookReport {
        signal: hook.signal,
        kind: hook.kind,
        purpose: hook.purpose,
        strategy: None,
        while_watching: None,
        error_ns: None,
        note: "",
        refused: Vec::new(),
    };
    for strategy in hook.strategies {
        if strategy.set == Set::Watch && report.while_watching.is_some() {
            continue;
        }
        match load_strategy(ebpf, types, aya_types, strategy, loaded) {
            Err(reason) => report.refused.push(Refusal {
                strategy: strategy.name,
                reason,
            }),
            Ok(programs) => {
                if strategy.set == Set::Watch {
                    describe(&mut report, strategy);
                    report.while_watching = Some(strategy.name);
                    for &(number, what_for) in strategy.syscalls {
                        *done.syscalls.entry(number).or_default() |= what_for;
                    }
                    for program in programs {
                        if !done.watch_programs.contains(&program) {
                            done.watch_programs.push(program);
                        }
                    }
                    if reach == Reach::Trace {
                        break;
                    }
                } else {
                    // All or none: the links of a half are dropped, and so detached.
                    let attached: Result<Vec<Link>, String> = programs
                        .iter()
                        .map(|program| attach_program(ebpf, program))
                        .collect();
                    match attached {
                        Ok(links) => {
                            describe(&mut report, strategy);
                            done.links.extend(links);
                            report.strategy = Some(strategy.name);
                            break;
                        }
                        Err(reason) => {
                            report.refused.push(Refusal {
                                strategy: strategy.name,
                                reason,
                            });
                        }
                    }
                }
            }
        }
    }
    report
}

/// The best strategy that is to be had says how exact the kind is.
fn describe(report: &mut HookReport, strategy: &Strategy) {
    if report.strategy.is_none() && report.while_watching.is_none() {
        report.error_ns = strategy.error_ns;
        report.note = strategy.note;
    }
}

/// Loads what a strategy needs; the programs that this kernel has.
fn load_strategy(
    ebpf: &mut Ebpf,
    types: &btf::Btf,
    aya_types: &Btf,
    strategy: &Strategy,
    loaded: &mut HashMap<&'static str, Result<(), String>>,
) -> Result<Vec<Program>, String> {
    let mut programs = Vec::with_capacity(strategy.programs.len());
    for program in strategy.programs {
        let result = loaded
            .entry(program.name)
            .or_insert_with(|| load_program(ebpf, types, aya_types, program));
        match result {
            Ok(()) => programs.push(*program),
            Err(_) if program.optional => {}
            Err(reason) => return Err(reason.clone()),
        }
    }
    Ok(programs)
}

pub(super) fn load_program(
    ebpf: &mut Ebpf,
    types: &btf::Btf,
    aya_types: &Btf,
    program: &Program,
) -> Result<(), String> {
    match program.point {
        Point::TpBtf(name) if !types.has_tracepoint(name) => {
            return Err(format!("this kernel has no tracepoint {name}"));
        }
        Point::Fentry(name) | Point::Fexit(name) if !types.has_function(name) => {
            return Err(format!(
                "this kernel describes no function {name} (inlined, or not built)"
            ));
        }
        _ => {}
    }
    let loaded = ebpf
        .program_mut(program.name)
        .ok_or_else(|| format!("the kernel object has no program {}", program.name))?;
    let began = Instant::now();
    let result = match (loaded, program.point) {
        (Loaded::BtfTracePoint(loaded), Point::TpBtf(name)) => loaded.load(name, aya_types),
        (Loaded::RawTracePoint(loaded), Point::RawTp(_)) => loaded.load(),
        (Loaded::FEntry(loaded), Point::Fentry(name)) => loaded.load(name, aya_types),
        (Loaded::FExit(loaded), Point::Fexit(name)) => loaded.load(name, aya_types),
        (Loaded::KProbe(loaded), Point::Kprobe(_) | Point::Kretprobe(_)) => loaded.load(),
        (Loaded::UProbe(loaded), Point::Uprobe) => loaded.load(),
        _ => {
            return Err(format!(
                "program {} is of another type in the object",
                program.name
            ));
        }
    };
    if let Some(info) = ebpf
        .program(program.name)
        .and_then(|loaded| loaded.info().ok())
    {
        tracing::debug!(
            program = program.name,
            verified = info.verified_instruction_count(),
            took_ms = began.elapsed().as_millis(),
            "loaded"
        );
    }
    result.map_err(|error| reason_of(&error, program))
}

/// An attached program; dropping it detaches.
#[derive(Debug)]
pub enum Link {
    /// Of a typed tracepoint.
    TpBtf(BtfTracePointLink),
    /// Of a raw tracepoint.
    RawTp(RawTracePointLink),
    /// Of a function's entry.
    Fentry(FEntryLink),
    /// Of a function's return.
    Fexit(FExitLink),
    /// Of a function's entry or return, by kprobe.
    Kprobe(KProbeLink),
    /// Uprobes are attached file by file, later.
    Later,
}

/// Attaches one loaded program.
pub fn attach_program(ebpf: &mut Ebpf, program: &Program) -> Result<Link, String> {
    let loaded = ebpf
        .program_mut(program.name)
        .ok_or_else(|| format!("the kernel object has no program {}", program.name))?;
    let link = match (loaded, program.point) {
        (Loaded::BtfTracePoint(loaded), _) => loaded
            .attach()
            .and_then(|id| loaded.take_link(id))
            .map(Link::TpBtf),
        (Loaded::RawTracePoint(loaded), Point::RawTp(name)) => loaded
            .attach(name)
            .and_then(|id| loaded.take_link(id))
            .map(Link::RawTp),
        (Loaded::FEntry(loaded), _) => loaded
            .attach()
            .and_then(|id| loaded.take_link(id))
            .map(Link::Fentry),
        (Loaded::FExit(loaded), _) => loaded
            .attach()
            .and_then(|id| loaded.take_link(id))
            .map(Link::Fexit),
        (Loaded::KProbe(loaded), Point::Kprobe(name) | Point::Kretprobe(name)) => loaded
            .attach(name, 0)
            .and_then(|id| loaded.take_link(id))
            .map(Link::Kprobe),
        (Loaded::UProbe(_), _) => Ok(Link::Later),
        _ => {
            return Err(format!(
                "program {} is of another type in the object",
                program.name
            ));
        }
    };
    link.map_err(|error| reason_of(&error, program))
}

/// What a refusal means, where the error alone would leave a person guessing.
fn reason_of(error: &ProgramError, program: &Program) -> String {
    let errno = match error {
        ProgramError::LoadError { io_error, .. } => io_error.raw_os_error(),
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    };
    let is_trampoline = matches!(program.point, Point::Fentry(_) | Point::Fexit(_));
    match errno {
        Some(libc::EPERM) if is_trampoline && super::capability::locked_down() => {
            "EPERM: the kernel is locked down (lockdown mode refuses fentry)".to_owned()
        }
        // The capabilities were looked at before anything was loaded.
        Some(libc::EPERM) if is_trampoline => {
            "EPERM though the capabilities are there: lockdown mode does that".to_owned()
        }
        Some(libc::EPERM) => "EPERM: CAP_BPF and CAP_PERFMON are missing".to_owned(),
        _ => match error {
            ProgramError::LoadError { verifier_log, .. } => {
                let log = verifier_log.to_string();
                refused_for(&log).map_or_else(
                    || chain(error),
                    |why| format!("the verifier does not accept it: {why}"),
                )
            }
            _ => chain(error),
        },
    }
}

/// The line of a verifier's log that says why: the last one, but for its statistics.
fn refused_for(log: &str) -> Option<&str> {
    const STATISTICS: [&str; 3] = ["processed ", "stack depth ", "verification time "];
    let says_why = |line: &&str| !STATISTICS.iter().any(|begin| line.starts_with(begin));
    let mut lines = log.lines().rev().map(str::trim);
    lines.find(|line| !line.is_empty() && says_why(line))
}

/// What an error says can be megabytes; its end says what was wrong.
const LONGEST: usize = 600;

/// An error with its causes, on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    let mut line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.len() > LONGEST {
        let mut at = line.len() - LONGEST;
        while !line.is_char_boundary(at) {
            at += 1;
        }
        line = format!("...{}", &line[at..]);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_verifiers_log_the_line_is_told_that_says_why() {
        let log = "0: R1=ctx() R10=fp0\n; args.rs:52\n1: (79) r6 = *(u64 *)(r1 +8)\n\
                   func 'sched_process_exit' doesn't have 2-th argument\n\
                   verification time 49 usec\nstack depth 88+0+0\n\
                   processed 2 insns (limit 1000000) max_states_per_insn 0\n\n";
        let why = "func 'sched_process_exit' doesn't have 2-th argument";
        assert_eq!(refused_for(log), Some(why));
        assert_eq!(refused_for("\n"), None);
    }
}
