//! The offsets that the programs are told: each member by name, absent where this kernel has
//! none.

use hearth_abi::{ABSENT, Bit, Offsets};

use super::btf::Btf;

/// Reads them.
#[must_use]
pub fn of(btf: &Btf) -> Offsets {
    let mut offsets = Offsets::NONE;
    for (path, slot) in offsets.members() {
        if let Some(member) = btf.member(path) {
            *slot = member.bit_offset / 8;
        }
    }
    if let Some(member) = btf.member("task_struct.in_iowait") {
        offsets.task_in_iowait = Bit {
            byte: member.bit_offset / 8,
            mask: 1 << (member.bit_offset % 8),
        };
    }
    offsets.memory_cgrp_id = btf
        .enumerator("cgroup_subsys_id", "memory_cgrp_id")
        .unwrap_or(ABSENT);
    offsets
}

/// The members that this kernel does not have.
#[must_use]
pub fn absent(offsets: &Offsets) -> Vec<&'static str> {
    let mut offsets = *offsets;
    let mut absent: Vec<_> = offsets
        .members()
        .filter_map(|(path, slot)| (*slot == ABSENT).then_some(path))
        .collect();
    if offsets.memory_cgrp_id == ABSENT {
        absent.push("cgroup_subsys_id.memory_cgrp_id");
    }
    absent
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    /// Members that some kernels do without, and which: another one that is missing is a name
    /// that was written wrong, or a kernel that has moved on.
    const SOME_HAVE_NOT: [&str; 2] = [
        // Counters by CPU since 6.2.
        "mm_struct.rss_stat.count",
        // A part of cgroup version 1 since 6.11, which can be left out.
        "mem_cgroup.oom_lock",
    ];

    #[test]
    fn nothing_that_the_programs_need_is_absent_on_this_kernel() {
        let offsets = of(&Btf::of_running_kernel().unwrap());
        let mut absent = absent(&offsets);
        absent.retain(|member| !SOME_HAVE_NOT.contains(member));
        assert_eq!(absent, Vec::<&str>::new());
    }
}
