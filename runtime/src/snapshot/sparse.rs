//! Memory into a file: pages of zeros take no room in it, for a new file is zeros already.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use rustix::io::Errno;

use super::error::SnapshotError;

const PAGE: usize = 4096;

/// Writes `memory` to the new `file` at `offset`, but for its pages of zeros. The file's size is as
/// if they were written.
pub fn write(file: &File, offset: u64, memory: &[u8]) -> Result<(), SnapshotError> {
    let end = offset.saturating_add(memory.len() as u64);
    let failed = |error: &std::io::Error| {
        let errno = Errno::from_io_error(error).unwrap_or(Errno::IO);
        let path = std::fs::read_link(format!(
            "/proc/self/fd/{}",
            std::os::fd::AsRawFd::as_raw_fd(file)
        ));
        let path = path.unwrap_or_else(|_| "the file of the memory".into());
        SnapshotError::write(&path, "write the memory", memory.len() as u64, errno)
    };
    let size = file.metadata().map_err(|error| failed(&error))?.len();
    if size < end {
        file.set_len(end).map_err(|error| failed(&error))?;
    }
    // Runs of pages that have something, each in one call.
    let mut run = 0..0;
    for (index, page) in memory.chunks(PAGE).enumerate() {
        let start = index * PAGE;
        if page.iter().all(|byte| *byte == 0) {
            put(file, offset, memory, &run).map_err(|error| failed(&error))?;
            run = 0..0;
        } else if run.is_empty() {
            run = start..start + page.len();
        } else {
            run.end = start + page.len();
        }
    }
    put(file, offset, memory, &run).map_err(|error| failed(&error))
}

fn put(
    file: &File,
    offset: u64,
    memory: &[u8],
    run: &std::ops::Range<usize>,
) -> std::io::Result<()> {
    let bytes = memory.get(run.clone()).unwrap_or_default();
    if bytes.is_empty() {
        return Ok(());
    }
    file.write_all_at(bytes, offset + run.start as u64)
}
