//! A message as bytes, made once however often it is told.

use std::rc::Rc;

use hearth_runtime::channel::Frame;
use hearth_runtime::id::{Epoch, RequestId};
use hearth_runtime::sandbox::message::FromSandbox;

use super::logs::Log;

/// A sandbox of processes lives once.
pub(super) const EPOCH: Epoch = Epoch(1);

/// A message to who is connected.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) bytes: Rc<Vec<u8>>,
    /// How many of them the function wrote: they are counted as dropped where they do not arrive.
    pub(super) logged: usize,
}

impl Piece {
    pub(super) fn new(message: FromSandbox, request: Option<RequestId>, body: Vec<u8>) -> Self {
        let frame = Frame {
            request,
            body,
            ..Frame::new(EPOCH, message)
        };
        let mut bytes = Vec::new();
        if let Err(error) = frame.encode(&mut bytes) {
            // All that goes in was capped before.
            eprintln!("hearth-init: not told, as it is no frame: {error}");
        }
        Self {
            bytes: Rc::new(bytes),
            logged: 0,
        }
    }

    pub(super) fn log(log: Log) -> Self {
        let message = FromSandbox::Log {
            stream: log.stream,
            dropped: log.dropped,
        };
        let logged = log.bytes.len();
        Self {
            logged,
            ..Self::new(message, log.request, log.bytes)
        }
    }
}
