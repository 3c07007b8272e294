//! The list as a program for the kernel.
//!
//! Calls whose arguments decide are compiled by a crate, into a chain of comparisons. The others
//! are looked up in a [tree] before it: when a filter is installed, the kernel runs it once for
//! each call that there is, and through a chain of all of them that took two thirds of a
//! millisecond.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};
use syscalls::Sysno;

use super::profile::Profile;
use super::tree;

/// Stands for "ask the listener" until the program is compiled: the crate has no such action.
const ASK: SeccompAction = SeccompAction::Errno(0xa5c);

/// New namespaces of any kind; `clone` with one of these makes a sandbox within the sandbox, with
/// all capabilities there, and so most of the kernel's own attack surface.
const NEW_NAMESPACES: u64 = (libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWUTS) as u64;

/// How many instructions of the crate's programs are its look at the architecture.
const ARCHITECTURE: usize = 3;

/// Why there is no program.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// Not a processor that hearth knows the calls of.
    #[error("no seccomp filter for this processor: {0}")]
    Backend(#[from] BackendError),
    /// The compiled program is not as expected.
    #[error("the compiled seccomp filter asks nobody: its actions are not as expected")]
    AsksNobody,
    /// The calls that are allowed are too far apart for the jumps of one program.
    #[error("the list of allowed system calls has too many gaps for a seccomp filter")]
    Gaps,
}

/// The program of one profile.
#[derive(Clone, Debug)]
pub struct Filter(pub(super) BpfProgram);

impl Filter {
    /// Compiles a profile.
    pub fn new(profile: &Profile) -> Result<Self, FilterError> {
        let architecture: TargetArch = std::env::consts::ARCH.try_into()?;
        let allowed = profile.allowed();
        let mut rules = conditional()?;
        for call in &allowed {
            rules.remove(&number(*call));
        }
        let rules = SeccompFilter::new(rules, ASK, SeccompAction::Allow, architecture)?;
        let mut program = BpfProgram::try_from(rules)?;
        ask(&mut program)?;
        // After the look at the architecture, before the look at arguments.
        let tree = tree::of(&allowed)?;
        program.splice(ARCHITECTURE..ARCHITECTURE, tree);
        Ok(Self(program))
    }
}

fn number(call: Sysno) -> i64 {
    i64::from(call.id())
}

/// Makes "ask the listener" of what stands for it.
fn ask(program: &mut BpfProgram) -> Result<(), FilterError> {
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    let stands_for_it = u32::from(ASK);
    let mut found = false;
    for instruction in program {
        if u32::from(instruction.code) == RETURN && instruction.k == stands_for_it {
            instruction.k = libc::SECCOMP_RET_USER_NOTIF;
            found = true;
        }
    }
    found.then_some(()).ok_or(FilterError::AsksNobody)
}

/// Calls that are allowed with some arguments.
fn conditional() -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    use SeccompCmpOp::{Eq, MaskedEq, Ne};
    // The kernel looks at 32 bits of these arguments: so must the filter.
    let word = |argument, operator, value| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
    };
    let socket = |family: i32, kind: i32| {
        // The kind shares its argument with flags.
        let family = word(0, Eq, family.unsigned_abs().into())?;
        let kind = word(1, MaskedEq(0xf), kind.unsigned_abs().into())?;
        SeccompRule::new(vec![family, kind])
    };
    let mut sockets = Vec::new();
    for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6] {
        for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM] {
            sockets.push(socket(family, kind)?);
        }
    }
    sockets.push(socket(libc::AF_UNIX, libc::SOCK_SEQPACKET)?);
    // Which addresses there are: getifaddrs and getaddrinfo ask by NETLINK_ROUTE.
    for kind in [libc::SOCK_RAW, libc::SOCK_DGRAM] {
        let family = word(0, Eq, libc::AF_NETLINK.unsigned_abs().into())?;
        let kind = word(1, MaskedEq(0xf), kind.unsigned_abs().into())?;
        let protocol = word(2, Eq, libc::NETLINK_ROUTE.unsigned_abs().into())?;
        sockets.push(SeccompRule::new(vec![family, kind, protocol])?);
    }
    let no_namespace =
        SeccompCondition::new(0, SeccompCmpArgLen::Qword, MaskedEq(NEW_NAMESPACES), 0)?;
    // Typing into the terminal of who started this.
    let type_into = [libc::TIOCSTI, libc::TIOCLINUX];
    let not_typing = type_into
        .into_iter()
        .map(|request| word(1, Ne, request))
        .collect::<Result<_, _>>()?;
    // To ask, or to be plain Linux; others undo address space randomisation and worse.
    let personality = |persona| SeccompRule::new(vec![word(0, Eq, persona)?]);
    Ok(BTreeMap::from([
        (number(Sysno::socket), sockets),
        (
            number(Sysno::clone),
            vec![SeccompRule::new(vec![no_namespace])?],
        ),
        (number(Sysno::ioctl), vec![SeccompRule::new(not_typing)?]),
        (
            number(Sysno::personality),
            vec![personality(0)?, personality(u32::MAX.into())?],
        ),
    ]))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn other_architectures_are_turned_away_first() {
        let Filter(program) = Filter::new(&Profile::default()).unwrap();
        let [load, compare, kill] = &program[..ARCHITECTURE] else {
            panic!("{program:?}");
        };
        // Of struct seccomp_data: the call's number is at 0, its architecture at 4.
        let word = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
        assert_eq!((u32::from(load.code), load.k), (word, 4));
        let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
        assert_eq!(
            (u32::from(compare.code), compare.jt, compare.jf),
            (equal, 1, 0)
        );
        assert_eq!(kill.k, libc::SECCOMP_RET_KILL_PROCESS);
    }
}
