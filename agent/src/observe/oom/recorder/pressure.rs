//! Pressure stall information: being told by its files.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// The node's own.
pub(super) const NODE: &str = "/proc/pressure/memory";

/// Asks to be told when tasks waited for memory for a tenth of two seconds. Whoever lacks
/// `CAP_SYS_RESOURCE` may ask for windows of whole 2 seconds only (from 6.5 on; before that, not
/// at all of the node's file), and the kernel then needs no thread of its own for it.
const TRIGGER: &[u8] = b"some 200000 2000000\0";

/// Opens a pressure file so that poll tells (`PRI`) when there is much pressure. The kernel
/// forgets it when the file is closed.
pub(super) fn trigger(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    file.write_all(TRIGGER)?;
    Ok(file)
}
