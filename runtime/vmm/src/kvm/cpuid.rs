//! What a virtual processor is told to be, and what it is then.

use std::collections::BTreeMap;

use hearth_runtime::snapshot::Cpu;
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

/// Bits of ECX, by leaf and index, that are not the host's to have: they tell that the guest's kernel has
/// switched something on (OSXSAVE, OSPKE), and that there is a hypervisor.
const NOT_THE_HOSTS: [((u32, u32), u32); 2] = [((0x1, 0), 1 << 27 | 1 << 31), ((0x7, 0), 1 << 4)];

/// What the only processor of a machine is told: all that the host can do.
pub(crate) fn of_new(host: &[kvm_cpuid_entry2]) -> Vec<kvm_cpuid_entry2> {
    const APIC_ID: u32 = 0xff << 24;
    const THREADS: u32 = 0xff << 16;
    // Without it, Linux takes no clock from KVM and finds none of its own here.
    const HYPERVISOR: u32 = 1 << 31;
    let mut all = host.to_vec();
    for entry in &mut all {
        match entry.function {
            // Number 0 of 1.
            0x1 => {
                entry.ebx = entry.ebx & !(APIC_ID | THREADS) | 1 << 16;
                entry.ecx |= HYPERVISOR;
            }
            0xb | 0x1f | 0x8000_001e => entry.edx = 0,
            _ => {}
        }
    }
    all
}

/// Vendor and features.
pub(crate) fn cpu(all: &[kvm_cpuid_entry2]) -> Cpu {
    let mut features = BTreeMap::new();
    for (leaf, index, are_features) in FEATURES {
        let mut words = registers(all, leaf, index);
        let of_guest = NOT_THE_HOSTS.iter().find(|of| of.0 == (leaf, index));
        words[2] &= !of_guest.map_or(0, |(_, bits)| *bits);
        for which in 0..REGISTERS.len() {
            if are_features[which] && words[which] != 0 {
                let name = format!("{leaf:08x}.{index}.{}", REGISTERS[which]);
                features.insert(name, words[which]);
            }
        }
    }
    let vendor = vendor(all).escape_ascii().to_string();
    Cpu { vendor, features }
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
    fn a_host_with_fewer_features_is_told_by_them_and_what_a_kernel_switches_on_is_none() {
        let few = cpu(&processor(b"AuthenticAMD", 0x20));
        let many = cpu(&processor(b"AuthenticAMD", 0x1_0020));
        assert_eq!(few.vendor, "AuthenticAMD");
        assert_eq!(few.features.get("00000001.0.ecx"), Some(&1));
        assert!(few.check(&many).is_ok());
        let mut switched_on = processor(b"AuthenticAMD", 0x20);
        switched_on[2].ecx = 1 << 4;
        assert!(cpu(&switched_on).check(&few).is_ok());
        let told = many.check(&few).map_err(|refusal| refusal.field);
        assert_eq!(told, Err("cpu.features.00000007.0.ebx".to_owned()));
        let other = cpu(&processor(b"GenuineIntel", 0x20));
        assert!(few.check(&other).is_err());
    }

    #[test]
    fn a_processor_is_the_first_of_one_whatever_it_was_asked_on() {
        let new = of_new(&processor(b"AuthenticAMD", 0));
        assert_eq!(registers(&new, 1, 0)[1], 0x0001_0800);
    }
}
