//! What KVM knows of a machine, saved and restored in the one order that is right.

use std::io;

use hearth_runtime::snapshot::{Cpu, Refusal};
use kvm_bindings::{
    CpuId, KVM_CLOCK_REALTIME, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE,
    KVM_MAX_CPUID_ENTRIES, Msrs, kvm_clock_data, kvm_cpuid_entry2, kvm_debugregs, kvm_irqchip,
    kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_pit_state2, kvm_regs, kvm_sregs,
    kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{VcpuFd, VmFd};
use serde::{Deserialize, Serialize};

use super::cpuid;
use super::host::Host;

/// Why a state is not saved or restored.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// KVM refuses it.
    #[error("{0}: {1}")]
    Kvm(&'static str, #[source] io::Error),
    /// It is of another processor than this host has.
    #[error("the processor that was saved: {0}")]
    Processor(Refusal),
    /// A register that this host does not have, or not with such a value.
    #[error(
        "model-specific register {index:#x}: this host's KVM refuses {value:#x}, which is not what a \
         new processor has there"
    )]
    Register {
        /// Its number.
        index: u32,
        /// As it was saved.
        value: u64,
    },
    /// The counter of the guest would run faster or slower than it did.
    #[error("the time-stamp counter ran at {wanted} kHz, and this host's at {found} kHz")]
    Frequency {
        /// Where it was saved.
        wanted: u32,
        /// Here.
        found: u32,
    },
    /// More than there can be.
    #[error("{what}: {found} are too many")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// As many as the state has.
        found: usize,
    },
}

/// What the guest's clock does about the time in which it did not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockPolicy {
    /// It goes on where it stood: no time has passed for the guest.
    Continue,
    /// It is moved on by the time that has passed.
    Advance,
}

/// The processor.
#[derive(Debug, Serialize, Deserialize)]
pub struct VcpuState {
    mp_state: kvm_mp_state,
    /// What it was told to be.
    told: Vec<kvm_cpuid_entry2>,
    /// What it is, to the guest: some hosts let guests see more than can be told.
    cpuid: Vec<kvm_cpuid_entry2>,
    regs: kvm_regs,
    sregs: kvm_sregs,
    xsave: kvm_xsave,
    xcrs: kvm_xcrs,
    debug_regs: kvm_debugregs,
    lapic: Option<kvm_lapic_state>,
    msrs: Vec<kvm_msr_entry>,
    tsc_khz: u32,
    events: kvm_vcpu_events,
}

/// What belongs to the machine as a whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VmState {
    chips: Option<Chips>,
    clock: kvm_clock_data,
}

/// Interrupt controllers and timer.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Chips {
    pic: [kvm_irqchip; 2],
    ioapic: kvm_irqchip,
    pit: kvm_pit_state2,
}

fn kvm<T>(what: &'static str, result: Result<T, kvm_ioctls::Error>) -> Result<T, StateError> {
    result.map_err(|error| StateError::Kvm(what, error.into()))
}

impl VcpuState {
    /// Of a processor that stands still, with nothing unfinished.
    pub(crate) fn save(
        vcpu: &VcpuFd,
        told: &[kvm_cpuid_entry2],
        host: &Host,
        has_chips: bool,
    ) -> Result<Self, StateError> {
        // Asking for it makes pending events happen: first.
        let mp_state = kvm("KVM_GET_MP_STATE", vcpu.get_mp_state())?;
        let lapic = has_chips.then(|| kvm("KVM_GET_LAPIC", vcpu.get_lapic()));
        Ok(Self {
            mp_state,
            told: told.to_vec(),
            cpuid: asked(vcpu)?,
            regs: kvm("KVM_GET_REGS", vcpu.get_regs())?,
            sregs: kvm("KVM_GET_SREGS", vcpu.get_sregs())?,
            // No guest is given states that are larger: they are to be asked for.
            xsave: kvm("KVM_GET_XSAVE", vcpu.get_xsave())?,
            xcrs: kvm("KVM_GET_XCRS", vcpu.get_xcrs())?,
            debug_regs: kvm("KVM_GET_DEBUGREGS", vcpu.get_debug_regs())?,
            lapic: lapic.transpose()?,
            msrs: saved_registers(vcpu, host.msrs())?,
            tsc_khz: kvm("KVM_GET_TSC_KHZ", vcpu.get_tsc_khz())?,
            // What is pending, after all that could make something pending.
            events: kvm("KVM_GET_VCPU_EVENTS", vcpu.get_vcpu_events())?,
        })
    }

    /// Into a new processor.
    pub(crate) fn restore(&self, vcpu: &VcpuFd) -> Result<(), StateError> {
        tell(vcpu, &self.told)?;
        let here = seen(vcpu)?;
        self.cpu().check(&here).map_err(StateError::Processor)?;
        self.restore_frequency(vcpu)?;
        kvm("KVM_SET_MP_STATE", vcpu.set_mp_state(self.mp_state))?;
        kvm("KVM_SET_REGS", vcpu.set_regs(&self.regs))?;
        kvm("KVM_SET_SREGS", vcpu.set_sregs(&self.sregs))?;
        set_xsave(vcpu, &self.xsave)?;
        kvm("KVM_SET_XCRS", vcpu.set_xcrs(&self.xcrs))?;
        kvm("KVM_SET_DEBUGREGS", vcpu.set_debug_regs(&self.debug_regs))?;
        if let Some(lapic) = &self.lapic {
            kvm("KVM_SET_LAPIC", vcpu.set_lapic(lapic))?;
        }
        restore_registers(vcpu, &self.msrs)?;
        kvm("KVM_SET_VCPU_EVENTS", vcpu.set_vcpu_events(&self.events))
    }

    fn restore_frequency(&self, vcpu: &VcpuFd) -> Result<(), StateError> {
        /// Parts of a million that clocks differ by: no two hosts measure the same.
        const TOLERANCE: u64 = 250;
        let (wanted, found) = (self.tsc_khz, kvm("KVM_GET_TSC_KHZ", vcpu.get_tsc_khz())?);
        if u64::from(wanted.abs_diff(found)) * 1_000_000 <= u64::from(wanted) * TOLERANCE {
            return Ok(());
        }
        let set = vcpu.set_tsc_khz(wanted);
        set.map_err(|_| StateError::Frequency { wanted, found })
    }

    /// What its guest was shown.
    pub(crate) fn cpu(&self) -> Cpu {
        cpuid::cpu(&self.cpuid)
    }

    /// What the processor was told to be.
    pub(crate) fn told(&self) -> &[kvm_cpuid_entry2] {
        &self.told
    }

    /// Whether there are interrupt controllers.
    pub(crate) fn has_chips(&self) -> bool {
        self.lapic.is_some()
    }
}

impl VmState {
    /// Of a machine whose processor stands still.
    pub(crate) fn save(vm: &VmFd, has_chips: bool) -> Result<Self, StateError> {
        let chips = has_chips.then(|| Chips::save(vm)).transpose()?;
        let clock = kvm("KVM_GET_CLOCK", vm.get_clock())?;
        Ok(Self { chips, clock })
    }

    /// Into a new machine, after its processor.
    pub(crate) fn restore(&self, vm: &VmFd, clock: ClockPolicy) -> Result<(), StateError> {
        if let Some(chips) = &self.chips {
            chips.restore(vm)?;
        }
        let knows_when = self.clock.flags & KVM_CLOCK_REALTIME;
        let clock = kvm_clock_data {
            flags: match clock {
                ClockPolicy::Continue => 0,
                ClockPolicy::Advance => knows_when,
            },
            ..self.clock
        };
        kvm("KVM_SET_CLOCK", vm.set_clock(&clock))
    }
}

impl Chips {
    fn save(vm: &VmFd) -> Result<Self, StateError> {
        let chip = |chip_id| {
            let mut state = kvm_irqchip {
                chip_id,
                ..Default::default()
            };
            kvm("KVM_GET_IRQCHIP", vm.get_irqchip(&mut state))?;
            Ok(state)
        };
        Ok(Self {
            pic: [chip(KVM_IRQCHIP_PIC_MASTER)?, chip(KVM_IRQCHIP_PIC_SLAVE)?],
            ioapic: chip(KVM_IRQCHIP_IOAPIC)?,
            pit: kvm("KVM_GET_PIT2", vm.get_pit2())?,
        })
    }

    fn restore(&self, vm: &VmFd) -> Result<(), StateError> {
        for chip in self.pic.iter().chain([&self.ioapic]) {
            kvm("KVM_SET_IRQCHIP", vm.set_irqchip(chip))?;
        }
        kvm("KVM_SET_PIT2", vm.set_pit2(&self.pit))
    }
}

/// Tells a new processor what it is.
pub(crate) fn tell(vcpu: &VcpuFd, cpuid: &[kvm_cpuid_entry2]) -> Result<(), StateError> {
    let told = CpuId::from_entries(cpuid).map_err(|_| StateError::TooMany {
        what: "entries of CPUID",
        found: cpuid.len(),
    })?;
    kvm("KVM_SET_CPUID2", vcpu.set_cpuid2(&told))
}

/// What a processor that was told is to its guest.
pub(crate) fn seen(vcpu: &VcpuFd) -> Result<Cpu, StateError> {
    Ok(cpuid::cpu(&asked(vcpu)?))
}

fn asked(vcpu: &VcpuFd) -> Result<Vec<kvm_cpuid_entry2>, StateError> {
    let cpuid = kvm("KVM_GET_CPUID2", vcpu.get_cpuid2(KVM_MAX_CPUID_ENTRIES))?;
    Ok(cpuid.as_slice().to_vec())
}

fn set_xsave(vcpu: &VcpuFd, xsave: &kvm_xsave) -> Result<(), StateError> {
    // SAFETY: the guest has no state that is larger than the struct, as no such was asked for.
    kvm("KVM_SET_XSAVE", unsafe { vcpu.set_xsave(xsave) })
}

/// Its deadline is told to the timer when it is written: the counter must be there before.
const TSC_DEADLINE: u32 = 0x6e0;

/// All that can be read of these, in the order in which they are to be written.
fn saved_registers(vcpu: &VcpuFd, indices: &[u32]) -> Result<Vec<kvm_msr_entry>, StateError> {
    let mut wanted = indices.to_vec();
    wanted.sort_by_key(|index| *index == TSC_DEADLINE);
    let mut read = Vec::with_capacity(wanted.len());
    let mut left = wanted.as_slice();
    while !left.is_empty() {
        let entries: Vec<_> = left.iter().map(|index| register(*index)).collect();
        let mut some = batch(&entries)?;
        let done = kvm("KVM_GET_MSRS", vcpu.get_msrs(&mut some))?;
        read.extend_from_slice(some.as_slice().get(..done).unwrap_or_default());
        // KVM lists what this processor does not have; the rest is behind it.
        left = left.get(done + 1..).unwrap_or_default();
    }
    Ok(read)
}

/// Writes them; one that is refused must have been what it is anyhow.
fn restore_registers(vcpu: &VcpuFd, saved: &[kvm_msr_entry]) -> Result<(), StateError> {
    let mut left = saved;
    while !left.is_empty() {
        let done = kvm("KVM_SET_MSRS", vcpu.set_msrs(&batch(left)?))?;
        let Some(refused) = left.get(done) else {
            return Ok(());
        };
        let mut fresh = batch(&[register(refused.index)])?;
        let can_be_read = matches!(vcpu.get_msrs(&mut fresh), Ok(1));
        let value = fresh.as_slice().first().map(|entry| entry.data);
        if !can_be_read || value != Some(refused.data) {
            return Err(StateError::Register {
                index: refused.index,
                value: refused.data,
            });
        }
        left = left.get(done + 1..).unwrap_or_default();
    }
    Ok(())
}

fn register(index: u32) -> kvm_msr_entry {
    kvm_msr_entry {
        index,
        ..Default::default()
    }
}

fn batch(entries: &[kvm_msr_entry]) -> Result<Msrs, StateError> {
    Msrs::from_entries(entries).map_err(|_| StateError::TooMany {
        what: "model-specific registers",
        found: entries.len(),
    })
}
