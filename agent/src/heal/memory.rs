//! What memory the node has.

use std::fs;

/// Memory of the node, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeMemory {
    /// What programs could have without swapping, as the kernel estimates it.
    pub available: u64,
    /// All that there is.
    pub total: u64,
}

impl NodeMemory {
    /// As it is now; none where the kernel does not say.
    pub(crate) fn now() -> Option<Self> {
        Self::read(&fs::read_to_string("/proc/meminfo").ok()?)
    }

    fn read(text: &str) -> Option<Self> {
        let field = |name: &str| {
            let mut lines = text.lines();
            let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            let kib: u64 = value.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
            kib.checked_mul(1024)
        };
        Some(Self {
            available: field("MemAvailable")?,
            total: field("MemTotal")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_the_kernel_writes_it() {
        let text = "MemTotal:       16316412 kB\nMemFree:  1 kB\nMemAvailable:   12 kB\n";
        let memory = NodeMemory {
            available: 12 << 10,
            total: 16_316_412 << 10,
        };
        assert_eq!(NodeMemory::read(text), Some(memory));
        assert_eq!(NodeMemory::read("MemTotal: 1 kB\n"), None);
        let now = NodeMemory::now().expect("this machine has some");
        assert!(now.available > 0 && now.available <= now.total);
    }
}
