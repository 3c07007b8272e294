//! Boundaries to phases: what the chain ran through, and where one phase ends and the next
//! begins.

use hearth_abi::{Kind, Opener};

use super::PhaseName;
use super::chain::Chain;
use super::end::End;
use super::image::{Image, Images};
use super::rules::Role;
use super::start::{Process, Start};
use crate::time::Boottime;

/// A boundary: when, and which mark of which link stamped it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) at: Boottime,
    pub(super) stamp: Stamp,
}

/// What is known of a process's counters at a boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stamp {
    /// Nothing.
    None,
    /// The first link was born there: all are zero.
    Birth,
    /// Its accounting began there; the rest is told by this mark, if it stamped one.
    Attach(Option<usize>),
    /// This mark tells them.
    Mark {
        /// Position in the chain.
        link: usize,
        /// Index of the mark.
        index: usize,
    },
}

/// One program that the chain ran through.
#[derive(Clone, Copy, Debug)]
pub(super) struct Program {
    process: Process,
    image: Image,
    pub(super) begin: Option<Point>,
    pub(super) exec: Option<Point>,
    entry: Option<Point>,
    main: Option<Point>,
}

/// A phase before its costs are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) names: Vec<PhaseName>,
    pub(super) from: Point,
    pub(super) to: Point,
}

/// The programs that the chain ran through, in order.
pub(super) fn programs(start: &Start, chain: &Chain, images: &Images, end: &End) -> Vec<Program> {
    let limit = end.mark.unwrap_or(start.marks().len());
    let mut programs: Vec<Program> = Vec::new();
    for (link, member) in chain.links.iter().enumerate() {
        let window = chain.window(link, limit);
        for (index, mark) in start.marks_of(member.process) {
            if !window.contains(&index) || mark.at() > end.at {
                continue;
            }
            let process = member.process;
            let point = Some(Point {
                at: mark.at(),
                stamp: Stamp::Mark { link, index },
            });
            let image = images.at(index);
            let new = |begin, exec: Option<Point>, entry, main| {
                // Only an exec tells the image; what precedes or follows a lost one may be any. A
                // process whose fork is known and that lost nothing runs what its creator ran.
                let inherits = start.lost == 0 && start.fork_of(process).is_some();
                let image = match image {
                    Image::Own if exec.is_none() && !inherits => Image::Unknown,
                    image => image,
                };
                Program {
                    process,
                    image,
                    begin,
                    exec,
                    entry,
                    main,
                }
            };
            let current = programs
                .last_mut()
                .filter(|program| program.process == process);
            match (mark.kind, current) {
                (Kind::ExecBegin, _) => programs.push(new(point, None, None, None)),
                (Kind::Exec, Some(p)) if p.exec.or(p.entry).or(p.main).is_none() => {
                    p.exec = point;
                    p.image = image;
                }
                (Kind::Exec, _) => programs.push(new(None, point, None, None)),
                (Kind::Entry, Some(p)) if p.entry.or(p.main).is_none() => p.entry = point,
                // An image may have two: its own, and a moment later the C library's.
                (Kind::Entry, Some(p)) if start.lost == 0 && p.main.is_none() => p.entry = point,
                (Kind::Entry, Some(_)) if start.lost == 0 => {}
                (Kind::Entry, _) => programs.push(new(None, None, point, None)),
                (Kind::Main, Some(p)) => p.main = p.main.or(point),
                (Kind::Main, _) => programs.push(new(None, None, None, point)),
                _ => {}
            }
        }
    }
    programs
}

/// The contiguous slices from the opener to the end.
pub(super) fn cut(
    start: &Start,
    chain: &Chain,
    mut programs: Vec<Program>,
    end: &End,
) -> Vec<Slice> {
    let mut from = opener(start, chain);
    let to = Point {
        at: end.at,
        stamp: end_stamp(start, chain, end),
    };
    let opening = &start.opening;
    if opening.opener == Opener::Exec && chain.complete {
        place_opener(&mut programs, &from);
    }
    programs.retain(|program| program.image != Image::Own);

    let (Some(first), Some(last)) = (programs.first(), programs.last()) else {
        let names = if opening.opener == Opener::Fork {
            vec![PhaseName::UserInit]
        } else if start.lost == 0 || opening.role == Role::Runtime {
            vec![PhaseName::Create]
        } else {
            PhaseName::ALL[1..].to_vec()
        };
        return vec![Slice { names, from, to }];
    };

    // Which program was the first outside cannot be said of a broken chain, nor when a
    // nameless exec came before a known one.
    let doubtful = !chain.complete || (programs.len() > 1 && first.image == Image::Unknown);
    let mut ends = Vec::new();
    if opening.is_program_exec() {
        from = first
            .begin
            .filter(|begin| begin.at == from.at)
            .unwrap_or(from);
    } else {
        ends.push((PhaseName::Create, first.begin.filter(|_| !doubtful)));
    }
    if doubtful || programs.len() > 1 {
        ends.push((PhaseName::Wrapper, last.begin));
    }
    ends.push((PhaseName::Exec, last.exec));
    ends.push((PhaseName::Link, last.entry));
    ends.push((PhaseName::RuntimeInit, last.main));
    ends.push((PhaseName::UserInit, Some(to)));
    merge(from, to, ends)
}

/// Joins each phase without an end of its own to the one after it.
fn merge(
    mut from: Point,
    to: Point,
    ends: impl IntoIterator<Item = (PhaseName, Option<Point>)>,
) -> Vec<Slice> {
    let mut slices = Vec::new();
    let mut names = Vec::new();
    for (name, end) in ends {
        names.push(name);
        // A boundary out of order is none: its record cannot be what it says.
        if let Some(end) = end.filter(|end| end.at >= from.at && end.at <= to.at) {
            slices.push(Slice {
                names: std::mem::take(&mut names),
                from,
                to: end,
            });
            from = end;
        }
    }
    slices
}

/// The opener's exec begins when the start does, even if no mark tells it.
fn place_opener(programs: &mut Vec<Program>, opener: &Point) {
    match programs.first_mut() {
        Some(first) if first.begin.is_some_and(|begin| begin.at == opener.at) => {}
        Some(first) if first.begin.is_none() => {
            first.begin = Some(*opener);
            // Without a begin of its own nothing tells exec from link.
            first.exec = first.exec.filter(|exec| exec.at > opener.at);
        }
        Some(&mut Program { process, image, .. }) => {
            let begin = Some(*opener);
            let lost = Program {
                process,
                image,
                begin,
                exec: None,
                entry: None,
                main: None,
            };
            programs.insert(0, lost);
        }
        None => {}
    }
}

fn opener(start: &Start, chain: &Chain) -> Point {
    let opening = &start.opening;
    let at = opening.begin;
    let first = chain.links.first().filter(|_| chain.complete);
    let Some(first) = first else {
        return Point {
            at,
            stamp: Stamp::None,
        };
    };
    let born = first
        .fork
        .is_some_and(|index| start.marks()[index].at() == at);
    if born {
        return Point {
            at,
            stamp: Stamp::Birth,
        };
    }
    let mut own = start
        .marks_of(first.process)
        .take_while(|(_, mark)| mark.at() == at);
    let stamp = if opening.opener == Opener::Cgroup {
        Stamp::Attach(
            own.find(|(_, mark)| mark.kind == Kind::CgroupAttach)
                .map(|(index, _)| index),
        )
    } else {
        own.find(|(_, mark)| matches!(mark.kind, Kind::ExecBegin | Kind::Exec))
            .map_or(Stamp::None, |(index, _)| Stamp::Mark { link: 0, index })
    };
    Point { at, stamp }
}

fn end_stamp(start: &Start, chain: &Chain, end: &End) -> Stamp {
    let tip = chain.links.len().checked_sub(1);
    match (end.mark, tip) {
        (Some(index), Some(link))
            if start.marks()[index].process() == chain.links[link].process =>
        {
            Stamp::Mark { link, index }
        }
        _ => Stamp::None,
    }
}
