//! Every way to measure attached at once, each counting for itself, beside a reference that is
//! exact and too dear to be left attached: how well each of them measures on this kernel.

use aya::{Ebpf, EbpfLoader, maps::Array};
use hearth_abi::{LOCK_ROWS, LOCK_WAYS, LockSettings, LockWay};

use super::{LockCounts, LockLimits, LockMaps, borrowed, calibrated, map_of, prepare, wrong};
use crate::kernel::{
    attach::{self, Link},
    btf::Btf,
    object, offsets,
    probes::ProbesError,
    table::{
        Program,
        cgroup_lock::{CONTENTION, FENTRY, KPROBE, RCU_FENTRY, RCU_KPROBE, REFERENCE},
    },
};

/// The ways, attached.
pub struct Comparison {
    maps: LockMaps,
    ways: Vec<Way>,
    _ebpf: Ebpf,
}

impl std::fmt::Debug for Comparison {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Comparison").finish_non_exhaustive()
    }
}

struct Way {
    way: LockWay,
    attached: Result<Vec<Link>, String>,
}

/// What one way has measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    /// The way.
    pub way: LockWay,
    /// By lock and operation; or why the way is not to be had on this kernel.
    pub counts: Result<Vec<LockCounts>, String>,
}

impl Comparison {
    /// Attaches all that this kernel lets be attached.
    pub fn start() -> Result<Self, ProbesError> {
        let types = Btf::of_running_kernel()?;
        let aya_types = aya::Btf::from_sys_fs()?;
        let offsets = offsets::of(&types);
        let mut ebpf = EbpfLoader::new()
            .btf(Some(&aya_types))
            .override_global("OFFSETS", &offsets, true)
            .map_max_entries("LOCK_COUNTS", LOCK_ROWS * LOCK_WAYS)
            .load(&object::inflated()?)
            .map_err(|error| ProbesError::Load(Box::new(error)))?;
        prepare(&mut ebpf, &LockLimits::default())?;
        let mut attach = |way, lists: &[&[Program]]| {
            let mut links = Vec::new();
            for program in lists.iter().copied().flatten() {
                let attached = attach::load_program(&mut ebpf, &types, &aya_types, program)
                    .and_then(|()| attach::attach_program(&mut ebpf, program));
                match attached {
                    Ok(link) => links.push(link),
                    Err(_) if program.optional => {}
                    Err(reason) => {
                        let attached = Err(reason);
                        return Way { way, attached };
                    }
                }
            }
            let attached = Ok(links);
            Way { way, attached }
        };
        let ways = vec![
            attach(LockWay::Tracepoint, &[CONTENTION]),
            attach(LockWay::Kprobe, &[KPROBE, RCU_KPROBE]),
            attach(LockWay::Fentry, &[FENTRY, RCU_FENTRY]),
            attach(LockWay::Reference, &[REFERENCE]),
        ];
        let mut map: Array<_, LockSettings> = borrowed(&mut ebpf, "LOCK_SETTINGS")?;
        let mut settings = map.get(&0, 0).map_err(wrong("LOCK_SETTINGS"))?;
        settings.exact_holds = 0;
        settings.compare = 1;
        map.set(0, settings, 0).map_err(wrong("LOCK_SETTINGS"))?;
        if settings.mutex_address == 0
            && let Err(error) = calibrated(&mut ebpf, settings)
        {
            tracing::warn!("cgroup_mutex is not known: {error}");
        }
        let mut maps = LockMaps::new(
            map_of(&mut ebpf, "LOCK_COUNTS")?,
            map_of(&mut ebpf, "LOCK_CGROUPS")?,
        );
        // The ways were not all attached at the same moment.
        maps.clear(LOCK_WAYS).map_err(wrong("LOCK_COUNTS"))?;
        Ok(Self {
            maps,
            ways,
            _ebpf: ebpf,
        })
    }

    /// What each has measured so far; the bound's error is the last.
    pub fn read(&self) -> Result<Vec<Compared>, ProbesError> {
        let rows = |way: LockWay| {
            self.maps
                .read_rows(way as u32, &[])
                .map_err(wrong("LOCK_COUNTS"))
        };
        let mut all = Vec::new();
        for Way { way, attached } in &self.ways {
            let counts = match attached {
                Ok(_) => Ok(rows(*way)?),
                Err(reason) => Err(reason.clone()),
            };
            all.push(Compared { way: *way, counts });
        }
        all.push(Compared {
            way: LockWay::Bound,
            counts: Ok(rows(LockWay::Bound)?),
        });
        Ok(all)
    }
}
