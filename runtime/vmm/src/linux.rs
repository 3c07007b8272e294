//! A machine with Linux and its devices: booted, run, saved, restored.
//!
//! Where its devices are is the same in every machine, so that a saved guest finds them again.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use vm_memory::GuestAddress;

use crate::boot::acpi::{Described, Place};
use crate::boot::linux::{self as boot, LinuxError as BootError};
use crate::device::line::Line;
use crate::device::power::{self, Power, Wish};
use crate::device::serial::{self, Serial, SerialError, SerialState};
use crate::device::virtio::block::{Block, BlockState};
use crate::device::virtio::channel::{Channel, ChannelState};
use crate::device::virtio::rng::{Rng, RngState};
use crate::device::virtio::transport::{self, Transport, TransportState};
use crate::device::virtio::{Kind, Unfit};
use crate::device::vmgenid::{self, GenerationId, NoPlace};
use crate::device::{BusError, Device};
use crate::kvm::{ClockPolicy, Host};
use crate::machine::{Interrupts, Machine, MachineError, MachineState, Stop};
use crate::memory::Memory;

/// Where virtio devices are, in the order in which the guest numbers them: the channel is
/// `/dev/vport0p0`, the base `/dev/vda`, the layer `/dev/vdb`.
const CHANNEL: Place = place(0);
const RNG: Place = place(1);
const BASE: Place = place(2);
const LAYER: Place = place(3);
/// Tells of a new generation.
const GENERATION_INTERRUPT: u32 = 23;

const fn place(nr: u32) -> Place {
    Place {
        address: 0xd000_0000 + nr * 0x1000,
        interrupt: 16 + nr,
    }
}

/// Why there is no such guest, or it does not go on.
#[derive(Debug, thiserror::Error)]
pub enum LinuxError {
    /// The machine.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// What it is to boot.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// Its processor is not one that Linux begins on.
    #[error("the processor of Linux: {0}")]
    Processor(#[source] io::Error),
    /// Two devices at one place.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// A device cannot be made.
    #[error("{0}: {1}")]
    Device(&'static str, #[source] io::Error),
    /// The state of a device.
    #[error("{0}: {1}")]
    Unfit(&'static str, #[source] Unfit),
    /// The state of the console.
    #[error(transparent)]
    Console(#[from] SerialError),
    /// The generation's place.
    #[error(transparent)]
    Generation(#[from] NoPlace),
    /// A disk that belongs to the guest is not given, or one that it has not.
    #[error("the disk `{disk}`: {}; give those that the snapshot was taken with",
        if *.was_there { "it is missing" } else { "the guest has no such" })]
    Disk {
        /// Which.
        disk: &'static str,
        /// Whether the snapshot has it.
        was_there: bool,
    },
}

/// Files that are the guest's disks.
#[derive(Debug, Default)]
pub struct Disks {
    /// Read by many guests, written by none.
    pub base: Option<File>,
    /// This guest's own.
    pub layer: Option<File>,
}

/// What the guest is to be.
#[derive(Debug)]
pub struct Config<'a> {
    /// Bytes of memory.
    pub memory: u64,
    /// A bzImage or an ELF file.
    pub kernel: &'a File,
    /// The first file system.
    pub initramfs: Option<&'a File>,
    /// What the kernel is told.
    pub command_line: &'a str,
    /// Others in each life of each guest.
    pub generation: [u8; vmgenid::LENGTH],
}

/// What is saved of it beside its memory and its disks.
#[derive(Debug, Serialize, Deserialize)]
pub struct LinuxState {
    machine: MachineState,
    console: SerialState,
    channel: TransportState<ChannelState>,
    rng: TransportState<RngState>,
    base: Option<TransportState<BlockState>>,
    layer: Option<TransportState<BlockState>>,
}

impl LinuxState {
    /// Bytes of its memory.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.machine.memory
    }
}

type Shared<T> = Arc<Mutex<T>>;

/// A machine with Linux.
pub struct Linux {
    machine: Machine,
    console: Shared<Serial>,
    power: Shared<Power>,
    channel: Shared<Transport<Channel>>,
    rng: Shared<Transport<Rng>>,
    base: Option<Shared<Transport<Block>>>,
    layer: Option<Shared<Transport<Block>>>,
    generation: GenerationId,
}

impl Linux {
    /// One whose first instruction is yet to come.
    pub fn boot(host: &Host, config: &Config<'_>, disks: Disks) -> Result<Self, LinuxError> {
        let memory = Memory::fresh(config.memory).map_err(MachineError::from)?;
        let machine = Machine::new(host, memory, Interrupts::Pc)?;
        let guest = Self::with_devices(machine, disks, None)?;
        let memory = guest.machine.memory().guest();
        let mut virtio = vec![CHANNEL, RNG];
        virtio.extend(guest.base.is_some().then_some(BASE));
        virtio.extend(guest.layer.is_some().then_some(LAYER));
        let devices = Described {
            virtio,
            generation: boot::GENERATION,
            generation_interrupt: GENERATION_INTERRUPT,
        };
        let linux = boot::Linux {
            kernel: config.kernel,
            initramfs: config.initramfs,
            command_line: config.command_line,
            devices: &devices,
        };
        let entry = boot::load(memory, &linux)?;
        let processor = guest.machine.processor();
        let set = processor.get_sregs().and_then(|new| {
            processor.set_sregs(&boot::special_registers(new))?;
            processor.set_regs(&boot::registers(entry))
        });
        set.map_err(|error| LinuxError::Processor(error.into()))?;
        guest.generation.renew(memory, config.generation)?;
        Ok(guest)
    }

    /// Goes on with one that was saved. Before its first instruction it is of another generation.
    pub fn restore(
        host: &Host,
        memory: File,
        state: LinuxState,
        disks: Disks,
        clock: ClockPolicy,
        generation: [u8; vmgenid::LENGTH],
    ) -> Result<Self, LinuxError> {
        let memory = Memory::restored(memory, state.memory()).map_err(MachineError::from)?;
        let machine = Machine::restored(host, memory, &state.machine, clock)?;
        let mut guest = Self::with_devices(machine, disks, Some(state.console))?;
        let unfit = |device| move |error| LinuxError::Unfit(device, error);
        lock(&guest.channel)
            .restore(state.channel)
            .map_err(unfit("channel"))?;
        lock(&guest.rng).restore(state.rng).map_err(unfit("rng"))?;
        restore_disk("base", guest.base.as_mut(), state.base)?;
        restore_disk("layer", guest.layer.as_mut(), state.layer)?;
        guest
            .generation
            .renew(guest.machine.memory().guest(), generation)?;
        Ok(guest)
    }

    fn with_devices(
        mut machine: Machine,
        disks: Disks,
        console: Option<SerialState>,
    ) -> Result<Self, LinuxError> {
        let line = line(&machine, serial::IRQ)?;
        let console = match console {
            Some(state) => Serial::restore(state, line)?,
            None => Serial::new(line),
        };
        let console = Arc::new(Mutex::new(console));
        put_at_ports(&mut machine, serial::PORT, serial::REGISTERS, &console)?;
        let power = Arc::new(Mutex::new(Power::default()));
        put_at_ports(&mut machine, power::PORT, power::REGISTERS, &power)?;
        let channel = Channel::new().map_err(|error| LinuxError::Device("channel", error))?;
        let disk = |file, is_writable, name| {
            let disk = Block::new(file, is_writable, name);
            disk.map_err(|error| LinuxError::Device(name, error))
        };
        let base = disks.base.map(|file| disk(file, false, "base"));
        let layer = disks.layer.map(|file| disk(file, true, "layer"));
        let mut put_disk = |disk: Option<Result<Block, _>>, place| {
            disk.map(|disk| virtio(&mut machine, disk?, place))
                .transpose()
        };
        let (base, layer) = (put_disk(base, BASE)?, put_disk(layer, LAYER)?);
        Ok(Self {
            console,
            power,
            channel: virtio(&mut machine, channel, CHANNEL)?,
            rng: virtio(&mut machine, Rng, RNG)?,
            base,
            layer,
            generation: GenerationId::new(
                GuestAddress(boot::GENERATION),
                self::line(&machine, GENERATION_INTERRUPT)?,
            ),
            machine,
        })
    }

    /// Runs it until it stops.
    pub fn run(&mut self, deadline: Instant) -> Result<Stop, LinuxError> {
        Ok(self.machine.run(deadline)?)
    }

    /// Its state; its memory goes to a new file. It can go on.
    pub fn save(&mut self, host: &Host, memory: &File) -> Result<LinuxState, LinuxError> {
        // First: what it was doing may be with a device.
        let machine = self.machine.save(host)?;
        let saved = self.machine.memory().save(memory);
        saved.map_err(MachineError::from)?;
        let disk = |disk: &Shared<Transport<Block>>| lock(disk).save();
        Ok(LinuxState {
            machine,
            console: lock(&self.console).save(),
            channel: lock(&self.channel).save(),
            rng: lock(&self.rng).save(),
            base: self.base.as_ref().map(disk),
            layer: self.layer.as_ref().map(disk),
        })
    }

    /// The stream to the guest, for another thread than the one that runs it. Its end outside is
    /// closed in a new machine.
    #[must_use]
    pub fn channel(&self) -> Shared<Transport<Channel>> {
        Arc::clone(&self.channel)
    }

    /// What the guest says on its console.
    #[must_use]
    pub fn console(&self) -> Shared<Serial> {
        Arc::clone(&self.console)
    }

    /// What it wanted, if it is over.
    #[must_use]
    pub fn wish(&self) -> Option<Wish> {
        lock(&self.power).wish()
    }
}

fn lock<T>(shared: &Shared<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn line(machine: &Machine, interrupt: u32) -> Result<Line, LinuxError> {
    let failed = |error| LinuxError::Device("interrupt", error);
    let line = Line::new().map_err(failed)?;
    let connected = machine.vm().register_irqfd(line.descriptor(), interrupt);
    connected.map_err(|error| failed(error.into()))?;
    Ok(line)
}

fn put_at_ports(
    machine: &mut Machine,
    first: u16,
    count: u16,
    device: &Shared<impl Device + 'static>,
) -> Result<(), BusError> {
    let first = u64::from(first);
    let device: Arc<Mutex<dyn Device>> = device.clone();
    machine
        .ports()
        .insert(first..first + u64::from(count), device)
}

fn virtio<D: Kind + Send + 'static>(
    machine: &mut Machine,
    device: D,
    place: Place,
) -> Result<Shared<Transport<D>>, LinuxError> {
    let line = line(machine, place.interrupt)?;
    let memory = machine.memory().guest().clone();
    let transport = Arc::new(Mutex::new(Transport::new(device, memory, line)));
    let first = u64::from(place.address);
    let shared: Arc<Mutex<dyn Device>> = transport.clone();
    machine
        .memory_mapped()
        .insert(first..first + transport::LENGTH, shared)?;
    Ok(transport)
}

fn restore_disk(
    disk: &'static str,
    here: Option<&mut Shared<Transport<Block>>>,
    state: Option<TransportState<BlockState>>,
) -> Result<(), LinuxError> {
    match (here, state) {
        (Some(here), Some(state)) => lock(here)
            .restore(state)
            .map_err(|error| LinuxError::Unfit(disk, error)),
        (None, None) => Ok(()),
        (_, state) => Err(LinuxError::Disk {
            disk,
            was_there: state.is_some(),
        }),
    }
}
