//! The bodies of the fuzz targets, on any bytes.

use hearth_abi::{Kind, MARK_BYTES, OomRecord, TEXT_BYTES};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::{bodies, captures};

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_marks_fold_to_contiguous_phases(data in vec(any::<u8>(), 0..1200)) {
        bodies::fold(&data);
    }

    #[test]
    fn marks_that_look_like_a_start_do_too(data in vec(prop_oneof![0_u8..8, any::<u8>()], 0..900)) {
        bodies::fold(&data);
    }

    #[test]
    fn any_bytes_are_a_capture_or_not(data in vec(any::<u8>(), 0..1600)) {
        captures::capture(&data);
        captures::audit(&data);
    }

    #[test]
    fn records_that_meet_are_captures(data in vec(prop_oneof![0_u8..6, any::<u8>()], 0..1600)) {
        captures::capture(&data);
    }

    #[test]
    fn any_bytes_decode_or_say_why_not(data in vec(any::<u8>(), 0..TEXT_BYTES + 2)) {
        bodies::decode(&data);
    }

    #[test]
    fn records_of_the_right_length_decode(kind in prop::sample::select(&Kind::ALL[..]), fill in any::<u8>()) {
        let mut data = vec![fill; if kind.is_text() { TEXT_BYTES } else { MARK_BYTES }];
        data[..2].copy_from_slice(&(kind as u16).to_ne_bytes());
        prop_assert!(hearth::kernel::event::Event::decode(&data).is_ok());
        bodies::decode(&data);
    }

    #[test]
    fn records_of_an_oom_kill_decode_at_their_length_alone(
        record in prop::sample::select(&OomRecord::ALL[..]),
        fill in any::<u8>(),
        cut in 0_usize..16,
    ) {
        let mut data = vec![fill; record.bytes() - cut];
        data[..2].copy_from_slice(&(record as u16).to_ne_bytes());
        prop_assert_eq!(hearth::kernel::event::Event::decode(&data).is_ok(), cut == 0);
        bodies::decode(&data);
    }
}
