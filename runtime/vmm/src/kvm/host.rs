//! The host's KVM, opened once and asked once: a machine is made without asking again.

use std::io;
use std::os::fd::{FromRawFd as _, IntoRawFd as _, OwnedFd};

use kvm_bindings::{KVM_API_VERSION, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::{Cap, Kvm, VmFd};

use super::cpuid;

/// Why this host runs no machine.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// There is none, or it is somebody else's.
    #[error(
        "/dev/kvm cannot be opened: {0}; load the module kvm_intel or kvm_amd, and let this user read \
         and write the device"
    )]
    Open(#[source] io::Error),
    /// It is not the one that all kernels have had for long.
    #[error("KVM's API has version {0}: it must be {KVM_API_VERSION}")]
    Version(i32),
    /// A kernel that is too old, or another architecture.
    #[error("this host's KVM lacks {0}: a kernel from 5.17 has it")]
    Lacks(&'static str),
    /// It does not answer.
    #[error("KVM's {0}: {1}")]
    Ask(&'static str, #[source] io::Error),
}

/// What machines cannot do without, and are not restored without.
const NEEDED: [(Cap, &str); 14] = [
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
    (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
    (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
    (Cap::Pit2, "KVM_CAP_PIT2"),
    (Cap::MpState, "KVM_CAP_MP_STATE"),
    (Cap::VcpuEvents, "KVM_CAP_VCPU_EVENTS"),
    (Cap::Xcrs, "KVM_CAP_XCRS"),
    (Cap::Xsave2, "KVM_CAP_XSAVE2"),
    (Cap::AdjustClock, "KVM_CAP_ADJUST_CLOCK"),
    (Cap::GetTscKhz, "KVM_CAP_GET_TSC_KHZ"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
];

/// The host's KVM, and what it said.
pub struct Host {
    kvm: Kvm,
    cpuid: Vec<kvm_cpuid_entry2>,
    /// Model-specific registers that it saves and restores.
    msrs: Vec<u32>,
}

impl Host {
    /// By the device's path.
    pub fn open() -> Result<Self, HostError> {
        let device = Kvm::new().map_err(|error| HostError::Open(error.into()))?;
        Self::asked(device)
    }

    /// With the device opened by somebody who may.
    pub fn of(device: OwnedFd) -> Result<Self, HostError> {
        // SAFETY: the descriptor is this one's alone from here on.
        Self::asked(unsafe { Kvm::from_raw_fd(device.into_raw_fd()) })
    }

    fn asked(kvm: Kvm) -> Result<Self, HostError> {
        let ask = |what| move |error: kvm_ioctls::Error| HostError::Ask(what, error.into());
        let version = kvm.get_api_version();
        if u32::try_from(version) != Ok(KVM_API_VERSION) {
            return Err(HostError::Version(version));
        }
        let lacks = |(cap, _): &&(Cap, &str)| !kvm.check_extension(*cap);
        if let Some((_, name)) = NEEDED.iter().find(lacks) {
            return Err(HostError::Lacks(name));
        }
        let cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(ask("KVM_GET_SUPPORTED_CPUID"))?;
        let msrs = kvm
            .get_msr_index_list()
            .map_err(ask("KVM_GET_MSR_INDEX_LIST"))?;
        Ok(Self {
            cpuid: cpuid.as_slice().to_vec(),
            msrs: msrs.as_slice().to_vec(),
            kvm,
        })
    }

    pub(crate) fn create_vm(&self) -> Result<VmFd, HostError> {
        let made = self.kvm.create_vm();
        made.map_err(|error| HostError::Ask("KVM_CREATE_VM", error.into()))
    }

    /// What processors on this host can be told to be.
    #[must_use]
    pub fn cpuid(&self) -> &[kvm_cpuid_entry2] {
        &self.cpuid
    }

    /// States beside the general registers that a guest can switch on, as in XCR0; none without
    /// `XSAVE`.
    #[must_use]
    pub fn extended_states(&self) -> u64 {
        let [low, _, _, high] = cpuid::registers(&self.cpuid, 0xd, 0);
        u64::from(high) << 32 | u64::from(low)
    }

    pub(crate) fn msrs(&self) -> &[u32] {
        &self.msrs
    }
}
