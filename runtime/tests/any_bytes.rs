//! The bodies of the fuzz targets, on any bytes and on bytes that look right.

#[path = "../../fuzz/runtime.rs"]
mod bodies;

use hearth_runtime::channel::Frame;
use hearth_runtime::id::Epoch;
use proptest::collection::vec;
use proptest::prelude::*;

/// Frames of any heads, with some bytes changed.
fn damaged(bodies: Vec<(String, Vec<u8>)>, damage: &[(usize, u8)]) -> Vec<u8> {
    let mut bytes = vec![7];
    for (head, body) in bodies {
        let mut frame = Frame::new(Epoch(1), head);
        frame.body = body;
        frame.encode(&mut bytes).expect("small");
    }
    for (at, to) in damage {
        let at = at % bytes.len();
        bytes[at] = *to;
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_frames_or_not(data in vec(any::<u8>(), 0..1200)) {
        bodies::channel(&data);
    }

    #[test]
    fn frames_with_damage_are_frames_or_not(
        frames in vec((".{0,20}", vec(any::<u8>(), 0..90)), 1..6),
        damage in vec((any::<usize>(), any::<u8>()), 0..3),
    ) {
        bodies::channel(&damaged(frames, &damage));
    }

    #[test]
    fn any_bytes_are_a_journal(data in vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..1200)) {
        bodies::journal(&data);
    }
}
