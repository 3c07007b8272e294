//! The virtual processor: runs until the guest wants something.

use std::io;

use kvm_bindings::{
    KVM_EXIT_FAIL_ENTRY, KVM_EXIT_HLT, KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_SHUTDOWN,
    KVM_EXIT_SYSTEM_EVENT, KVM_SYSTEM_EVENT_CRASH, kvm_run,
};
use kvm_ioctls::{VcpuExit, VcpuFd};

use crate::device::{Bus, Effect};

/// Where the processor stands after it ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It can go on.
    On,
    /// The guest waits for an answer at its doorbell.
    Rang,
    /// A signal came first.
    Interrupted,
    /// It is over.
    Ended(Ended),
}

/// How a guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// As it asked for by a device.
    #[error("it switched itself off")]
    Off,
    /// An exception that nothing in it could take.
    #[error("its processor shut down (triple fault)")]
    Shutdown,
    /// A halt, where there are no interrupts that end it.
    #[error("its processor halted for good")]
    Halted,
    /// It told of its crash.
    #[error("its kernel crashed")]
    Crashed,
    /// KVM could not go on: an instruction that it does not emulate, or a state that no processor has.
    #[error("KVM could not go on: internal error {suberror}")]
    Internal {
        /// KVM's number for it.
        suberror: u32,
    },
    /// The processor does not take such a state.
    #[error("the processor refused to enter the guest: reason {reason:#x}")]
    Entry {
        /// The hardware's number for it.
        reason: u64,
    },
    /// Something that this VMM has not asked for.
    #[error("its processor stopped for a reason that nobody knows: {exit}")]
    Unknown {
        /// KVM's number for it.
        exit: u32,
    },
}

pub(crate) struct Vcpu {
    fd: VcpuFd,
    /// What it does last is in the kernel still: it must be entered once more before it is saved.
    unfinished: bool,
}

impl Vcpu {
    pub(crate) fn new(fd: VcpuFd) -> Self {
        Self {
            fd,
            unfinished: false,
        }
    }

    /// Ends what the processor was doing when it stopped, which the kernel keeps until it is entered
    /// again; the guest does not go on. One instruction can write more than once.
    pub(crate) fn finish(&mut self, memory_mapped: &mut Bus, ports: &mut Bus) -> io::Result<()> {
        /// More than any instruction does: its operand has 64 bytes, of which 8 are written at once.
        const MOST: usize = 16;
        if !self.unfinished {
            return Ok(());
        }
        self.fd.set_kvm_immediate_exit(1);
        let last = (0..MOST)
            .map(|_| self.step(memory_mapped, ports))
            .find(|step| !matches!(step, Ok(Step::On | Step::Rang)));
        self.fd.set_kvm_immediate_exit(0);
        match last {
            Some(Ok(Step::Interrupted)) => Ok(()),
            Some(Err(error)) => Err(error),
            Some(Ok(_)) | None => Err(io::Error::other("the guest went on, though it was not to")),
        }
    }

    pub(crate) fn fd(&self) -> &VcpuFd {
        &self.fd
    }

    /// Runs until it stops for something, and has that done.
    pub(crate) fn step(&mut self, memory_mapped: &mut Bus, ports: &mut Bus) -> io::Result<Step> {
        self.unfinished = false;
        let exit = match self.fd.run() {
            Ok(exit) => exit,
            Err(error) => {
                let error = io::Error::from(error);
                return match error.kind() {
                    io::ErrorKind::Interrupted => Ok(Step::Interrupted),
                    // A processor that has not been started yet.
                    io::ErrorKind::WouldBlock => Ok(Step::On),
                    _ => Err(error),
                };
            }
        };
        let effect = match exit {
            VcpuExit::MmioRead(address, data) => {
                memory_mapped.read(address, data);
                Effect::None
            }
            VcpuExit::MmioWrite(address, data) => memory_mapped.write(address, data),
            // More than 4 bytes come from string instructions alone, which no device here expects.
            VcpuExit::IoIn(port, data) => {
                ports.read(port.into(), data);
                Effect::None
            }
            VcpuExit::IoOut(port, data) => ports.write(port.into(), data),
            VcpuExit::Intr => return Ok(Step::Interrupted),
            _ => return Ok(Step::Ended(ended(self.fd.get_kvm_run()))),
        };
        self.unfinished = true;
        Ok(match effect {
            Effect::None => Step::On,
            Effect::Rang => Step::Rang,
            Effect::Ended => Step::Ended(Ended::Off),
        })
    }
}

/// What KVM left, where the guest does not go on.
fn ended(run: &kvm_run) -> Ended {
    let of_exit = &run.__bindgen_anon_1;
    match run.exit_reason {
        KVM_EXIT_HLT => Ended::Halted,
        KVM_EXIT_SHUTDOWN => Ended::Shutdown,
        KVM_EXIT_SYSTEM_EVENT => {
            // SAFETY: with this exit the kernel fills this part.
            let kind = unsafe { of_exit.system_event.type_ };
            match kind {
                KVM_SYSTEM_EVENT_CRASH => Ended::Crashed,
                _ => Ended::Off,
            }
        }
        KVM_EXIT_FAIL_ENTRY => Ended::Entry {
            // SAFETY: with this exit the kernel fills this part.
            reason: unsafe { of_exit.fail_entry.hardware_entry_failure_reason },
        },
        KVM_EXIT_INTERNAL_ERROR => Ended::Internal {
            // SAFETY: with this exit the kernel fills this part.
            suberror: unsafe { of_exit.internal.suberror },
        },
        exit => Ended::Unknown { exit },
    }
}
