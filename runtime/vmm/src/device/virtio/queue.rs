//! What a driver asks for: requests out of the queues in its memory.
//!
//! The driver can write anything there at any time. `virtio-queue` reads within bounds and follows
//! no chain for ever; this adds limits that hold for all devices.

use virtio_queue::{Queue, QueueOwnedT as _, QueueT as _, Reader, Writer};

use super::Memory;

/// Descriptors of one request. Drivers are told a limit below this.
const MOST_DESCRIPTORS: usize = 256;
/// Bytes of one request, of both directions. Drivers are told limits below this.
pub(crate) const MOST_BYTES: usize = 8 << 20;

/// One request.
pub struct Request<'a> {
    head: u16,
    /// What the driver says.
    pub reader: Reader<'a>,
    /// Where it wants the answer.
    pub writer: Writer<'a>,
}

/// The queues of one device while it works.
pub struct Queues<'a> {
    memory: &'a Memory,
    rings: &'a mut [Queue],
    /// Whether the driver got something.
    pub(super) is_used: bool,
    /// Whether a queue is beyond use: only a reset helps.
    pub(super) is_broken: bool,
    /// Requests that no device saw.
    pub(super) refused: u64,
    /// Requests that may still be taken. Whoever asks for more rings again.
    budget: usize,
}

impl<'a> Queues<'a> {
    pub(super) fn new(memory: &'a Memory, rings: &'a mut [Queue]) -> Self {
        let budget = rings.iter().map(|queue| usize::from(queue.size())).sum();
        Self {
            memory,
            rings,
            is_used: false,
            is_broken: false,
            refused: 0,
            budget,
        }
    }

    /// The next request of a queue. What is none is handed back to the driver unanswered.
    pub fn next(&mut self, index: usize) -> Option<Request<'a>> {
        loop {
            self.budget = self.budget.checked_sub(1)?;
            let memory = self.memory;
            let queue = self.rings.get_mut(index).filter(|queue| queue.ready())?;
            let Ok(mut chains) = queue.iter(memory) else {
                self.is_broken = true;
                return None;
            };
            let chain = chains.next()?;
            let head = chain.head_index();
            let mut most = MOST_DESCRIPTORS + 1;
            let mut bytes = 0;
            for descriptor in chain.clone().take(most) {
                most -= 1;
                bytes += descriptor.len() as usize;
            }
            let reader = Reader::new(memory, chain.clone());
            let writer = Writer::new(memory, chain);
            match (reader, writer) {
                (Ok(reader), Ok(writer)) if most > 0 && bytes <= MOST_BYTES => {
                    return Some(Request {
                        head,
                        reader,
                        writer,
                    });
                }
                _ => {
                    self.refused += 1;
                    self.finish(index, head, 0);
                }
            }
        }
    }

    /// A request of this queue is done. Its writer says how much the driver gets.
    pub fn done(&mut self, index: usize, request: &Request<'_>) {
        self.done_with(index, request, request.writer.bytes_written());
    }

    /// The same, where the writer was split.
    pub fn done_with(&mut self, index: usize, request: &Request<'_>, written: usize) {
        // Within the bound of a request.
        let written = u32::try_from(written).unwrap_or(u32::MAX);
        self.finish(index, request.head, written);
    }

    fn finish(&mut self, index: usize, head: u16, written: u32) {
        let Some(queue) = self.rings.get_mut(index) else {
            return;
        };
        match queue.add_used(self.memory, head, written) {
            Ok(()) => self.is_used = true,
            Err(_) => self.is_broken = true,
        }
    }
}
