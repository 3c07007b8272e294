//! What the fuzz targets `capture` and `audit` do with their bytes, and what must hold whatever these are. The
//! agent's tests run the same without a fuzzer.

use hearth::heal::audit;
use hearth::kernel::event::Event;
use hearth::observe::oom::assembler::{About, Assembler, Surroundings};
use hearth::observe::oom::enough::enough;
use hearth::observe::oom::format::{HEADER_BYTES, MAGIC, VERSION, decode, encode};
use hearth::observe::oom::missing::missing;
use hearth::observe::oom::model::{Capture, Known, Reason};
use hearth::observe::oom::sentence;
use hearth::time::Boottime;
use hearth_abi::OomRecord;

/// Any bytes as a file, as the body of one, and as records of kills.
pub(crate) fn capture(data: &[u8]) {
    let _ = decode(data);
    if let Ok(capture) = decode(&with_header(data)) {
        check(&capture);
    }
    records(data);
}

/// Any bytes are an audit up to where its chain breaks: what is before that does not depend on what
/// follows, and what was read is what stands there.
pub(crate) fn audit(data: &[u8]) {
    let read = audit::read(data, None);
    assert!(read.bytes <= data.len());
    assert_eq!(read.last.is_some(), !read.lines.is_empty());
    assert_eq!(read.broken.is_none(), read.bytes == data.len());
    let whole = audit::read(&data[..read.bytes], None);
    assert_eq!((&whole.lines, whole.broken), (&read.lines, None));
    let more = [&data[..read.bytes], b"{\"chain\":\"\n"].concat();
    assert_eq!(audit::read(&more, None).lines, read.lines);
    let mut standing = audit::Standing::default();
    for (line, _) in &read.lines {
        standing.apply(line);
    }
}

/// What holds of every capture: it has a file that is read back, and things to say of it.
fn check(capture: &Capture) {
    let bytes = encode(capture).expect("it is not as long as that");
    let again = decode(&bytes).expect("what was written is read");
    assert_eq!(again.id, capture.id);
    assert_eq!(again.threads, capture.threads);
    assert_eq!(missing(&again).len(), missing(capture).len());
    assert!(!sentence::of(capture).is_empty());
    let _ = enough(capture).map(|enough| assert!(enough.try_bytes >= enough.at_least_bytes));
}

/// A file whose header is right and whose body is `body`.
fn with_header(body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::from(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(32_u16.to_le_bytes());
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend((body.len() as u64).to_le_bytes());
    bytes.extend(crc32fast::hash(body).to_le_bytes());
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    assert_eq!(bytes.len(), HEADER_BYTES);
    bytes.extend(body);
    bytes
}

/// Records full of these bytes, in any order, give captures that hold what holds of all.
fn records(data: &[u8]) {
    let mut assembler = Assembler::new(About::default());
    let mut now = 0;
    for chunk in data.chunks(24).take(64) {
        let kind = OomRecord::ALL[usize::from(chunk[0]) % OomRecord::ALL.len()];
        let mut bytes: Vec<u8> = chunk.iter().copied().cycle().take(kind.bytes()).collect();
        bytes[..2].copy_from_slice(&(kind as u16).to_ne_bytes());
        let Ok(Event::Oom(event)) = Event::decode(&bytes) else {
            panic!("a record of its own length");
        };
        now += u64::from(chunk[0]) << 22;
        assembler.accept(event, Boottime(now), |_| nothing_known());
        for capture in assembler.advance(Boottime(now), |at| at.0) {
            check(&capture);
        }
    }
    for capture in assembler.advance(Boottime(u64::MAX), |at| at.0) {
        check(&capture);
    }
    let stats = assembler.stats();
    assert_eq!((stats.open, stats.bytes), (0, 0));
}

fn nothing_known() -> Surroundings {
    Surroundings {
        victim_cgroup: None,
        asker_cgroup: None,
        cgroup: None,
        exe: Known::absent(Reason::NotTold, ""),
        state: Known::absent(Reason::Gone, ""),
        before: Known::absent(Reason::NotArmed, ""),
        is_pending: false,
    }
}
