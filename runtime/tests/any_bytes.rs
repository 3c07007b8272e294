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

/// What lines of traces are made of.
const COLUMNS: [&str; 20] = [
    "app,func,end_timestamp,duration\n",
    "HashOwner,HashApp,HashFunction,Trigger,1,2\n",
    "HashOwner,HashApp,AverageAllocatedMb\n",
    "HashOwner,HashApp,HashFunction,percentile_Average_0,percentile_Average_1,\
     percentile_Average_25,percentile_Average_50,percentile_Average_75,percentile_Average_99,\
     percentile_Average_100\n",
    "a,f,1,2\n",
    "a,f,0.5,1e9\n",
    "o,a,f,timer,4,0\n",
    "o,a,f,1,2,3,4,5,6,7\n",
    "o,a,1e9\n",
    "a,f,1e30,-1\n",
    "o,a,f,http,4000000000,1\n",
    "a,f,NaN,inf\n",
    ",,,\n",
    "\r\n",
    "a",
    ",",
    "0",
    "9",
    "\n",
    "\u{fffd}",
];

/// What recordings are made of.
const RECORDS: [&str; 16] = [
    r#"{"at":AT,"input":"deploy","function":"a","settings":{"min":1,"max":3,"reserved":1,"queue":2,"hold":false,"policy":"POLICY","memory_bytes":9},"renew":true}"#,
    r#"{"at":AT,"input":"deploy","function":"b","settings":{"min":0,"max":9,"reserved":0,"queue":0,"hold":true,"policy":"POLICY","memory_bytes":0},"renew":false}"#,
    r#"{"at":AT,"input":"deploy","function":"b","settings":{"min":4000000000,"max":4294967295,"reserved":9,"queue":1,"hold":true,"policy":"hybrid","memory_bytes":5},"renew":false}"#,
    r#"{"at":AT,"input":"arrive","function":"a","ticket":NUMBER,"deadline":99000000000}"#,
    r#"{"at":AT,"input":"again","function":"a","ticket":NUMBER,"deadline":18446744073709551615}"#,
    r#"{"at":AT,"input":"cancel","function":"b","ticket":NUMBER}"#,
    r#"{"at":AT,"input":"found","function":"a","instance":NUMBER,"busy":true}"#,
    r#"{"at":AT,"input":"started","function":"a","instance":NUMBER}"#,
    r#"{"at":AT,"input":"not_started","function":"a","instance":NUMBER}"#,
    r#"{"at":AT,"input":"served","function":"a","instance":NUMBER,"work":{"secs":18446744073709551615,"nanos":9}}"#,
    r#"{"at":AT,"input":"ended","function":"a","instance":NUMBER,"fault":true}"#,
    r#"{"at":AT,"input":"measured","function":"a","start":{"secs":18446744073709551615,"nanos":0}}"#,
    r#"{"at":AT,"input":"weighed","function":"a","bytes":18446744073709551615}"#,
    r#"{"at":AT,"input":"scheduled","function":"b","instances":4294967295}"#,
    r#"{"at":AT,"input":"budget","bytes":20}"#,
    r#"{"at":AT,"input":"remove","function":"a"}"#,
];

/// A manifest: its numbers and bytes are changed below.
const MANIFEST: &str = r#"{"format":1,"key":{"function":"shop","version":7,"config":"DIGEST"},"generation":3,"kind":"template","created_unix_ms":1,"producer":"hearth 0.1.0","state_format":1,"cpu":{"vendor":"AuthenticAMD","features":{"00000001.ecx":15,"00000001.edx":4294967295}},"regions":[{"guest":0,"offset":0,"bytes":8192},{"guest":4294967296,"offset":8192,"bytes":4096}],"state":{"digest":"DIGEST","bytes":9},"memory":{"digest":"DIGEST","bytes":12288},"disk":{"digest":"DIGEST","bytes":1}}"#;

/// What numbers are changed to.
const NUMBERS: [&str; 12] = [
    "0",
    "1",
    "4095",
    "4096",
    "8192",
    "12288",
    "65535",
    "1099511627776",
    "18446744073709547520",
    "18446744073709551615",
    "-1",
    "1e9",
];

/// The manifest with some of its numbers and some of its bytes changed.
fn manifest(numbers: &[(usize, usize)], damage: &[(usize, u8)]) -> Vec<u8> {
    let digest = "0123456789abcdef".repeat(4);
    let whole = MANIFEST.replace("DIGEST", &digest);
    let mut parts: Vec<String> = Vec::new();
    // Numbers stand between a colon and a comma or the end of an object.
    for part in whole.split_inclusive([':', ',', '}']) {
        parts.push(part.to_owned());
    }
    let mut places: Vec<usize> = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        if part.starts_with(|first: char| first.is_ascii_digit()) {
            places.push(index);
        }
    }
    for (place, to) in numbers {
        let part = &mut parts[places[place % places.len()]];
        let end = part.trim_start_matches(|ch: char| ch.is_ascii_digit());
        *part = format!("{}{end}", NUMBERS[to % NUMBERS.len()]);
    }
    let mut bytes = parts.concat().into_bytes();
    for (at, to) in damage {
        let at = at % bytes.len();
        bytes[at] = *to;
    }
    bytes
}

#[test]
fn the_manifest_that_is_changed_below_is_one() {
    let bytes = manifest(&[], &[]);
    hearth_runtime::snapshot::Manifest::parse(&bytes).expect("a manifest");
}

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

    #[test]
    fn any_bytes_are_a_manifest_or_not(data in vec(any::<u8>(), 0..600)) {
        bodies::manifest(&data);
    }

    #[test]
    fn a_manifest_with_changes_is_one_or_not(
        numbers in vec((any::<usize>(), any::<usize>()), 0..4),
        damage in vec((any::<usize>(), any::<u8>()), 0..2),
    ) {
        bodies::manifest(&manifest(&numbers, &damage));
    }

    #[test]
    fn any_bytes_are_a_trace_or_not(data in vec(any::<u8>(), 0..600)) {
        bodies::azure(&data);
        bodies::recording(&data);
    }

    #[test]
    fn pieces_of_tables_are_a_trace_or_not(kind: u8, first in 0..4_usize, parts in vec(0..COLUMNS.len(), 0..12)) {
        let parts = std::iter::once(first).chain(parts).map(|part| COLUMNS[part]);
        let data: Vec<u8> = std::iter::once(kind).chain(parts.flat_map(str::bytes)).collect();
        bodies::azure(&data);
    }

    #[test]
    fn records_in_any_order_are_a_recording_that_a_fleet_takes(
        records in vec((0..RECORDS.len(), prop_oneof![40 => 0..9_u64, 1 => any::<u64>()], 1..4_u64), 0..40),
        policy in prop::sample::select(hearth_runtime::pool::policy::Choice::ALL.to_vec()),
    ) {
        let mut text = "{\"hearth_recording\":1}\n".to_owned();
        for (record, at, number) in records {
            let record = RECORDS[record].replace("AT", &at.to_string());
            let record = record.replace("NUMBER", &number.to_string());
            text += &record.replace("POLICY", &policy.to_string());
            text.push('\n');
        }
        bodies::recording(text.as_bytes());
    }
}
