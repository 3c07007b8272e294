//! Where the threads of a victim were.

use super::page::{HEADING, Page};
use super::view::{Stack, View};
use crate::cli::terminal::{Terminal, wrap};
use crate::observe::oom::model::{Known, Thread};
use crate::observe::oom::symbols::{KernelName, Named};

/// Groups of threads that are shown without `--all`.
const GROUPS: usize = 8;

pub(super) fn threads(view: &View<'_>, all: bool, page: &mut Page<'_>) {
    // The one that asked for what was not there comes first.
    let is_asker = |thread: &Thread| thread.tid == view.capture.asker.tid;
    let mut both: Vec<_> = view.capture.threads.iter().zip(&view.stacks).collect();
    both.sort_by_key(|(thread, _)| !is_asker(thread));
    let mut groups: Vec<Vec<(&Thread, &Stack)>> = Vec::new();
    for (thread, stack) in both {
        let same = groups.iter_mut().find(|group| {
            !all && group[0].1.user == stack.user && group[0].1.kernel == stack.kernel
        });
        match same {
            Some(group) => group.push((thread, stack)),
            None => groups.push(vec![(thread, stack)]),
        }
    }
    let shown = if all { groups.len() } else { GROUPS };
    for group in groups.iter().take(shown) {
        page.line("");
        let (thread, stack) = group[0];
        let others = match group.len() {
            1 => String::new(),
            n => format!(", and {} more at the same place", n - 1),
        };
        let name = page.terminal.show(&thread.comm);
        let asking = if is_asker(thread) {
            ", which asked for the memory"
        } else {
            ""
        };
        let title = format!("thread {} {name}{asking}{others}", thread.tid);
        let title = page.terminal.bold(&title);
        page.line(&title);
        if !thread.own_context {
            page.line("  as of the kill: it was not seen at its exit");
        }
        match &stack.user {
            Known::Value(frames) => user_frames(frames, stack.leaf.as_ref(), page),
            Known::Absent(absent) => page.line(&format!("  no user stack: {absent}")),
        }
        if let Known::Value(frames) = &stack.kernel {
            kernel_frames("  in the kernel", frames, page);
        }
        if all {
            registers(thread, page);
        }
    }
    if groups.len() > shown {
        let more = groups.len() - shown;
        page.line("");
        page.line(&format!("threads at {more} other places: --all"));
    }
}

fn user_frames(frames: &[Named], leaf: Option<&Named>, page: &mut Page<'_>) {
    for (index, frame) in frames.iter().enumerate() {
        for inlined in &frame.inlined {
            let name = page.terminal.show(inlined);
            page.line(&format!("      {name} (inlined)"));
        }
        let place = place(frame, page.terminal);
        page.line(&format!("  #{index:<3}{place}"));
        // Where the walk by frame pointers would have missed the caller of a leaf function.
        let missed =
            leaf.filter(|leaf| index == 0 && frames.get(1).is_none_or(|next| next.ip != leaf.ip));
        if let Some(leaf) = missed {
            let place = self::place(leaf, page.terminal);
            page.line(&format!(
                "    ? {place}  (by the word at the stack pointer)"
            ));
        }
    }
    if frames.is_empty() {
        page.line("  an empty user stack");
    }
}

/// `function+offset  line  file`, or what there is of it.
fn place(frame: &Named, terminal: &Terminal) -> String {
    let file = frame
        .file
        .as_deref()
        .map(|file| terminal.show(file))
        .unwrap_or_default();
    match &frame.function {
        Known::Value(function) => {
            let offset = frame
                .function_offset
                .map_or(String::new(), |at| format!("+{at:#x}"));
            let line = frame.line.as_deref().map(|line| terminal.show(line));
            let at = line.map_or_else(|| terminal.dim(&file), |line| terminal.dim(&line));
            format!("{}{offset}  {at}", terminal.show(function))
        }
        Known::Absent(absent) => {
            let at = match (frame.file_offset, file.as_str()) {
                (Some(offset), file) if !file.is_empty() => format!("{file}+{offset}"),
                _ => frame.ip.to_string(),
            };
            format!("{at}  {}", terminal.dim(&absent.to_string()))
        }
    }
}

pub(super) fn kernel_frames(heading: &str, frames: &[KernelName], page: &mut Page<'_>) {
    // Down to what the probe itself ran in, which nobody asked for.
    let ours = |frame: &KernelName| {
        let name = frame.function.value().map_or("", String::as_str);
        let starts = [
            "bpf_prog_",
            "bpf_trace_run",
            "__traceiter_",
            "__bpf_trace_",
            "bpf_trampoline_",
        ];
        starts.iter().any(|start| name.starts_with(start))
    };
    let begin = frames.iter().rposition(ours).map_or(0, |index| index + 1);
    let names = frames[begin..].iter().map(|frame| match &frame.function {
        Known::Value(name) => name.split('+').next().unwrap_or(name).to_owned(),
        Known::Absent(_) => frame.ip.to_string(),
    });
    let names = names.collect::<Vec<_>>().join(" < ");
    if names.is_empty() {
        return;
    }
    let line = format!("{heading}: {names}");
    let indent = if heading.starts_with(' ') { 4 } else { HEADING };
    let room = page.terminal.width.saturating_sub(indent + 2).max(40);
    for (index, line) in wrap(line.trim_start(), room, "").iter().enumerate() {
        let indent = if heading.starts_with(' ') && index == 0 {
            2
        } else {
            indent
        };
        let line = page.terminal.dim(line);
        page.line(&format!("{}{line}", " ".repeat(indent)));
    }
}

fn registers(thread: &Thread, page: &mut Page<'_>) {
    if let Known::Value(registers) = &thread.registers {
        let all: Vec<_> = registers
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        for line in all.chunks(4) {
            page.line(&format!("  {}", line.join("  ")));
        }
    }
    if let Known::Value(window) = &thread.stack_window {
        page.line(&format!("  stack at {}:", window.start));
        let digits: Vec<char> = window.bytes.chars().collect();
        for (index, row) in digits.chunks(64).enumerate() {
            let address = window.start.0.wrapping_add(index as u64 * 32);
            let row: String = row.iter().collect();
            page.line(&format!("    {address:#x}  {row}"));
        }
    }
}
