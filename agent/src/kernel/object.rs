//! The kernel object that `cargo xtask build` made. It is needed once, at the start: so it lies in
//! the program deflated, and does not stay in memory beside what was loaded of it.

use std::io::Read as _;

use flate2::read::ZlibDecoder;

use super::probes::ProbesError;

static DEFLATED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hearth.bpf.o.z"));

/// The object.
pub(super) fn inflated() -> Result<Vec<u8>, ProbesError> {
    let mut object = Vec::new();
    ZlibDecoder::new(DEFLATED)
        .read_to_end(&mut object)
        .map_err(ProbesError::Object)?;
    Ok(object)
}
