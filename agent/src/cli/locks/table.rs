//! The report for people.

use super::super::figures::{count, duration};
use super::super::terminal::{Terminal, cut, fit, right};
use crate::observe::cgroup_lock::{CgroupLine, LockLine, LockReport, Summary, TaskLine, WaitLine};

/// Columns: a lock's word, an operation's, a count, a length of time.
const LOCK: usize = 17;
const OPERATION: usize = 11;
const COUNT: usize = 9;
const FIGURE: usize = 8;
/// From here on there is room for the medians.
const ROOMY: usize = 100;
/// Cgroups shown; `--json` has more.
const CGROUPS: usize = 10;

/// The report; every line ends with a newline and takes at most the terminal's width.
pub(super) fn table(report: &LockReport, terminal: &Terminal) -> String {
    let mut lines = vec![heading(report, terminal), String::new()];
    lines.extend(locks(report, terminal));
    lines.extend(cgroups(report, terminal));
    lines.extend(worst(report, terminal));
    let mut text = String::new();
    for line in lines {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn heading(report: &LockReport, terminal: &Terminal) -> String {
    let ways: std::collections::BTreeSet<&str> =
        report.strategies.values().map(String::as_str).collect();
    let ways: Vec<&str> = ways.into_iter().collect();
    let text = format!(
        "cgroup locks, {} seen by {}",
        duration(report.end.since(report.begin)),
        ways.join(", ")
    );
    terminal.bold(&cut(&terminal.show(&text), terminal.width))
}

fn locks(report: &LockReport, terminal: &Terminal) -> Vec<String> {
    if report.locks.is_empty() {
        return vec!["Nobody took or waited for any of them.".to_owned()];
    }
    let roomy = terminal.width >= ROOMY;
    let heads: &[&str] = if roomy {
        &["p50", "p99", "max"]
    } else {
        &["p99", "max"]
    };
    let counted = if roomy { COUNT } else { COUNT - 2 };
    let mut head = fit("LOCK", LOCK) + " " + &fit("OPERATION", OPERATION);
    head += &right("waits", counted + 1);
    head.extend(heads.iter().map(|name| right(name, FIGURE)));
    head += &right("holds", counted + 1);
    head += "   ";
    head.extend(heads.iter().map(|name| right(name, FIGURE)));
    let mut lines = vec![terminal.dim(&cut(&head, terminal.width))];
    for line in &report.locks {
        let mut row = fit(line.lock, LOCK) + " " + &fit(line.operation, OPERATION);
        row += &figures(line.wait, roomy, counted, terminal, "");
        row += &figures(line.hold, roomy, counted, terminal, bound(line));
        lines.push(cut(&row, terminal.width));
    }
    if report
        .locks
        .iter()
        .any(|line| !bound(line).trim().is_empty())
    {
        let note = "<= are upper bounds: from one acquisition of a contended lock to the next.";
        lines.extend(
            terminal
                .wrap(note, "")
                .iter()
                .map(|line| terminal.dim(line)),
        );
    }
    lines
}

/// What stands before the figures of holds.
const fn bound(line: &LockLine) -> &'static str {
    if line.hold_exact || line.hold.is_none() {
        "   "
    } else {
        " <="
    }
}

fn figures(
    summary: Option<Summary>,
    roomy: bool,
    counted: usize,
    terminal: &Terminal,
    mark: &str,
) -> String {
    let Some(summary) = summary else {
        let columns = if roomy { 3 } else { 2 };
        return right("-", counted + 1) + mark + &right("-", FIGURE).repeat(columns);
    };
    let times = match summary.count {
        // What would take the room of a figure beside it.
        many @ 1_000_000.. if !roomy => format!("{}k", many / 1_000),
        few => count(few),
    };
    let mut text = right(&times, counted + 1) + mark;
    let median = roomy.then_some(summary.p50_ns);
    for figure in median.into_iter().chain([summary.p99_ns, summary.max_ns]) {
        text += &right(&terminal.show(&duration(figure)), FIGURE);
    }
    text
}

fn cgroups(report: &LockReport, terminal: &Terminal) -> Vec<String> {
    if report.cgroups.is_empty() {
        return Vec::new();
    }
    let head = right("waits", COUNT)
        + &right("waited", FIGURE + 1)
        + &right("max", FIGURE + 1)
        + "  "
        + &fit("CHIEFLY FOR", LOCK)
        + "  CGROUP";
    let mut lines = vec![String::new(), terminal.dim(&cut(&head, terminal.width))];
    for line in report.cgroups.iter().take(CGROUPS) {
        let row = right(&count(line.waits), COUNT)
            + &right(&terminal.show(&duration(line.wait_ns)), FIGURE + 1)
            + &right(&terminal.show(&duration(line.wait_max_ns)), FIGURE + 1)
            + "  "
            + &fit(line.lock.unwrap_or("-"), LOCK)
            + "  "
            + &terminal.show(&named(line));
        lines.push(cut(&row, terminal.width));
    }
    if let Some(more @ 1..) = report.cgroups.len().checked_sub(CGROUPS) {
        lines.push(terminal.dim(&format!("and {more} more; --json has them")));
    }
    lines
}

fn named(line: &CgroupLine) -> String {
    match (&line.path, line.cgroups) {
        (Some(path), _) => path.clone(),
        (None, 1) => "(one without a name: gone, or not looked at yet)".to_owned(),
        (None, many) => format!("({many} without a name: gone, or beyond the bound)"),
    }
}

fn worst(report: &LockReport, terminal: &Terminal) -> Vec<String> {
    if report.worst.is_empty() {
        return Vec::new();
    }
    let head = format!("THE WORST OF {} LONG WAITS", count(report.recorded));
    let mut lines = vec![String::new(), terminal.dim(&head)];
    for wait in &report.worst {
        lines.extend(wait_rows(wait, terminal));
    }
    if let Some(why) = &report.no_stacks {
        let note = format!("Where they stood is not known: {why}.");
        lines.extend(
            terminal
                .wrap(&note, "")
                .iter()
                .map(|line| terminal.dim(line)),
        );
    }
    if report.lost > 0 {
        let note = format!("{} records were lost.", count(report.lost));
        lines.extend(terminal.wrap(&note, ""));
    }
    lines
}

fn wait_rows(wait: &WaitLine, terminal: &Terminal) -> Vec<String> {
    let indent = " ".repeat(FIGURE + 2);
    let text = format!(
        "{}  {} waited for {} ({}){}",
        right(&duration(wait.wait_ns), FIGURE),
        label(&wait.waiter),
        wait.lock,
        wait.operation,
        place(&wait.waiter),
    );
    let mut rows = vec![cut(&terminal.show(&text), terminal.width)];
    if let Some(holder) = &wait.holder {
        let held = holder
            .held_ns
            .map(|held| format!(", for {} then", duration(held)));
        let operation = holder.operation.map(|word| format!(" ({word})"));
        let text = format!(
            "{indent}had by {}{}{}{}",
            label(&holder.task),
            operation.unwrap_or_default(),
            held.unwrap_or_default(),
            place(&holder.task),
        );
        rows.push(cut(&terminal.show(&text), terminal.width));
    }
    if let Some(stack) = &wait.stack {
        let text = stack.join(" < ");
        let wrapped = terminal.wrap(&text, &indent);
        rows.extend(wrapped.iter().map(|line| terminal.dim(line)));
    }
    rows
}

/// `runc[1234]`, and of a thread that is not its process's first `runc[1234/1240]`.
fn label(task: &TaskLine) -> String {
    let TaskLine { comm, pid, tid, .. } = task;
    if pid == tid {
        format!("{comm}[{pid}]")
    } else {
        format!("{comm}[{pid}/{tid}]")
    }
}

fn place(task: &TaskLine) -> String {
    task.cgroup
        .as_ref()
        .map_or_else(String::new, |path| format!(" in {path}"))
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::super::super::samples::golden;
    use super::super::super::terminal::columns;
    use super::*;
    use crate::observe::cgroup_lock::HolderLine;
    use crate::time::{Boottime, Nanos};

    fn summary(count: u64, p50: u64, p99: u64, max: u64) -> Summary {
        Summary {
            count,
            sum_ns: Nanos(count * p50),
            p50_ns: Nanos(p50),
            p99_ns: Nanos(p99),
            max_ns: Nanos(max),
        }
    }

    fn task(pid: u32, comm: &str, cgroup: Option<&str>) -> TaskLine {
        TaskLine {
            pid,
            tid: pid,
            comm: comm.to_owned(),
            cgroup: cgroup.map(str::to_owned),
        }
    }

    pub(in super::super) fn report() -> LockReport {
        let line = |lock, operation, wait, hold, hold_exact| LockLine {
            lock,
            operation,
            wait,
            hold,
            hold_exact,
        };
        LockReport {
            begin: Boottime(1_000_000_000),
            end: Boottime(11_000_000_000),
            strategies: BTreeMap::from([
                ("lock:wait".to_owned(), "tp_btf".to_owned()),
                ("lock:rcu".to_owned(), "tp_btf".to_owned()),
            ]),
            locks: vec![
                line(
                    "cgroup_mutex",
                    "mkdir",
                    Some(summary(12_345, 98_304, 6_291_456, 17_123_456)),
                    Some(summary(12_400, 24_576, 98_304, 1_234_567)),
                    false,
                ),
                line(
                    "threadgroup_rwsem",
                    "css_release",
                    Some(summary(1_234_567, 1_536, 327_000, 999_000_000)),
                    None,
                    false,
                ),
                line(
                    "kernfs",
                    "lookup",
                    None,
                    Some(summary(7, 512, 900, 900)),
                    true,
                ),
            ],
            cgroups: vec![
                CgroupLine {
                    path: Some("/kubepods/besteffort/pod1/a\x1b[2J".to_owned()),
                    cgroups: 1,
                    waits: 12_000,
                    wait_ns: Nanos(1_200_000_000),
                    wait_max_ns: Nanos(17_123_456),
                    lock: Some("cgroup_mutex"),
                },
                CgroupLine {
                    path: None,
                    cgroups: 31,
                    waits: 345,
                    wait_ns: Nanos(33_000_000),
                    wait_max_ns: Nanos(9_000_000),
                    lock: Some("threadgroup_rwsem"),
                },
            ],
            worst: vec![
                WaitLine {
                    lock: "cgroup_mutex",
                    operation: "mkdir",
                    begin: Boottime(5_000_000_000),
                    wait_ns: Nanos(17_123_456),
                    waiter: task(1235, "runc", Some("/system.slice/containerd.service")),
                    holder: Some(HolderLine {
                        task: TaskLine {
                            tid: 1240,
                            ..task(1234, "runc:[1:CHILD]", None)
                        },
                        operation: Some("attach"),
                        held_ns: Some(Nanos(3_100_000)),
                    }),
                    stack: Some(
                        [
                            "__mutex_lock",
                            "cgroup_kn_lock_live",
                            "cgroup_mkdir",
                            "kernfs_iop_mkdir",
                        ]
                        .map(str::to_owned)
                        .into(),
                    ),
                },
                WaitLine {
                    lock: "rcu",
                    operation: "attach",
                    begin: Boottime(5_000_000_000),
                    wait_ns: Nanos(9_000_000),
                    waiter: task(77, "systemd", Some("/init.scope")),
                    holder: None,
                    stack: None,
                },
            ],
            recorded: 482,
            no_stacks: None,
            lost: 0,
        }
    }

    #[test]
    fn a_report_is_drawn_wide_and_narrow() {
        golden("locks-100.txt", &table(&report(), &Terminal::PLAIN));
        let old = Terminal {
            width: 80,
            unicode: false,
            colour: false,
        };
        golden("locks-80-ascii.txt", &table(&report(), &old));
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_and_no_name_commands_it() {
        for width in [60, 80, 100, 240] {
            let terminal = Terminal {
                width,
                ..Terminal::PLAIN
            };
            for line in table(&report(), &terminal).lines() {
                assert!(columns(line) <= width, "{line}");
                assert!(!line.contains('\x1b'), "{line}");
            }
        }
    }

    #[test]
    fn a_quiet_node_is_told_as_one() {
        let quiet = LockReport {
            locks: Vec::new(),
            cgroups: Vec::new(),
            worst: Vec::new(),
            ..report()
        };
        let text = table(&quiet, &Terminal::PLAIN);
        assert!(text.contains("Nobody took"), "{text}");
    }
}
