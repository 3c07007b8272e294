//! What the fuzz targets of the runtime do with their bytes, and what must hold whatever these
//! are. The runtime's tests run the same without a fuzzer.

use std::path::Path;

use hearth_runtime::channel::{Decoder, Frame};
use hearth_runtime::id::RequestId;
use hearth_runtime::invoke::http::{HttpError, Parser, Request};
use hearth_runtime::invoke::{Effect, Invocation, Session};
use hearth_runtime::journal;
use hearth_runtime::pool::simulate::azure_2019::Beside;
use hearth_runtime::pool::simulate::{Reading, Trace, azure_2021, recorded};
use hearth_runtime::pool::{Fleet, Input};
use hearth_runtime::rootfs::{self, Limits};
use hearth_runtime::snapshot::{MAX_MANIFEST, MAX_STATE, Manifest};

/// Any bytes are frames or an error, however they are cut; and what was read is written as it was.
pub(crate) fn channel(data: &[u8]) {
    let (cut, bytes) = data.split_first().unwrap_or((&0, &[]));
    let mut decoder = Decoder::default();
    let mut whole = Decoder::default();
    whole.feed(bytes);
    for part in bytes.chunks(usize::from(*cut).max(1)) {
        decoder.feed(part);
        // Cut or not, the same comes out, in the same order.
        while let Ok(Some(frame)) = decoder.take::<serde_json::Value>() {
            assert_eq!(whole.take().ok().flatten().as_ref(), Some(&frame));
            check(&frame);
        }
    }
    assert_eq!(decoder.end().is_ok(), whole.end().is_ok());
    assert!(
        decoder.held() <= bytes.len() + 1024 * 1024,
        "sizes that are only claimed cost nothing"
    );
}

fn check(frame: &Frame<serde_json::Value>) {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes).expect("what fitted fits");
    let mut decoder = Decoder::default();
    decoder.feed(&bytes);
    assert_eq!(decoder.take().ok().flatten().as_ref(), Some(frame));
}

/// Any bytes are a journal, in which a line that is whole is not lost because of another.
pub(crate) fn journal(data: &[u8]) {
    let lines = journal::read(data);
    let mut more = data.to_vec();
    more.extend_from_slice(b"\n00000000 no line\n");
    let with_another = journal::read(&more);
    assert_eq!(with_another.lives, lines.lives);
    assert_eq!(with_another.damaged, lines.damaged + 1);
}

/// What a function sends to the Runtime API is requests or an error, however it is cut; each is
/// replied to once at most, and its bodies keep to the limit.
pub(crate) fn runtime_api(data: &[u8]) {
    const LIMIT: usize = 64;
    let (cut, bytes) = data.split_first().unwrap_or((&0, &[]));
    let cut = usize::from(*cut).max(1);
    let (whole, end) = requests(bytes, usize::MAX, LIMIT);
    let (in_pieces, end_in_pieces) = requests(bytes, cut, LIMIT);
    assert_eq!((&whole, &end), (&in_pieces, &end_in_pieces));
    let mut session = Session::new();
    for (connection, request) in (0_usize..).zip(whole) {
        assert!(request.body.as_ref().is_none_or(|body| body.len() <= LIMIT));
        let effects = session.call(connection, request);
        let mine =
            |effect: &&Effect<usize>| matches!(effect, Effect::Reply(to, _) if *to == connection);
        assert!(effects.iter().filter(mine).count() <= 1);
        let _ = session.invoke(Invocation {
            request: RequestId::from_u128(1),
            ..Invocation::default()
        });
    }
}

fn requests(bytes: &[u8], cut: usize, limit: usize) -> (Vec<Request>, Option<HttpError>) {
    let mut parser = Parser::new(limit);
    let mut requests = Vec::new();
    for part in bytes.chunks(cut) {
        parser.feed(part);
        loop {
            match parser.take() {
                Ok(Some(request)) => requests.push(request),
                Ok(None) => break,
                Err(error) => return (requests, Some(error)),
            }
        }
    }
    (requests, None)
}

/// Any bytes are a layer or are refused; either way nothing outside of its directory changes, and
/// its limits hold.
pub(crate) fn layer(data: &[u8]) {
    const LIMITS: Limits = Limits {
        bytes: 64 * 1024,
        entries: 32,
    };
    let folder = tempfile::tempdir().expect("a folder");
    let outside = folder.path().join("outside");
    let root = folder.path().join("root");
    std::fs::write(&outside, "precious").expect("a file");
    std::fs::create_dir(&root).expect("a directory");
    // Somebody's layer below had links that lead out.
    for (name, target) in [("up", ".."), ("f", "../outside")] {
        std::os::unix::fs::symlink(target, root.join(name)).expect("a link");
    }
    let directory = std::fs::File::open(&root).expect("the directory");
    if let Ok(applied) = rootfs::apply(data, directory.into(), LIMITS) {
        assert!(applied.bytes <= LIMITS.bytes && applied.entries <= LIMITS.entries);
    }
    let names = std::fs::read_dir(folder.path())
        .expect("the folder")
        .count();
    assert_eq!(names, 2, "root and outside, nothing new");
    let content = std::fs::read_to_string(&outside).expect("the file");
    assert_eq!(content, "precious");
}

/// Any bytes are a manifest of a snapshot or are refused; what is one promises no more than may be
/// read, has its memory in pieces that do not meet, and is written as it was read.
pub(crate) fn manifest(data: &[u8]) {
    let Ok(manifest) = Manifest::parse(data) else {
        return;
    };
    assert!(data.len() as u64 <= MAX_MANIFEST && manifest.state.bytes <= MAX_STATE);
    let (mut file, mut guest) = (0, 0);
    for region in &manifest.regions {
        assert_eq!(region.offset, file, "one after the other in the file");
        assert!(region.guest >= guest, "and in the guest");
        file += region.bytes;
        guest = region.guest.checked_add(region.bytes).expect("an address");
    }
    assert_eq!(file, manifest.memory.bytes);
    assert!(manifest.bytes() >= file);
    let bytes = manifest.to_bytes().expect("what was read can be written");
    assert_eq!(Manifest::parse(&bytes).expect("and read again"), manifest);
}

/// What is read of a trace at most.
const READING: Reading = Reading {
    share: 1.0,
    requests: 1000,
    start: std::time::Duration::from_millis(500),
    work: std::time::Duration::from_secs(1),
    memory_bytes: 1 << 20,
};

/// Any bytes are a trace of Azure Functions or an error that tells the line, and no larger than it
/// may be.
pub(crate) fn azure(data: &[u8]) {
    let file = Path::new("trace");
    let (kind, bytes) = data.split_first().unwrap_or((&0, &[]));
    if kind % 2 == 0 {
        whole(azure_2021::read(file, bytes, &READING));
        return;
    }
    // What is beside a day is bytes as well: the same ones will do.
    let mut beside = Beside::default();
    let _ = beside.durations(file, bytes);
    let _ = beside.memory(file, bytes);
    whole(beside.invocations(file, bytes, &READING));
}

/// Any bytes are a recording or an error; whatever a fleet is told, it does something; and told the
/// same again, it does the same.
pub(crate) fn recording(data: &[u8]) {
    let file = Path::new("recording");
    whole(recorded::trace(file, data, &READING));
    let _ = recorded::replay(file, data);
    let mut fleet = Fleet::default();
    let mut lines = serde_json::to_string(&recorded::Head::default()).expect("JSON");
    for line in data.split(|byte| *byte == b'\n') {
        let Ok(mut record) = serde_json::from_slice::<recorded::Record>(line) else {
            continue;
        };
        if let Input::Deploy { settings, .. } = &mut record.input {
            settings.max = settings.max.min(64);
        }
        record.actions = fleet.apply(record.at, record.input.clone());
        lines.push('\n');
        lines += &serde_json::to_string(&record).expect("JSON");
    }
    if let Err(error) = recorded::replay(file, lines.as_bytes()) {
        panic!("{error}\n{lines}");
    }
}

fn whole<E: std::fmt::Display>(read: Result<Trace, E>) {
    match read {
        Ok(trace) => {
            let arrivals = trace.arrivals();
            assert!(arrivals.len() <= READING.requests);
            assert!(arrivals.is_sorted_by_key(|one| one.at()));
            let functions = trace.functions().len();
            assert!(arrivals.iter().all(|one| one.function() < functions));
            assert!(arrivals.last().is_none_or(|last| last.at() <= trace.end()));
        }
        Err(error) => assert!(error.to_string().contains(", line "), "{error}"),
    }
}
