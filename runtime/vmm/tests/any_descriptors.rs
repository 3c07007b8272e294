//! The body of the fuzz target of the devices, on bytes that look like queues.

#[path = "../../../fuzz/vmm.rs"]
mod bodies;

use proptest::collection::vec;
use proptest::prelude::*;

/// A descriptor: in memory or not, short or long, of all kinds.
fn descriptor() -> impl Strategy<Value = Vec<u8>> {
    let address = prop_oneof![Just(0x8_0000_u64), 0..0x12_0000_u64, any::<u64>()];
    let length = prop_oneof![
        Just(16_u32),
        Just(1),
        Just(512),
        0..70_000_u32,
        any::<u32>()
    ];
    (address, length, 0..8_u16, 0..8_u16).prop_map(|(address, length, flags, next)| {
        let mut bytes = address.to_le_bytes().to_vec();
        bytes.extend(length.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        bytes
    })
}

/// What a driver writes to a register, its descriptors, and what it has made available.
fn round() -> impl Strategy<Value = Vec<u8>> {
    let ring = vec(0..8_u16, 8);
    let descriptors = vec(descriptor(), 8);
    (any::<[u8; 8]>(), descriptors, 0..10_u16, ring).prop_map(
        |(register, descriptors, available, ring)| {
            let mut bytes = register.to_vec();
            bytes.extend(descriptors.concat());
            bytes.resize(8 + 0x1000, 0);
            bytes.extend([0, 0]);
            bytes.extend(available.to_le_bytes());
            bytes.extend(ring.into_iter().flat_map(u16::to_le_bytes));
            bytes.resize(0x2000, 0);
            bytes
        },
    )
}

proptest! {
    #[test]
    fn any_descriptors_are_worked_through(rounds in vec(round(), 1..4)) {
        bodies::descriptors(&rounds.concat());
    }

    #[test]
    fn any_bytes_are_worked_through(bytes in vec(any::<u8>(), 0..20_000)) {
        bodies::descriptors(&bytes);
    }
}
