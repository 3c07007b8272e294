//! A machine with one processor: made, run until it stops, saved, restored.

mod alarm;
mod stopper;

use std::io;
use std::time::Instant;

use hearth_runtime::snapshot::Cpu;
use kvm_bindings::{
    KVM_PIT_SPEAKER_DUMMY, kvm_cpuid_entry2, kvm_pit_config, kvm_userspace_memory_region,
};
use kvm_ioctls::{VcpuFd, VmFd};
use serde::{Deserialize, Serialize};

use crate::device::Bus;
use crate::kvm::{
    ClockPolicy, Ended, Host, HostError, StateError, Step, Vcpu, VcpuState, VmState, new_cpuid,
    seen, tell,
};
use crate::memory::{self, Memory, MemoryError};
use alarm::Alarm;
pub use stopper::Stopper;

/// Three pages that KVM takes on Intel's processors, where no memory and no device is.
const TSS: usize = 0xfffb_d000;
/// One more.
const IDENTITY_MAP: u64 = 0xfffb_c000;

/// Why there is no such machine, or it does not go on.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The host's KVM.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Its memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Its state.
    #[error(transparent)]
    State(#[from] StateError),
    /// KVM, while the machine was made or ran.
    #[error("{0}: {1}")]
    Kvm(&'static str, #[source] io::Error),
}

fn kvm<T>(what: &'static str, result: Result<T, kvm_ioctls::Error>) -> Result<T, MachineError> {
    result.map_err(|error| MachineError::Kvm(what, error.into()))
}

/// Why a machine stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The guest waits for an answer at its doorbell.
    Rang,
    /// The time is over; the guest can go on.
    Deadline,
    /// A [`Stopper`] asked for it; the guest can go on.
    Asked,
    /// The guest is over.
    Ended(Ended),
}

/// Whether a machine has what interrupts take: a guest with a kernel does, and it costs time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupts {
    /// Local and I/O APIC, PIC and PIT, as PCs have them.
    Pc,
    /// None.
    None,
}

/// The processor and what belongs to the machine as a whole. Its memory is a file beside, and devices have
/// states of their own.
#[derive(Debug, Serialize, Deserialize)]
pub struct MachineState {
    /// Bytes of memory.
    pub memory: u64,
    vcpu: VcpuState,
    vm: VmState,
}

impl MachineState {
    /// What its guest was shown of the processor.
    #[must_use]
    pub fn cpu(&self) -> Cpu {
        self.vcpu.cpu()
    }
}

/// What a guest is shown of this host's processor.
pub fn cpu_here(host: &Host) -> Result<Cpu, MachineError> {
    /// The least that there can be.
    const MEMORY: u64 = 4096;
    let machine = Machine::new(host, Memory::fresh(MEMORY)?, Interrupts::None)?;
    Ok(seen(machine.processor())?)
}

/// One virtual machine.
pub struct Machine {
    // In the order in which they are closed: the processor, the machine, its memory.
    vcpu: Vcpu,
    vm: VmFd,
    /// What its processor was told to be.
    told: Vec<kvm_cpuid_entry2>,
    interrupts: Interrupts,
    memory: Memory,
    memory_mapped: Bus,
    ports: Bus,
    stopper: Stopper,
}

impl Machine {
    /// A new one, whose processor has just been switched on.
    pub fn new(host: &Host, memory: Memory, interrupts: Interrupts) -> Result<Self, MachineError> {
        let mut machine = Self::empty(host, memory, interrupts)?;
        machine.told = new_cpuid(host.cpuid());
        tell(machine.processor(), &machine.told)?;
        Ok(machine)
    }

    /// One that was saved, with the memory that was saved with it.
    pub fn restored(
        host: &Host,
        memory: Memory,
        state: &MachineState,
        clock: ClockPolicy,
    ) -> Result<Self, MachineError> {
        let (size, found) = (state.memory, memory.size());
        if size != found {
            return Err(MemoryError::File { size, found }.into());
        }
        let interrupts = if state.vcpu.has_chips() {
            Interrupts::Pc
        } else {
            Interrupts::None
        };
        let mut machine = Self::empty(host, memory, interrupts)?;
        machine.told = state.vcpu.told().to_vec();
        state.vcpu.restore(machine.processor())?;
        state.vm.restore(&machine.vm, clock)?;
        Ok(machine)
    }

    fn empty(host: &Host, memory: Memory, interrupts: Interrupts) -> Result<Self, MachineError> {
        let vm = host.create_vm()?;
        kvm(
            "KVM_SET_IDENTITY_MAP_ADDR",
            vm.set_identity_map_address(IDENTITY_MAP),
        )?;
        kvm("KVM_SET_TSS_ADDR", vm.set_tss_address(TSS))?;
        for (slot, (guest_phys_addr, memory_size, userspace_addr)) in
            (0..).zip(memory::slots(memory.guest()))
        {
            let region = kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr,
                memory_size,
                userspace_addr,
            };
            // SAFETY: the memory is mapped for as long as there is this machine, and longer than its
            // descriptors.
            let set = unsafe { vm.set_user_memory_region(region) };
            kvm("KVM_SET_USER_MEMORY_REGION", set)?;
        }
        // After the memory: it would wait for each range of it.
        if interrupts == Interrupts::Pc {
            kvm("KVM_CREATE_IRQCHIP", vm.create_irq_chip())?;
            let pit = kvm_pit_config {
                flags: KVM_PIT_SPEAKER_DUMMY,
                ..Default::default()
            };
            kvm("KVM_CREATE_PIT2", vm.create_pit2(pit))?;
        }
        let vcpu = Vcpu::new(kvm("KVM_CREATE_VCPU", vm.create_vcpu(0))?);
        Ok(Self {
            vcpu,
            vm,
            told: Vec::new(),
            interrupts,
            memory,
            memory_mapped: Bus::default(),
            ports: Bus::default(),
            stopper: Stopper::default(),
        })
    }

    /// Runs it until it stops.
    pub fn run(&mut self, deadline: Instant) -> Result<Stop, MachineError> {
        let alarm = Alarm::at(deadline).map_err(|error| MachineError::Kvm("its alarm", error))?;
        let _running = self.stopper.runs();
        loop {
            if self.stopper.is_asked() {
                return Ok(Stop::Asked);
            }
            let step = self.vcpu.step(&mut self.memory_mapped, &mut self.ports);
            match step.map_err(|error| MachineError::Kvm("KVM_RUN", error))? {
                Step::Rang => return Ok(Stop::Rang),
                Step::Ended(how) => return Ok(Stop::Ended(how)),
                Step::Interrupted if alarm.is_over() => return Ok(Stop::Deadline),
                Step::On | Step::Interrupted => {}
            }
        }
    }

    /// Its state; its memory is saved beside.
    pub fn save(&mut self, host: &Host) -> Result<MachineState, MachineError> {
        let finished = self.vcpu.finish(&mut self.memory_mapped, &mut self.ports);
        finished.map_err(|error| MachineError::Kvm("KVM_RUN, to end what was begun", error))?;
        let has_chips = self.interrupts == Interrupts::Pc;
        Ok(MachineState {
            memory: self.memory.size(),
            vcpu: VcpuState::save(self.processor(), &self.told, host, has_chips)?,
            vm: VmState::save(&self.vm, has_chips)?,
        })
    }

    /// What stops it from another thread.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Its memory.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// What answers where there is no memory.
    pub fn memory_mapped(&mut self) -> &mut Bus {
        &mut self.memory_mapped
    }

    /// What answers at ports.
    pub fn ports(&mut self) -> &mut Bus {
        &mut self.ports
    }

    /// The machine as KVM knows it: for what gives it interrupts.
    #[must_use]
    pub fn vm(&self) -> &VmFd {
        &self.vm
    }

    /// Its processor as KVM knows it: for what boots a guest.
    #[must_use]
    pub fn processor(&self) -> &VcpuFd {
        self.vcpu.fd()
    }
}
