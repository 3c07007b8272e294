//! A small reader of the running kernel's type information.
//!
//! aya's reader gives type ids by name, not where a member lies; a whole parse of vmlinux costs
//! hundreds of milliseconds and tens of megabytes. This one walks the types once, keeps where
//! each begins, and looks into the few structures that are asked for.

use std::{collections::HashMap, fs, path::Path};

use thiserror::Error;

/// Where a kernel publishes its types.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_RESTRICT: u32 = 11;
const KIND_FUNC: u32 = 12;
const KIND_TYPE_TAG: u32 = 18;
const HEADER_BYTES: usize = 24;
const TYPE_BYTES: usize = 12;
/// Anonymous members nest a few levels; a loop in a broken file must end.
const DEPTH: u32 = 16;

/// Type information that cannot be used.
#[derive(Debug, Error)]
pub enum BtfError {
    /// The file cannot be read.
    #[error("{path}: {source}; the kernel must be built with CONFIG_DEBUG_INFO_BTF=y")]
    Read {
        /// File.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The bytes are not type information.
    #[error("kernel type information is damaged: {0}")]
    Format(&'static str),
}

/// Where a member lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Offset from the structure's begin, in bits.
    pub bit_offset: u32,
    /// Width of a bit field in bits; 0 of any other member.
    pub bits: u32,
}

/// The types of a kernel.
#[derive(Debug)]
pub struct Btf {
    bytes: Vec<u8>,
    /// Begin of the type with id `n + 1`.
    types: Vec<u32>,
    strings: usize,
    /// Structures and enumerations by name, first definition.
    named: HashMap<String, u32>,
    functions: std::collections::HashSet<String>,
    traces: std::collections::HashSet<String>,
}

impl Btf {
    /// Of the running kernel.
    pub fn of_running_kernel() -> Result<Self, BtfError> {
        Self::read(Path::new(VMLINUX))
    }

    /// Of a file.
    pub fn read(path: &Path) -> Result<Self, BtfError> {
        let bytes = fs::read(path).map_err(|source| BtfError::Read {
            path: path.display().to_string(),
            source,
        })?;
        Self::parse(bytes)
    }

    /// Of bytes.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, BtfError> {
        let field = |at| u32_at(&bytes, at).ok_or(BtfError::Format("the header is cut"));
        if bytes.get(..2) != Some(&MAGIC.to_ne_bytes()) {
            return Err(BtfError::Format("the magic number is wrong"));
        }
        let header = field(4)? as usize;
        let (type_offset, type_bytes) = (field(8)? as usize, field(12)? as usize);
        let (string_offset, string_bytes) = (field(16)? as usize, field(20)? as usize);
        if header < HEADER_BYTES {
            return Err(BtfError::Format("the header is too short"));
        }
        let begin = header.saturating_add(type_offset);
        let end = begin.saturating_add(type_bytes);
        let strings = header.saturating_add(string_offset);
        if end > bytes.len() || strings.saturating_add(string_bytes) > bytes.len() {
            return Err(BtfError::Format("a section lies outside of the file"));
        }
        let mut btf = Self {
            bytes,
            types: Vec::new(),
            strings,
            named: HashMap::new(),
            functions: std::collections::HashSet::new(),
            traces: std::collections::HashSet::new(),
        };
        btf.walk(begin, end)?;
        Ok(btf)
    }

    fn walk(&mut self, begin: usize, end: usize) -> Result<(), BtfError> {
        let mut at = begin;
        while at < end {
            let name = u32_at(&self.bytes, at).ok_or(BtfError::Format("a type is cut"))?;
            let info = u32_at(&self.bytes, at + 4).ok_or(BtfError::Format("a type is cut"))?;
            let position =
                u32::try_from(at).map_err(|_| BtfError::Format("the file is too large"))?;
            self.types.push(position);
            let id = u32::try_from(self.types.len())
                .map_err(|_| BtfError::Format("there are too many types"))?;
            match kind_of(info) {
                KIND_STRUCT | KIND_ENUM if name != 0 => {
                    if let Some(name) = self.string(name) {
                        let name = name.to_owned();
                        self.named.entry(name).or_insert(id);
                    }
                }
                KIND_FUNC => {
                    if let Some(name) = self.string(name) {
                        let name = name.to_owned();
                        self.functions.insert(name);
                    }
                }
                KIND_TYPEDEF => {
                    if let Some(name) = self.string(name).and_then(|n| n.strip_prefix("btf_trace_"))
                    {
                        let name = name.to_owned();
                        self.traces.insert(name);
                    }
                }
                _ => {}
            }
            let extra = extra_bytes(info).ok_or(BtfError::Format("a type is of unknown kind"))?;
            at = at.saturating_add(TYPE_BYTES).saturating_add(extra);
        }
        Ok(())
    }

    /// Whether the kernel describes a function of this name, so that fentry can find it.
    #[must_use]
    pub fn has_function(&self, name: &str) -> bool {
        self.functions.contains(name)
    }

    /// Whether the kernel has a tracepoint of this name.
    #[must_use]
    pub fn has_tracepoint(&self, name: &str) -> bool {
        self.traces.contains(name)
    }

    /// Where `structure.member[.member...]` lies; anonymous structures and unions are looked
    /// into. `None` if the kernel has no such member.
    #[must_use]
    pub fn member(&self, path: &str) -> Option<Member> {
        let mut words = path.split('.');
        let mut id = *self.named.get(words.next()?)?;
        let mut found = Member {
            bit_offset: 0,
            bits: 0,
        };
        for word in words {
            let (member, next) = self.member_of(id, word, DEPTH)?;
            found = Member {
                bit_offset: found.bit_offset.checked_add(member.bit_offset)?,
                bits: member.bits,
            };
            id = next;
        }
        Some(found)
    }

    fn member_of(&self, id: u32, wanted: &str, depth: u32) -> Option<(Member, u32)> {
        let depth = depth.checked_sub(1)?;
        let (at, info) = self.resolved(id)?;
        if !matches!(kind_of(info), KIND_STRUCT | KIND_UNION) {
            return None;
        }
        for index in 0..vlen_of(info) {
            let entry = at + TYPE_BYTES + index * 12;
            let name = self.string(u32_at(&self.bytes, entry)?)?;
            let of = u32_at(&self.bytes, entry + 4)?;
            let raw = u32_at(&self.bytes, entry + 8)?;
            let member = if info >> 31 == 1 {
                Member {
                    bit_offset: raw & 0x00ff_ffff,
                    bits: raw >> 24,
                }
            } else {
                Member {
                    bit_offset: raw,
                    bits: 0,
                }
            };
            if name == wanted {
                return Some((member, of));
            }
            if name.is_empty()
                && let Some((inner, next)) = self.member_of(of, wanted, depth)
            {
                let bit_offset = member.bit_offset.checked_add(inner.bit_offset)?;
                return Some((
                    Member {
                        bit_offset,
                        bits: inner.bits,
                    },
                    next,
                ));
            }
        }
        None
    }

    /// The value of an enumerator.
    #[must_use]
    pub fn enumerator(&self, enumeration: &str, wanted: &str) -> Option<u32> {
        let (at, info) = self.resolved(*self.named.get(enumeration)?)?;
        if kind_of(info) != KIND_ENUM {
            return None;
        }
        (0..vlen_of(info)).find_map(|index| {
            let entry = at + TYPE_BYTES + index * 8;
            let name = self.string(u32_at(&self.bytes, entry)?)?;
            (name == wanted).then(|| u32_at(&self.bytes, entry + 4))?
        })
    }

    /// Begin and info of a type, modifiers and typedefs left behind.
    fn resolved(&self, mut id: u32) -> Option<(usize, u32)> {
        for _ in 0..DEPTH {
            let at = *self.types.get(id.checked_sub(1)? as usize)? as usize;
            let info = u32_at(&self.bytes, at + 4)?;
            match kind_of(info) {
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_TYPE_TAG => {
                    id = u32_at(&self.bytes, at + 8)?;
                }
                _ => return Some((at, info)),
            }
        }
        None
    }

    fn string(&self, offset: u32) -> Option<&str> {
        let tail = self
            .bytes
            .get(self.strings.checked_add(offset as usize)?..)?;
        let end = tail.iter().position(|&byte| byte == 0)?;
        std::str::from_utf8(&tail[..end]).ok()
    }
}

fn kind_of(info: u32) -> u32 {
    (info >> 24) & 0x1f
}

fn vlen_of(info: u32) -> usize {
    (info & 0xffff) as usize
}

/// Bytes that follow a type's first twelve.
fn extra_bytes(info: u32) -> Option<usize> {
    Some(match kind_of(info) {
        // INT, VAR, DECL_TAG
        1 | 14 | 17 => 4,
        // PTR, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FLOAT, TYPE_TAG
        2 | 7..=12 | 16 | 18 => 0,
        // ARRAY
        3 => 12,
        // STRUCT, UNION, DATASEC, ENUM64
        4 | 5 | 15 | 19 => vlen_of(info) * 12,
        // ENUM, FUNC_PROTO
        6 | 13 => vlen_of(info) * 8,
        _ => return None,
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(four.try_into().ok()?))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn damaged_bytes_are_refused_or_read_but_never_panic() {
        let whole = fs::read(VMLINUX).unwrap();
        let whole = &whole[..whole.len().min(200_000)];
        for cut in (0..whole.len()).step_by(997) {
            let _ = Btf::parse(whole[..cut].to_vec());
        }
        let mut seed = 0x9e37_79b9_u32;
        for _ in 0..200 {
            let mut bytes = whole.to_vec();
            for _ in 0..8 {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let at = seed as usize % bytes.len();
                bytes[at] ^= (seed >> 24) as u8 | 1;
            }
            if let Ok(btf) = Btf::parse(bytes) {
                let _ = btf.member("task_struct.pid");
                let _ = btf.enumerator("cgroup_subsys_id", "memory_cgrp_id");
            }
        }
    }

    #[test]
    fn members_of_the_running_kernel_are_found() {
        let btf = Btf::of_running_kernel().unwrap();
        assert!(btf.member("task_struct.pid").unwrap().bit_offset > 0);
        assert_eq!(btf.member("list_head.prev").unwrap().bit_offset, 64);
        assert_eq!(btf.member("task_struct.in_iowait").unwrap().bits, 1);
        assert_eq!(btf.member("task_struct.no_such_member"), None);
        assert!(btf.has_tracepoint("sched_process_exec"));
        assert!(!btf.has_tracepoint("no_such_tracepoint"));
        assert!(
            btf.enumerator("cgroup_subsys_id", "memory_cgrp_id")
                .is_some()
        );
    }
}
