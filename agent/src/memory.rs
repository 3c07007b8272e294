//! The heap: what was needed for a moment goes back to the system.

/// Blocks of this size and more are not of the heap, but mappings of their own: glibc's own value
/// to begin with.
const MAPPED: libc::c_int = 128 << 10;

/// Keeps large blocks out of the heap for good; before any are asked for.
///
/// Left alone, glibc raises the size with each larger block that is freed, up to 32 MiB. The second
/// time that type information or symbols are read they are in the heap, where the little that
/// outlives them holds the pages around it.
pub fn keep_large_blocks_apart() {
    // SAFETY: a parameter of the allocator's, and a value that it takes.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED) };
}

/// Gives free memory back to the system: after work that takes much of it for a moment.
pub(crate) fn give_back() {
    // SAFETY: no argument that could be wrong, and no effect but on free memory.
    unsafe { libc::malloc_trim(0) };
}
