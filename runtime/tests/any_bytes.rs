//! The bodies of the fuzz targets, on any bytes and on bytes that look right.

#[path = "../../fuzz/runtime.rs"]
mod bodies;

use hearth_runtime::channel::Frame;
use hearth_runtime::id::Epoch;
use proptest::collection::vec;
use proptest::prelude::*;

/// What requests are made of.
const PARTS: [&str; 22] = [
    "GET ",
    "POST ",
    "/2018-06-01/runtime/invocation/next",
    "/2018-06-01/runtime/invocation/00000000-0000-0000-0000-000000000001/response",
    "/2018-06-01/runtime/init/error",
    " HTTP/1.1\r\n",
    " HTTP/1.0\r\n",
    "Host: x\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 70\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Expect: 100-continue\r\n",
    "Connection: close\r\n",
    "\r\n",
    "hello",
    "5\r\nhello\r\n",
    "2\r\n",
    "0\r\n\r\n",
    "0\r\na: b\r\n\r\n",
    "\r",
    "\n",
    " ",
];

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
    fn any_bytes_are_requests_or_not(data in vec(any::<u8>(), 0..600)) {
        bodies::runtime_api(&data);
    }

    #[test]
    fn pieces_of_requests_in_any_order_are_requests_or_not(cut: u8, parts in vec(0..PARTS.len(), 0..24)) {
        let parts = parts.into_iter().map(|part| PARTS[part]);
        let data: Vec<u8> = std::iter::once(cut).chain(parts.flat_map(str::bytes)).collect();
        bodies::runtime_api(&data);
    }

    #[test]
    fn any_bytes_are_a_journal(data in vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..1200)) {
        bodies::journal(&data);
    }
}
