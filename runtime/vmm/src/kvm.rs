//! What is said to KVM: the host's abilities, one virtual processor, and the state of a machine.

mod cpuid;
mod host;
mod state;
mod vcpu;

pub(crate) use cpuid::of_new as new_cpuid;
pub use host::{Host, HostError};
pub use state::{ClockPolicy, StateError, VcpuState, VmState};
pub(crate) use state::{seen, tell};
pub(crate) use vcpu::Vcpu;
pub use vcpu::{Ended, Step};
