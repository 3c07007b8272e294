//! The block device: a file, read-only where many guests share it, else the guest's own layer.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;

use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_SIZE_MAX,
    VIRTIO_BLK_ID_BYTES, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP,
    VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;
use virtio_queue::{Reader, Writer};

use super::queue::{MOST_BYTES, Queues, Request};
use super::{Kind, Unfit};

/// Bytes of a sector, whatever the file system below.
const SECTOR: u64 = 512;
/// Requests at a time.
const QUEUE: u16 = 128;
/// Pieces of one request, and their bytes: what a driver is told.
const PIECES: u32 = 62;
const PIECE: u32 = 64 << 10;
/// A request within these is never refused for its length.
const _: () = assert!(PIECES as usize * PIECE as usize + 4096 < MOST_BYTES);
/// Bytes that are copied at once.
const COPIED: usize = 64 << 10;
/// Type, nothing, first sector.
const HEADER: usize = 16;

/// The device.
#[derive(Debug)]
pub struct Block {
    file: File,
    sectors: u64,
    is_writable: bool,
    name: [u8; VIRTIO_BLK_ID_BYTES as usize],
    buffer: Vec<u8>,
    failed: u64,
}

impl Block {
    /// A device of this file, by a name that the guest can read (20 bytes of it). What does not
    /// fill a sector at its end is not in it.
    pub fn new(file: File, is_writable: bool, name: &str) -> io::Result<Self> {
        let sectors = file.metadata()?.len() / SECTOR;
        let mut short = [0; VIRTIO_BLK_ID_BYTES as usize];
        for (to, from) in short.iter_mut().zip(name.bytes()) {
            *to = from;
        }
        Ok(Self {
            file,
            sectors,
            is_writable,
            name: short,
            buffer: vec![0; COPIED],
            failed: 0,
        })
    }

    /// Requests that were answered with an error, so far.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed
    }

    /// Answers all but the status; an error is what the status tells.
    fn answer(&mut self, reader: &mut Reader<'_>, writer: &mut Writer<'_>) -> Result<(), Refusal> {
        let mut header = [0; HEADER];
        reader.read_exact(&mut header)?;
        let [a, b, c, d, _, _, _, _, first @ ..] = header;
        let first = u64::from_le_bytes(first);
        match u32::from_le_bytes([a, b, c, d]) {
            VIRTIO_BLK_T_IN => {
                let mut at = self.place(first, writer.available_bytes())?;
                loop {
                    let length = writer.available_bytes().min(COPIED);
                    let (piece, _) = self.buffer.split_at_mut(length);
                    if piece.is_empty() {
                        return Ok(());
                    }
                    self.file.read_exact_at(piece, at)?;
                    writer.write_all(piece)?;
                    at += length as u64;
                }
            }
            VIRTIO_BLK_T_OUT if self.is_writable => {
                let mut at = self.place(first, reader.available_bytes())?;
                loop {
                    let length = reader.available_bytes().min(COPIED);
                    let (piece, _) = self.buffer.split_at_mut(length);
                    if piece.is_empty() {
                        return Ok(());
                    }
                    reader.read_exact(piece)?;
                    self.file.write_all_at(piece, at)?;
                    at += length as u64;
                }
            }
            VIRTIO_BLK_T_OUT => Err(Refusal::Error),
            // The layer ends with its machine, and who takes a snapshot brings it to the disk: a
            // guest that syncs all day is not to slow its neighbours.
            VIRTIO_BLK_T_FLUSH => Ok(()),
            VIRTIO_BLK_T_GET_ID => {
                let length = writer.available_bytes().min(self.name.len());
                Ok(writer.write_all(self.name.get(..length).unwrap_or_default())?)
            }
            _ => Err(Refusal::Unknown),
        }
    }

    /// Where in the file so many bytes are.
    fn place(&self, first: u64, bytes: usize) -> Result<u64, Refusal> {
        let bytes = bytes as u64;
        let end = first.checked_add(bytes / SECTOR);
        let is_inside = end.is_some_and(|end| end <= self.sectors);
        if !is_inside || !bytes.is_multiple_of(SECTOR) || bytes == 0 {
            return Err(Refusal::Error);
        }
        // The file is that long.
        Ok(first * SECTOR)
    }

    fn serve(&mut self, request: &mut Request<'_>) -> usize {
        let Some(before) = request.writer.available_bytes().checked_sub(1) else {
            // No room even for the status.
            self.failed += 1;
            return 0;
        };
        let Ok(mut last) = request.writer.split_at(before) else {
            return 0;
        };
        let status = match self.answer(&mut request.reader, &mut request.writer) {
            Ok(()) => VIRTIO_BLK_S_OK,
            Err(Refusal::Error) => VIRTIO_BLK_S_IOERR,
            Err(Refusal::Unknown) => VIRTIO_BLK_S_UNSUPP,
        };
        if status == VIRTIO_BLK_S_IOERR {
            self.failed += 1;
        }
        // One byte of memory that was there when the request was cut.
        let _ = last.write_all(&[u8::try_from(status).unwrap_or(u8::MAX)]);
        request.writer.bytes_written() + last.bytes_written()
    }
}

/// Why a request is not answered.
enum Refusal {
    Error,
    Unknown,
}

impl From<io::Error> for Refusal {
    fn from(_: io::Error) -> Self {
        Self::Error
    }
}

/// What must be the same where it goes on: the disk under a mounted file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockState {
    sectors: u64,
    is_writable: bool,
}

impl Kind for Block {
    const ID: u32 = VIRTIO_ID_BLOCK;
    const QUEUES: &'static [u16] = &[QUEUE];
    type State = BlockState;

    fn features(&self) -> u64 {
        let features = 1 << VIRTIO_BLK_F_SIZE_MAX | 1 << VIRTIO_BLK_F_SEG_MAX;
        if self.is_writable {
            features | 1 << VIRTIO_BLK_F_FLUSH
        } else {
            features | 1 << VIRTIO_BLK_F_RO
        }
    }

    fn configuration(&self) -> Vec<u8> {
        let mut bytes = self.sectors.to_le_bytes().to_vec();
        bytes.extend(PIECE.to_le_bytes());
        bytes.extend(PIECES.to_le_bytes());
        bytes
    }

    fn reset(&mut self) {}

    fn notified(&mut self, queue: usize, queues: &mut Queues<'_>) {
        while let Some(mut request) = queues.next(queue) {
            let written = self.serve(&mut request);
            queues.done_with(queue, &request, written);
        }
    }

    fn save(&self) -> BlockState {
        BlockState {
            sectors: self.sectors,
            is_writable: self.is_writable,
        }
    }

    fn restore(&mut self, state: BlockState) -> Result<(), Unfit> {
        let here = self.save();
        if state == here {
            return Ok(());
        }
        Err(Unfit::new(
            "virtio.block",
            format_args!("{} sectors, writable: {}", state.sectors, state.is_writable),
            format!(
                "the file given here has {}, writable: {}: give the one that belongs to the snapshot",
                here.sectors, here.is_writable
            ),
        ))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::driver::Driver;
    use super::*;

    fn disk(sectors: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        for sector in 0..sectors {
            let content = [u8::try_from(sector).unwrap(); 512];
            file.write_all_at(&content, sector * SECTOR).unwrap();
        }
        file
    }

    fn header(kind: u32, first: u64) -> Vec<u8> {
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend([0; 4]);
        bytes.extend(first.to_le_bytes());
        bytes
    }

    fn driver(is_writable: bool) -> Driver<Block> {
        Driver::new(Block::new(disk(8), is_writable, "base").unwrap())
    }

    #[test]
    fn what_is_written_is_read_again_and_is_in_the_file() {
        let mut driver = driver(true);
        let content = [0xaa; 1024];
        let said = driver.ask(0, &[&header(VIRTIO_BLK_T_OUT, 3), &content], &[1]);
        assert_eq!((said, driver.used(0)), (vec![0], (1, 1)));
        let said = driver.ask(0, &[&header(VIRTIO_BLK_T_FLUSH, 0)], &[1]);
        assert_eq!(said, [0]);
        let said = driver.ask(0, &[&header(VIRTIO_BLK_T_IN, 2)], &[700, 1348, 1]);
        assert_eq!(driver.used(0), (3, 2049));
        assert_eq!(said[..512], [2; 512]);
        assert_eq!(said[512..1536], content);
        assert_eq!((&said[1536..2048], said[2048]), (&[5; 512][..], 0));
        assert_eq!(driver.transport.device().failed(), 0);
    }

    #[test]
    fn a_shared_base_cannot_be_written() {
        let mut driver = driver(false);
        let said = driver.ask(0, &[&header(VIRTIO_BLK_T_OUT, 0), &[1; 512]], &[1]);
        assert_eq!(said, [1]);
        let said = driver.ask(0, &[&header(VIRTIO_BLK_T_IN, 0)], &[512, 1]);
        assert_eq!(said[..512], [0; 512]);
    }

    #[test]
    fn nothing_outside_of_the_disk_is_read_or_written() {
        let mut driver = driver(true);
        for first in [7, 8, u64::MAX / 512, u64::MAX] {
            let said = driver.ask(0, &[&header(VIRTIO_BLK_T_OUT, first), &[1; 1024]], &[1]);
            assert_eq!(said, [1], "{first}");
            let said = driver.ask(0, &[&header(VIRTIO_BLK_T_IN, first)], &[1024, 1]);
            assert_eq!(said[1024], 1, "{first}");
        }
        assert_eq!(driver.transport.device().failed(), 8);
        assert_eq!(
            driver.transport.device().file.metadata().unwrap().len(),
            8 * 512
        );
    }

    #[test]
    fn requests_that_no_driver_makes_are_answered_with_an_error() {
        let mut driver = driver(true);
        let no_sector = driver.ask(0, &[&header(VIRTIO_BLK_T_IN, 0)], &[100, 1]);
        assert_eq!(no_sector[100], 1);
        let unknown = driver.ask(0, &[&header(77, 0)], &[512, 1]);
        assert_eq!(unknown[512], 2);
        assert_eq!(driver.ask(0, &[b"short"], &[1]), [1]);
        driver.ask(0, &[&header(VIRTIO_BLK_T_IN, 0)], &[]);
        assert_eq!(driver.used(0), (4, 0));
        assert_eq!(
            driver.ask(0, &[&header(VIRTIO_BLK_T_GET_ID, 0)], &[20, 1])[..4],
            *b"base"
        );
    }

    #[test]
    fn a_file_that_has_become_shorter_is_an_error_of_the_disk() {
        let mut driver = driver(false);
        driver.transport.device().file.set_len(1024).unwrap();
        let said = driver.ask(0, &[&header(VIRTIO_BLK_T_IN, 4)], &[512, 1]);
        assert_eq!(said[512], 1);
    }

    #[test]
    fn only_the_same_disk_goes_on() {
        let mut driver = driver(false);
        let state = driver.transport.save();
        driver.transport.restore(state).unwrap();
        let other = Block::new(disk(9), false, "base").unwrap();
        let error = Driver::new(other)
            .transport
            .restore(driver.transport.save());
        assert!(
            error
                .unwrap_err()
                .to_string()
                .starts_with("virtio.block: 8 sectors")
        );
    }
}
