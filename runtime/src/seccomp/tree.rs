//! A search among system calls: as many comparisons as a call's number has bits, not as many as
//! there are calls.

use std::collections::{BTreeMap, BTreeSet};

use seccompiler::sock_filter;
use syscalls::Sysno;

use super::filter::FilterError;

/// The call's number is first in the kernel's `struct seccomp_data`.
const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
/// A jump over the rest of the tree.
const FURTHER: u32 = libc::BPF_JMP | libc::BPF_JA;

/// What follows for all numbers from one on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Allowed,
    /// As if the kernel did not know it.
    Unknown,
    /// Looked at by what comes after the tree.
    Further,
}

/// Instructions that end for the calls that are `allowed`, and for `clone3`, and for all others go
/// on behind themselves, with the call's number loaded.
///
/// The flags of clone3 lie in memory, where no filter can look: a C library that is told that there
/// is none uses clone, as it does on kernels before 5.3.
pub(super) fn of(allowed: &BTreeSet<Sysno>) -> Result<Vec<sock_filter>, FilterError> {
    let runs = runs(allowed);
    let mut program = vec![instruction(LOAD, 0, 0)];
    program.extend(branch(&runs)?);
    let length = program.len();
    for (at, instruction) in program.iter_mut().enumerate() {
        if u32::from(instruction.code) == FURTHER {
            instruction.k = u32::try_from(length - at - 1).map_err(|_| FilterError::Gaps)?;
        }
    }
    Ok(program)
}

/// Where each verdict begins, in order; the first at 0.
fn runs(allowed: &BTreeSet<Sysno>) -> Vec<(u32, Verdict)> {
    let verdicts = allowed.iter().map(|call| (number(*call), Verdict::Allowed));
    let verdicts = verdicts.chain([(number(Sysno::clone3), Verdict::Unknown)]);
    let mut runs = BTreeMap::from([(0, Verdict::Further)]);
    for (call, verdict) in verdicts {
        runs.insert(call, verdict);
        runs.entry(call + 1).or_insert(Verdict::Further);
    }
    let mut runs: Vec<_> = runs.into_iter().collect();
    runs.dedup_by_key(|(_, verdict)| *verdict);
    runs
}

fn number(call: Sysno) -> u32 {
    call.id().unsigned_abs()
}

fn branch(runs: &[(u32, Verdict)]) -> Result<Vec<sock_filter>, FilterError> {
    let (lower, upper) = runs.split_at(runs.len() / 2);
    let Some((from, verdict)) = upper.first() else {
        return Err(FilterError::Gaps);
    };
    if lower.is_empty() {
        return Ok(vec![leaf(*verdict)]);
    }
    let lower = branch(lower)?;
    let skip = u8::try_from(lower.len()).map_err(|_| FilterError::Gaps)?;
    let at_least = instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, skip, *from);
    Ok([vec![at_least], lower, branch(upper)?].concat())
}

fn leaf(verdict: Verdict) -> sock_filter {
    let end = libc::BPF_RET | libc::BPF_K;
    match verdict {
        Verdict::Allowed => instruction(end, 0, libc::SECCOMP_RET_ALLOW),
        Verdict::Unknown => {
            let error = libc::ENOSYS.unsigned_abs();
            instruction(end, 0, libc::SECCOMP_RET_ERRNO | error)
        }
        // How far is known at the end.
        Verdict::Further => instruction(FURTHER, 0, 0),
    }
}

/// Code, jump if true, value; codes of this kind of program are 16 bits wide.
fn instruction(code: u32, jt: u8, k: u32) -> sock_filter {
    let code = u16::try_from(code).unwrap_or_default();
    sock_filter { code, jt, jf: 0, k }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    /// What the program says of a call: its action, or none where it goes on behind its end.
    fn run(program: &[sock_filter], number: u32) -> Option<u32> {
        let mut at = 0;
        loop {
            let instruction = program.get(at)?;
            at += 1;
            let k = instruction.k;
            match u32::from(instruction.code) {
                LOAD => assert_eq!(k, 0),
                FURTHER => at += k as usize,
                RETURN => return Some(k),
                _ if number >= k => at += usize::from(instruction.jt),
                _ => at += usize::from(instruction.jf),
            }
        }
    }

    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

    #[test]
    fn each_call_gets_its_verdict_in_few_steps() {
        let allowed = crate::seccomp::Profile::default().allowed();
        let program = of(&allowed).unwrap();
        for call in 0..1000 {
            let known = Sysno::new(call as usize);
            let expected = match known {
                Some(Sysno::clone3) => Some(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
                Some(known) if allowed.contains(&known) => Some(libc::SECCOMP_RET_ALLOW),
                _ => None,
            };
            assert_eq!(run(&program, call), expected, "{call}: {known:?}");
        }
        // Calls of the x32 interface have numbers like these.
        let x32 = 0x4000_0000 + Sysno::read.id().unsigned_abs();
        assert_eq!([run(&program, x32), run(&program, u32::MAX)], [None, None]);
    }

    #[test]
    fn no_call_and_every_call_are_lists_too() {
        let none = of(&BTreeSet::new()).unwrap();
        assert_eq!(run(&none, 0), None);
        let all = Sysno::iter().filter(|call| *call != Sysno::clone3);
        let every = of(&all.collect()).unwrap();
        assert_eq!(run(&every, 0), Some(libc::SECCOMP_RET_ALLOW));
    }
}
