//! What a virtual processor is told to be, and whether a host can be that.

use std::fmt;

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

/// Leaves whose bits are features, by register; what is not named there is sizes and names.
const FEATURES: [(u32, u32, [bool; 4]); 8] = [
    (0x1, 0, [false, false, true, true]),
    (0x7, 0, [false, true, true, true]),
    (0x7, 1, [true, true, true, true]),
    (0xd, 0, [true, false, false, true]),
    (0xd, 1, [true, false, true, true]),
    (0x8000_0001, 0, [false, false, true, true]),
    (0x8000_0008, 0, [false, true, false, false]),
    (0x4000_0001, 0, [true, false, false, false]),
];
const REGISTERS: [&str; 4] = ["eax", "ebx", "ecx", "edx"];

/// Bits of the first leaf that are not the host's to have: they tell that the guest's kernel has
/// switched something on, and that there is a hypervisor.
const NOT_THE_HOSTS: u32 = 1 << 27 | 1 << 31;

/// What a processor had that this host's has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Another maker.
    Vendor {
        /// That of the processor.
        wanted: [u8; 12],
        /// That of this host's.
        found: [u8; 12],
    },
    /// Features.
    Features {
        /// Of CPUID.
        leaf: u32,
        /// Its part.
        index: u32,
        /// As it is called.
        register: &'static str,
        /// Those that are missing.
        bits: u32,
    },
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vendor { wanted, found } => {
                let text = |bytes: &[u8; 12]| bytes.escape_ascii().to_string();
                write!(f, "vendor {}, and here it is {}", text(wanted), text(found))
            }
            Self::Features {
                leaf,
                index,
                register,
                bits,
            } => write!(
                f,
                "features {bits:#010x} of CPUID {leaf:#x}.{index} {register}, which this host lacks"
            ),
        }
    }
}

/// What the only processor of a machine is told: all that the host can do.
pub(crate) fn of_new(host: &[kvm_cpuid_entry2]) -> Vec<kvm_cpuid_entry2> {
    const APIC_ID: u32 = 0xff << 24;
    const THREADS: u32 = 0xff << 16;
    let mut all = host.to_vec();
    for entry in &mut all {
        match entry.function {
            // Number 0 of 1.
            0x1 => entry.ebx = entry.ebx & !(APIC_ID | THREADS) | 1 << 16,
            0xb | 0x1f | 0x8000_001e => entry.edx = 0,
            _ => {}
        }
    }
    all
}

/// The first thing of a processor that this host's cannot do.
pub(crate) fn missing(wanted: &[kvm_cpuid_entry2], host: &[kvm_cpuid_entry2]) -> Option<Missing> {
    let makers = (vendor(wanted), vendor(host));
    if makers.0 != makers.1 {
        let (wanted, found) = makers;
        return Some(Missing::Vendor { wanted, found });
    }
    FEATURES.iter().find_map(|&(leaf, index, are_features)| {
        let wanted = registers(wanted, leaf, index);
        let found = registers(host, leaf, index);
        (0..REGISTERS.len())
            .filter(|&which| are_features[which])
            .find_map(|which| {
                let mut bits = wanted[which] & !found[which];
                if leaf == 1 && which == 2 {
                    bits &= !NOT_THE_HOSTS;
                }
                let register = REGISTERS[which];
                (bits != 0).then_some(Missing::Features {
                    leaf,
                    index,
                    register,
                    bits,
                })
            })
    })
}

fn vendor(all: &[kvm_cpuid_entry2]) -> [u8; 12] {
    let [_, b, c, d] = registers(all, 0, 0);
    let mut name = [0; 12];
    for (part, register) in name.chunks_exact_mut(4).zip([b, d, c]) {
        part.copy_from_slice(&register.to_le_bytes());
    }
    name
}

/// EAX, EBX, ECX and EDX of a leaf; all zero where there is no such.
pub(crate) fn registers(all: &[kvm_cpuid_entry2], leaf: u32, index: u32) -> [u32; 4] {
    let has_index = |entry: &kvm_cpuid_entry2| {
        let matters = entry.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX != 0;
        if matters {
            entry.index == index
        } else {
            index == 0
        }
    };
    let found = all
        .iter()
        .find(|entry| entry.function == leaf && has_index(entry));
    found.map_or([0; 4], |entry| [entry.eax, entry.ebx, entry.ecx, entry.edx])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(function: u32, index: u32, registers: [u32; 4]) -> kvm_cpuid_entry2 {
        let [eax, ebx, ecx, edx] = registers;
        let flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
        kvm_cpuid_entry2 {
            function,
            index,
            flags,
            eax,
            ebx,
            ecx,
            edx,
            ..Default::default()
        }
    }

    fn processor(name: &[u8; 12], extended: u32) -> Vec<kvm_cpuid_entry2> {
        let word =
            |at: usize| u32::from_le_bytes([name[at], name[at + 1], name[at + 2], name[at + 3]]);
        vec![
            entry(0, 0, [0x10, word(0), word(8), word(4)]),
            entry(1, 0, [0x0080_0f82, 0x0302_0800, 0x8000_0001 | 1 << 27, 1]),
            entry(7, 0, [1, extended, 0, 0]),
        ]
    }

    #[test]
    fn a_host_with_more_features_will_do_and_one_with_fewer_is_told_by_them() {
        let (few, many) = (
            processor(b"AuthenticAMD", 0x20),
            processor(b"AuthenticAMD", 0x10020),
        );
        assert_eq!(missing(&few, &many), None);
        let found = missing(&many, &few);
        let bits = Missing::Features {
            leaf: 7,
            index: 0,
            register: "ebx",
            bits: 0x10000,
        };
        assert_eq!(found, Some(bits));
        let intel = processor(b"GenuineIntel", 0x20);
        let told = missing(&few, &intel).map(|missing| missing.to_string());
        assert_eq!(
            told.as_deref(),
            Some("vendor AuthenticAMD, and here it is GenuineIntel")
        );
    }

    #[test]
    fn a_processor_is_the_first_of_one_whatever_it_was_asked_on() {
        let new = of_new(&processor(b"AuthenticAMD", 0));
        assert_eq!(registers(&new, 1, 0)[1], 0x0001_0800);
        assert_eq!(missing(&new, &processor(b"AuthenticAMD", 0)), None);
    }
}
