//! Limits as they are written down and sent; [`Limits`] are those that were checked.

use serde::{Deserialize, Serialize};

use crate::cgroup::limits::{Cpu, IoWeight, Memory, Pids};
use crate::cgroup::{Error, Limits};

/// What a sandbox may use. What is left out is without limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// Bytes of memory, page cache and the writable layer included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Bytes above which processes are slowed and pages taken back; seven eighths of the memory
    /// where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_high_bytes: Option<u64>,
    /// Bytes of swap beside the memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap_bytes: Option<u64>,
    /// Thousandths of a processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millicores: Option<u32>,
    /// Processes and threads, `hearth-init` included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
    /// Share of the block devices, against others: 1 to 10000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_weight: Option<u16>,
}

impl Resources {
    /// Checked. All of a sandbox's processes die together where the kernel can do that: half of a
    /// function is of no use.
    pub fn limits(&self) -> Result<Limits, Error> {
        let mut limits = Limits::default().oom_group();
        if let Some(bytes) = self.memory_bytes {
            limits = limits.memory(Memory::new(bytes)?);
        }
        if let Some(bytes) = self.memory_high_bytes {
            limits = limits.memory_high(bytes)?;
        }
        if let Some(bytes) = self.swap_bytes {
            limits = limits.swap(bytes)?;
        }
        if let Some(millicores) = self.cpu_millicores {
            limits = limits.cpu(Cpu::millicores(millicores)?);
        }
        if let Some(count) = self.pids {
            limits = limits.pids(Pids::new(count)?);
        }
        if let Some(weight) = self.io_weight {
            limits = limits.io_weight(IoWeight::new(weight)?);
        }
        Ok(limits)
    }
}
