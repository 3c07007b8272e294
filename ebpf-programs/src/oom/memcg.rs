//! Memory cgroups: the one whose limit was hit.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_loop;
use hearth_abi::{ABSENT, OomConstraint, OomKill, OomKillField, OomSource, oom_kill};

use super::kill::note;
use crate::{
    globals::offset,
    task::{Address, Cgroup, Task},
};

/// Levels that are climbed: far more than anyone nests.
const LEVELS: u32 = 32;

/// A `mem_cgroup`.
#[derive(Clone, Copy)]
pub struct Memcg(Address);

impl Memcg {
    /// Of a pointer; null where there is none.
    #[inline(always)]
    pub fn of(address: Address) -> Self {
        Self(address)
    }

    /// A task's own.
    #[inline(always)]
    fn of_task(task: Task) -> Self {
        Self::of_css(task.memory_css())
    }

    #[inline(always)]
    fn of_css(css: Address) -> Self {
        if css.is_null() {
            return Self(css);
        }
        Self(css.container(offset!(memcg_css)))
    }

    #[inline(always)]
    fn css(self) -> Address {
        self.0.member(offset!(memcg_css))
    }

    /// The one above; null at the top.
    #[inline(always)]
    fn parent(self) -> Self {
        Self::of_css(self.css().follow(offset!(css_parent)))
    }

    /// Whether a kill is under way in it: the kernel locks the whole tree beneath the limit.
    #[inline(always)]
    pub fn is_killing(self) -> bool {
        self.0.get::<u8>(offset!(memcg_oom_lock)) != 0
    }

    /// Says what its limit and charges are.
    #[inline(always)]
    pub fn tell(self, kill: &mut OomKill, source: OomSource) {
        let cgroup = self.css().follow(offset!(css_cgroup));
        kill.constraint = OomConstraint::Memcg as u16;
        kill.memcg = Cgroup::at(cgroup).id();
        kill.limit_pages = self.0.get(offset!(memcg_max));
        kill.usage_pages = self.0.get(offset!(memcg_usage));
        kill.swap_limit_pages = self.0.get(offset!(memcg_swap_max));
        kill.swap_usage_pages = self.0.get(offset!(memcg_swap_usage));
        if cgroup
            .follow(offset!(cgroup_root))
            .get::<u32>(offset!(root_hierarchy))
            != 0
        {
            kill.flags |= oom_kill::MEMSW;
        }
        note(kill, OomKillField::Constraint, source);
        note(kill, OomKillField::Memcg, source);
        note(kill, OomKillField::Usage, source);
        note(
            kill,
            OomKillField::SwapUsage,
            if offset!(memcg_swap_max) == ABSENT {
                OomSource::NotOnThisKernel
            } else {
                source
            },
        );
    }
}

/// What a climb from a victim's cgroup towards the top has found.
pub struct Climb {
    at: u64,
    /// Where it ends, if that is known.
    limit: u64,
    /// Whether a kill is under way in each that it passes.
    certain: bool,
    /// The highest one that is being killed in.
    killing: u64,
    /// Whether one of those is killed as a whole.
    group: bool,
}

/// One level; non-zero ends the climb.
unsafe extern "C" fn climb_next(_index: u64, climb: *mut Climb) -> u64 {
    // SAFETY: the caller's own value, alive for the whole climb.
    let climb = unsafe { &mut *climb };
    let at = Memcg(Address::from_raw(climb.at));
    if at.0.is_null() {
        return 1;
    }
    if climb.certain || at.is_killing() {
        climb.killing = climb.at;
        if at.0.get::<u8>(offset!(memcg_oom_group)) != 0 {
            climb.group = true;
        }
    }
    if climb.at == climb.limit {
        return 1;
    }
    climb.at = at.parent().0.raw();
    0
}

impl Climb {
    /// Climbs from a victim's cgroup, while its kill is under way: to `limit` if that is
    /// `certain`, else as far as the kernel has locked the tree for it.
    #[inline(always)]
    pub fn of(victim: Task, limit: Address, certain: bool) -> Self {
        let mut climb = Self {
            at: Memcg::of_task(victim).0.raw(),
            limit: limit.raw(),
            certain,
            killing: 0,
            group: false,
        };
        // SAFETY: the callback takes what it is given here.
        unsafe {
            bpf_loop(
                LEVELS,
                climb_next as *mut c_void,
                (&raw mut climb).cast(),
                0,
            );
        }
        climb
    }

    /// The cgroup that is short; null where there is none.
    #[inline(always)]
    pub fn killing(&self) -> Memcg {
        Memcg(Address::from_raw(self.killing))
    }

    /// Whether more than the one victim is killed.
    #[inline(always)]
    pub fn has_group(&self) -> bool {
        self.group
    }
}

/// Whether a task's own memory cgroup is being killed in.
#[inline(always)]
pub fn is_killing(task: Task) -> bool {
    let memcg = Memcg::of_task(task);
    !memcg.0.is_null() && memcg.is_killing()
}

impl Memcg {
    /// Whether it is none.
    #[inline(always)]
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }
}
