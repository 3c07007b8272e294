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

/// The function of the kernel that kills, without which a mark of a victim is no kill.
const KILLER: &str = "__oom_kill_process";

impl OomLimits {
    /// As the programs want it.
    pub(super) fn config(self) -> OomConfig {
        let (killer_begin, killer_end) = std::fs::File::open("/proc/kallsyms")
            .ok()
            .and_then(|file| extent(BufReader::new(file), KILLER))
            .unwrap_or_else(|| {
                tracing::debug!(
                    "the kernel does not tell where {KILLER} is: a process that was exiting anyway \
                     can be taken for one that was killed"
                );
                (0, 0)
            });
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
        }
    }
}

/// Where a function begins and where the next one does; `None` if the list hides it.
fn extent(list: impl BufRead, function: &str) -> Option<(u64, u64)> {
    let mut begin = None;
    let mut end = u64::MAX;
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
        if name == function {
            begin = Some(address);
        }
    }
    let begin = begin.filter(|&begin| begin != 0)?;
    for address in addresses {
        if address > begin {
            end = end.min(address);
        }
    }
    Some((begin, end))
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
        let found = extent(list.as_bytes(), "wanted");
        assert_eq!(found, Some((0xffff_ffff_8100_2000, 0xffff_ffff_8100_3000)));
        assert_eq!(extent(list.as_bytes(), "absent"), None);
    }

    #[test]
    fn a_list_that_hides_addresses_tells_nothing() {
        let list = "0000000000000000 t wanted\n0000000000000000 t other\n";
        assert_eq!(extent(list.as_bytes(), "wanted"), None);
    }
}
