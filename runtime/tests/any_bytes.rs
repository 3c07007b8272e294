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

/// An entry of a layer, with paths and links that meet each other.
fn entry() -> impl Strategy<Value = Vec<u8>> {
    let path = "(\\./|\\.\\./|/)?(up|f|d|\\.wh\\.)?/?(outside|g|\\.\\.|\\.wh\\.\\.wh\\.\\.opq)?";
    let kind = prop::sample::select(&b"0001255LxgKS7"[..]);
    (path, path, kind, 0..600_usize).prop_map(|(path, link, kind, size)| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_mode(0o755);
        header.set_size(size as u64);
        let raw = header.as_old_mut();
        raw.name[..path.len()].copy_from_slice(path.as_bytes());
        raw.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        let content = path
            .bytes()
            .cycle()
            .take(if path.is_empty() { 0 } else { size });
        let mut bytes: Vec<u8> = header.as_bytes().iter().copied().chain(content).collect();
        bytes.resize(512 + size.next_multiple_of(512), 0);
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

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
    fn any_entries_are_a_layer_or_not(entries in vec(entry(), 0..8), damage in vec((any::<usize>(), any::<u8>()), 0..2)) {
        let mut layer: Vec<u8> = entries.concat();
        for (at, to) in damage.into_iter().filter(|_| !entries.is_empty()) {
            let at = at % layer.len();
            layer[at] = to;
        }
        bodies::layer(&layer);
    }

    #[test]
    fn any_bytes_are_a_journal(data in vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..1200)) {
        bodies::journal(&data);
    }
}
