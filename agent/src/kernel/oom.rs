//! What the programs of the `oom` signal are told before they are loaded.

use std::io::{BufRead, BufReader};

use hearth_abi::{OOM_MEMORY_BYTES, OomConfig};

/// What a capture may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OomLimits {
    /// Bytes of stack memory a thread, at most [`OOM_MEMORY_BYTES`]. It is secret: 0 takes none.
    pub stack_bytes: u32,
    /// Threads a capture; the others are counted.
    pub threads: u32,
}

impl Default for OomLimits {
    fn default() -> Self {
        Self {
            stack_bytes: 0,
            threads: 256,
        }
    }
}

/// The function of the kernel that kills, without which a mark of a victim is no kill, and the one
/// that calls it for the limit of a cgroup.
const KILLERS: [&str; 2] = ["__oom_kill_process", "mem_cgroup_out_of_memory"];

impl OomLimits {
    /// As the programs want it.
    pub(super) fn config(self) -> OomConfig {
        let found = std::fs::File::open("/proc/kallsyms")
            .map(|file| extents(BufReader::new(file), KILLERS))
            .unwrap_or_default();
        for (name, (begin, _)) in KILLERS.iter().zip(&found) {
            if *begin == 0 {
                tracing::debug!(
                    "the kernel does not tell where {name} is: where it allows a tracepoint only, \
                     less is known of kills"
                );
            }
        }
        let [(killer_begin, killer_end), (limit_begin, limit_end)] = found;
        OomConfig {
            stack_bytes: self
                .stack_bytes
                .min(u32::try_from(OOM_MEMORY_BYTES).unwrap_or(u32::MAX)),
            unused: 0,
            threads: self.threads,
            cpus: aya::util::nr_cpus()
                .ok()
                .and_then(|cpus| u32::try_from(cpus).ok())
                .unwrap_or(1),
            killer_begin,
            killer_end,
            limit_begin,
            limit_end,
        }
    }
}

/// Where each function begins and where the next one does; zeros if the list hides it.
fn extents<const N: usize>(list: impl BufRead, functions: [&str; N]) -> [(u64, u64); N] {
    let mut begins = [0; N];
    // The list is not in order where modules and compilers have added to it.
    let mut addresses = Vec::new();
    for line in list.lines().map_while(Result::ok) {
        let mut words = line.split(' ');
        let (Some(address), Some(kind), Some(name)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let Ok(address) = u64::from_str_radix(address, 16) else {
            continue;
        };
        if !matches!(kind, "t" | "T") {
            continue;
        }
        addresses.push(address);
        // A module's has a fourth word, and a tab.
        if let Some(which) = functions
            .iter()
            .position(|function| is_named(name, function))
        {
            begins[which] = address;
        }
    }
    begins.map(|begin| {
        let later = addresses.iter().filter(|&&address| address > begin);
        match later.min() {
            Some(&end) if begin != 0 => (begin, end),
            _ => (0, 0),
        }
    })
}

/// Whether a symbol is that function: compilers give copies with fewer arguments names of their
/// own, and parts that hardly ever run, which are elsewhere.
fn is_named(name: &str, function: &str) -> bool {
    match name.strip_prefix(function) {
        Some("") => true,
        Some(how) => how.starts_with('.') && !how.contains(".cold"),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_ends_where_the_next_one_begins_in_whatever_order_they_are_listed() {
        let list = "ffffffff81001000 T first\n\
                    ffffffff81003000 t third\n\
                    ffffffff81002000 t wanted\n\
                    ffffffff81002800 d data\n\
                    ffffffffc0000000 t wanted\t[module]\n";
        let found = extents(list.as_bytes(), ["wanted", "absent", "first"]);
        let at = |page: u64| 0xffff_ffff_8100_0000 + (page << 12);
        assert_eq!(found, [(at(2), at(3)), (0, 0), (at(1), at(2))]);
    }

    #[test]
    fn a_copy_that_a_compiler_made_is_the_function_and_its_rare_part_is_not() {
        let list = "ffffffff81000800 t wanted.isra.0.cold\n\
                    ffffffff81001000 t wanted.isra.0\n\
                    ffffffff81001800 t wanted_too\n\
                    ffffffff81002000 t other\n";
        let found = extents(list.as_bytes(), ["wanted"]);
        assert_eq!(found, [(0xffff_ffff_8100_1000, 0xffff_ffff_8100_1800)]);
    }

    #[test]
    fn a_list_that_hides_addresses_tells_nothing() {
        let list = "0000000000000000 t wanted\n0000000000000000 t other\n";
        assert_eq!(extents(list.as_bytes(), ["wanted"]), [(0, 0)]);
    }
}
