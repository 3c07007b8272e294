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

    /// Whether more is charged to it than its limit is, as when that was just lowered.
    #[inline(always)]
    fn is_exceeded(self) -> bool {
        let (usage, limit): (u64, u64) = (
            self.0.get(offset!(memcg_usage)),
            self.0.get(offset!(memcg_max)),
        );
        usage > limit
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

/// A cgroup on the way up.
#[derive(Clone, Copy)]
pub struct Level {
    memcg: u64,
    /// Whether one up to here is killed as a whole (`memory.oom.group`).
    pub has_group: bool,
}

impl Level {
    const NONE: Self = Self {
        memcg: 0,
        has_group: false,
    };

    /// The cgroup; null where there is none.
    #[inline(always)]
    pub fn memcg(self) -> Memcg {
        Memcg(Address::from_raw(self.memcg))
    }
}

/// What a climb from a victim's cgroup towards the top has found.
pub struct Climb {
    /// Where it is.
    at: Level,
    /// Where it ends, or null for the top.
    limit: u64,
    /// The highest one that a kill is under way in.
    pub killing: Level,
    /// The highest one to which more is charged than its limit is.
    pub exceeded: Level,
}

/// One level; non-zero ends the climb.
unsafe extern "C" fn climb_next(_index: u64, climb: *mut Climb) -> u64 {
    // SAFETY: the caller's own value, alive for the whole climb.
    let climb = unsafe { &mut *climb };
    let at = climb.at.memcg();
    if at.0.is_null() {
        return 1;
    }
    if at.0.get::<u8>(offset!(memcg_oom_group)) != 0 {
        climb.at.has_group = true;
    }
    if at.is_killing() {
        climb.killing = climb.at;
    }
    if at.is_exceeded() {
        climb.exceeded = climb.at;
    }
    if climb.at.memcg == climb.limit {
        return 1;
    }
    climb.at.memcg = at.parent().0.raw();
    0
}

impl Climb {
    /// Climbs from a victim's cgroup, while its kill is under way, to `limit`, or to the top.
    #[inline(always)]
    pub fn of(victim: Task, limit: Address) -> Self {
        let mut climb = Self {
            at: Level {
                memcg: Memcg::of_task(victim).0.raw(),
                has_group: false,
            },
            limit: limit.raw(),
            killing: Level::NONE,
            exceeded: Level::NONE,
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

    /// Whether one of all those is killed as a whole.
    #[inline(always)]
    pub fn has_group(&self) -> bool {
        self.at.has_group
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
