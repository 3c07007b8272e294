//! Resident pages of an address space, in the three forms that kernels have kept them in.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::{bpf_loop, generated::bpf_map_lookup_percpu_elem},
    macros::map,
    maps::PerCpuArray,
};
use hearth_abi::{ABSENT, OomKill, OomKillField, OomSource};

use super::kill::note;
use crate::{
    globals::{offset, oom_config},
    task::Address,
};

/// Of which each CPU's address is known: what it differs by from the map's own pointer is where
/// that CPU keeps everything.
#[map]
static OOM_CPU: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Where a pointer becomes a number.
#[map]
static OOM_POINTER: PerCpuArray<[u64; 2]> = PerCpuArray::with_max_entries(1, 0);

/// `MM_FILEPAGES`, `MM_ANONPAGES`, `MM_SWAPENTS`, `MM_SHMEMPAGES`: the same since 4.5.
const COUNTERS: usize = 4;

/// Adds up what each CPU has counted.
struct Sum {
    /// Of the four counters, the CPUs' parts: per-CPU pointers.
    parts: [u64; COUNTERS],
    pages: [i64; COUNTERS],
    /// The map's own pointer.
    base: u64,
}

unsafe extern "C" fn add_cpu(cpu: u64, sum: *mut Sum) -> u64 {
    // SAFETY: the caller's own value, alive for the whole loop.
    let sum = unsafe { &mut *sum };
    let key = 0_u32;
    // SAFETY: a map of this object, and a key on the stack.
    let cell = unsafe {
        bpf_map_lookup_percpu_elem(
            (&raw const OOM_CPU).cast_mut().cast(),
            (&raw const key).cast(),
            cpu as u32,
        )
    };
    if cell.is_null() {
        return 1;
    }
    let cell = number(0, cell);
    let distance = cell.wrapping_sub(sum.base);
    sum.pages[0] += part(sum.parts[0], distance);
    sum.pages[1] += part(sum.parts[1], distance);
    sum.pages[2] += part(sum.parts[2], distance);
    sum.pages[3] += part(sum.parts[3], distance);
    0
}

#[inline(always)]
fn part(pointer: u64, distance: u64) -> i64 {
    let part: i32 = Address::from_raw(pointer.wrapping_add(distance)).get(0);
    i64::from(part)
}

/// A pointer as a number: the verifier does not let it be calculated with otherwise.
#[inline(always)]
fn number(slot: usize, pointer: *mut c_void) -> u64 {
    let Some(cell) = OOM_POINTER.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: a map's value. Volatile, so that it goes through memory.
    unsafe {
        let cell = cell.cast::<*mut c_void>().add(slot);
        core::ptr::write_volatile(cell, pointer);
        core::ptr::read_volatile(cell.cast::<u64>())
    }
}

/// Says how many pages of each sort are resident in `mm`.
#[inline(always)]
pub fn tell(kill: &mut OomKill, mm: Address) {
    let (pages, source) = if offset!(mm_rss_count) != ABSENT {
        // Before 6.2; each thread may hold back up to 64 pages.
        let counts: [i64; COUNTERS] = mm.get(offset!(mm_rss_count));
        (counts, OomSource::Approximate)
    } else if offset!(mm_rss_stat) != ABSENT && offset!(percpu_counter_counters) != ABSENT {
        (summed(mm.member(offset!(mm_rss_stat))), OomSource::Read)
    } else {
        ([0; COUNTERS], OomSource::NotOnThisKernel)
    };
    kill.rss_file_pages = positive(pages[0]);
    kill.rss_anon_pages = positive(pages[1]);
    kill.swap_pages = positive(pages[2]);
    kill.rss_shmem_pages = positive(pages[3]);
    note(kill, OomKillField::Rss, source);
}

/// A sum that was taken while it moves can be below zero.
#[inline(always)]
fn positive(pages: i64) -> u64 {
    if pages < 0 { 0 } else { pages as u64 }
}

#[inline(always)]
fn summed(counters: Address) -> [i64; COUNTERS] {
    // Its last member is the pointer to the CPUs' parts.
    let stride = offset!(percpu_counter_counters) + size_of::<u64>() as u32;
    let of = |index: u32| counters.member(index * stride);
    let map = Address::from_raw(number(1, (&raw const OOM_CPU).cast_mut().cast()));
    let mut sum = Sum {
        parts: [
            of(0).get(offset!(percpu_counter_counters)),
            of(1).get(offset!(percpu_counter_counters)),
            of(2).get(offset!(percpu_counter_counters)),
            of(3).get(offset!(percpu_counter_counters)),
        ],
        pages: [
            of(0).get(offset!(percpu_counter_count)),
            of(1).get(offset!(percpu_counter_count)),
            of(2).get(offset!(percpu_counter_count)),
            of(3).get(offset!(percpu_counter_count)),
        ],
        base: map.get(offset!(array_pptrs)),
    };
    let cpus = oom_config!(cpus);
    // SAFETY: the callback takes what it is given here.
    unsafe {
        bpf_loop(cpus, add_cpu as *mut c_void, (&raw mut sum).cast(), 0);
    }
    sum.pages
}
