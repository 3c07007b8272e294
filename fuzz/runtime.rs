//! What the fuzz targets of the runtime do with their bytes, and what must hold whatever these
//! are. The runtime's tests run the same without a fuzzer.

use hearth_runtime::channel::{Decoder, Frame};
use hearth_runtime::journal;

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
