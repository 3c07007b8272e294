//! The bytes that cross from the kernel to user space, defined once.
//!
//! Every record is `repr(C)`, of fixed size, without implicit padding, and holds
//! plain integers only, so that any bit pattern is a value: decoding cannot fail
//! on content, only on length and on an unknown [`Kind`].
#![no_std]

mod ledger;
mod mark;
mod offsets;
#[cfg(feature = "user")]
mod pod;
mod probe;
mod text;
mod watch;

pub use ledger::{FATES, Fate, LedgerRow};
pub use mark::{Counters, Kind, MARK_BYTES, Mark, Part, flags, site};
pub use offsets::{ABSENT, Bit, Offsets};
pub use probe::{PROBES, Probe};
pub use text::{TEXT_BYTES, TEXT_LONG, TEXT_SHORT, Text};
pub use watch::{
    COMM_BYTES, Config, ExecRule, FILE_BYTES, InFlight, Opener, SYSCALLS, Watch, ready, syscall,
};
