//! The transport: the registers by which a driver finds a device and its queues.
//!
//! The modern one (version 2) over MMIO: ACPI tells where it is, no bus is scanned. A notification
//! is an exit of the virtual processor and is worked on at once; nothing is in flight between two
//! exits, so that a device is saved as it stands.

use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK,
    VIRTIO_CONFIG_S_FAILED, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET,
    VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_mmio as mmio;
use virtio_queue::{Queue, QueueState as Ring, QueueT as _};

use super::queue::Queues;
use super::{Kind, Memory, Unfit};
use crate::device::bus::{Device, Effect};
use crate::device::line::Line;

/// Bytes of address space that one device takes.
pub const LENGTH: u64 = 0x1000;

/// `virt`.
const MAGIC: u32 = 0x7472_6976;
/// Not the one of drafts.
const VERSION: u32 = 2;
/// Whose devices these are: any four letters.
const VENDOR: u32 = u32::from_le_bytes(*b"hrth");
/// Where the configuration of the device begins.
const CONFIGURATION: u64 = mmio::VIRTIO_MMIO_CONFIG as u64;
/// All that a driver may say of itself.
const STATUS: u32 = VIRTIO_CONFIG_S_ACKNOWLEDGE
    | VIRTIO_CONFIG_S_DRIVER
    | VIRTIO_CONFIG_S_DRIVER_OK
    | VIRTIO_CONFIG_S_FEATURES_OK
    | VIRTIO_CONFIG_S_FAILED;

/// One device and its registers.
#[derive(Debug)]
pub struct Transport<D> {
    device: D,
    memory: Memory,
    line: Line,
    registers: Registers,
    queues: Vec<Queue>,
    refused: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Registers {
    status: u32,
    interrupt: u32,
    /// Which half of the features is read.
    offered_half: u32,
    /// Which half of the features is written.
    taken_half: u32,
    /// What the driver takes of what is offered.
    taken: u64,
    /// Which queue the other registers are of.
    queue: u32,
}

impl<D: Kind> Transport<D> {
    /// A device that no driver has touched.
    #[must_use]
    pub fn new(device: D, memory: Memory, line: Line) -> Self {
        Self {
            device,
            memory,
            line,
            registers: Registers::default(),
            queues: new_queues(D::QUEUES),
            refused: 0,
        }
    }

    /// The device itself.
    #[must_use]
    pub fn device(&self) -> &D {
        &self.device
    }

    pub(super) fn device_mut(&mut self) -> &mut D {
        &mut self.device
    }

    /// Requests that were none, so far.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// The line that it raises, for who connects it.
    #[must_use]
    pub fn line(&self) -> &Line {
        &self.line
    }

    fn register(&self, offset: u64) -> u32 {
        let registers = &self.registers;
        match u32::try_from(offset).unwrap_or(u32::MAX) {
            mmio::VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            mmio::VIRTIO_MMIO_VERSION => VERSION,
            mmio::VIRTIO_MMIO_DEVICE_ID => D::ID,
            mmio::VIRTIO_MMIO_VENDOR_ID => VENDOR,
            mmio::VIRTIO_MMIO_DEVICE_FEATURES => half(self.offered(), registers.offered_half),
            mmio::VIRTIO_MMIO_QUEUE_NUM_MAX => {
                self.selected().map_or(0, |queue| queue.max_size().into())
            }
            mmio::VIRTIO_MMIO_QUEUE_READY => self
                .selected()
                .is_some_and(virtio_queue::QueueT::ready)
                .into(),
            mmio::VIRTIO_MMIO_INTERRUPT_STATUS => registers.interrupt,
            mmio::VIRTIO_MMIO_STATUS => registers.status,
            // There is no shared memory: its length is -1.
            mmio::VIRTIO_MMIO_SHM_LEN_LOW..=mmio::VIRTIO_MMIO_SHM_BASE_HIGH => u32::MAX,
            _ => 0,
        }
    }

    fn set_register(&mut self, offset: u32, value: u32) {
        let has_agreed = self.has(VIRTIO_CONFIG_S_FEATURES_OK);
        let registers = &mut self.registers;
        match offset {
            mmio::VIRTIO_MMIO_DEVICE_FEATURES_SEL => registers.offered_half = value,
            mmio::VIRTIO_MMIO_DRIVER_FEATURES_SEL => registers.taken_half = value,
            mmio::VIRTIO_MMIO_DRIVER_FEATURES if !has_agreed => {
                set_half(&mut registers.taken, registers.taken_half, value);
            }
            mmio::VIRTIO_MMIO_QUEUE_SEL => registers.queue = value,
            mmio::VIRTIO_MMIO_QUEUE_NOTIFY => self.notified(value),
            mmio::VIRTIO_MMIO_INTERRUPT_ACK => registers.interrupt &= !value,
            mmio::VIRTIO_MMIO_STATUS => self.set_status(value),
            mmio::VIRTIO_MMIO_QUEUE_NUM..=mmio::VIRTIO_MMIO_QUEUE_USED_HIGH => {
                self.set_up(offset, value);
            }
            _ => {}
        }
    }

    /// What the driver says of one queue, before it begins to use them.
    fn set_up(&mut self, offset: u32, value: u32) {
        if !self.has(VIRTIO_CONFIG_S_FEATURES_OK) || self.has(VIRTIO_CONFIG_S_FAILED) {
            return;
        }
        let index = usize::try_from(self.registers.queue).unwrap_or(usize::MAX);
        let Some(queue) = self.queues.get_mut(index) else {
            return;
        };
        if offset == mmio::VIRTIO_MMIO_QUEUE_READY {
            queue.set_ready(value == 1);
            if value == 1 && !queue.is_valid(&self.memory) {
                queue.set_ready(false);
                self.break_down();
            }
            return;
        }
        // Where a queue is in use, nothing about it changes.
        if queue.ready() {
            return;
        }
        match offset {
            // A size that is none leaves the old one.
            mmio::VIRTIO_MMIO_QUEUE_NUM => {
                let _ = queue.try_set_size(u16::try_from(value).unwrap_or(0));
            }
            mmio::VIRTIO_MMIO_QUEUE_DESC_LOW => queue.set_desc_table_address(Some(value), None),
            mmio::VIRTIO_MMIO_QUEUE_DESC_HIGH => queue.set_desc_table_address(None, Some(value)),
            mmio::VIRTIO_MMIO_QUEUE_AVAIL_LOW => queue.set_avail_ring_address(Some(value), None),
            mmio::VIRTIO_MMIO_QUEUE_AVAIL_HIGH => queue.set_avail_ring_address(None, Some(value)),
            mmio::VIRTIO_MMIO_QUEUE_USED_LOW => queue.set_used_ring_address(Some(value), None),
            mmio::VIRTIO_MMIO_QUEUE_USED_HIGH => queue.set_used_ring_address(None, Some(value)),
            _ => {}
        }
    }

    fn set_status(&mut self, value: u32) {
        if value == 0 {
            self.registers = Registers::default();
            self.queues = new_queues(D::QUEUES);
            self.device.reset();
            return;
        }
        // Only a reset takes anything back.
        let mut new = value & STATUS & !self.registers.status;
        let taken = self.registers.taken;
        let can_be = taken & !self.offered() == 0 && taken >> VIRTIO_F_VERSION_1 & 1 == 1;
        if !can_be {
            new &= !VIRTIO_CONFIG_S_FEATURES_OK;
        }
        self.registers.status |= new;
    }

    fn notified(&mut self, queue: u32) {
        if let Ok(queue) = usize::try_from(queue) {
            self.work(|device, queues| device.notified(queue, queues));
        }
    }

    /// Lets the device use its queues, and tells the driver what came of it.
    pub(super) fn work<T>(&mut self, work: impl FnOnce(&mut D, &mut Queues<'_>) -> T) -> Option<T> {
        if !self.is_driven() {
            return None;
        }
        let mut queues = Queues::new(&self.memory, &mut self.queues);
        let done = work(&mut self.device, &mut queues);
        let (is_used, is_broken) = (queues.is_used, queues.is_broken);
        self.refused += queues.refused;
        if is_used {
            self.interrupt(mmio::VIRTIO_MMIO_INT_VRING);
        }
        if is_broken {
            self.break_down();
        }
        Some(done)
    }

    /// Whether a driver is at work with it.
    #[must_use]
    pub fn is_driven(&self) -> bool {
        self.has(VIRTIO_CONFIG_S_DRIVER_OK)
            && !self.has(VIRTIO_CONFIG_S_NEEDS_RESET)
            && !self.has(VIRTIO_CONFIG_S_FAILED)
    }

    fn break_down(&mut self) {
        self.registers.status |= VIRTIO_CONFIG_S_NEEDS_RESET;
        if self.has(VIRTIO_CONFIG_S_DRIVER_OK) {
            self.interrupt(mmio::VIRTIO_MMIO_INT_CONFIG);
        }
    }

    fn interrupt(&mut self, why: u32) {
        self.registers.interrupt |= why;
        self.line.raise();
    }

    fn has(&self, status: u32) -> bool {
        self.registers.status & status != 0
    }

    fn offered(&self) -> u64 {
        self.device.features() | 1 << VIRTIO_F_VERSION_1
    }

    fn selected(&self) -> Option<&Queue> {
        self.queues.get(usize::try_from(self.registers.queue).ok()?)
    }

    /// All that a driver knows of it, and what the device keeps.
    pub fn save(&self) -> TransportState<D::State> {
        TransportState {
            registers: self.registers.clone(),
            queues: self
                .queues
                .iter()
                .map(|queue| queue.state().into())
                .collect(),
            device: self.device.save(),
        }
    }

    /// Goes on with a driver that another machine began with.
    pub fn restore(&mut self, state: TransportState<D::State>) -> Result<(), Unfit> {
        let offered = self.offered();
        let missing = state.registers.taken & !offered;
        if missing != 0 {
            return Err(Unfit::new(
                "virtio.taken",
                format_args!("features {:#x} are in use", state.registers.taken),
                format!(
                    "the device of this machine has not {missing:#x}: restore it where it was saved"
                ),
            ));
        }
        if state.queues.len() != self.queues.len() {
            return Err(Unfit::new(
                "virtio.queues",
                state.queues.len(),
                format!("the device has {}", self.queues.len()),
            ));
        }
        let mut queues = Vec::new();
        for (saved, most) in state.queues.into_iter().zip(D::QUEUES) {
            queues.push(saved.queue(*most, &self.memory)?);
        }
        self.device.restore(state.device)?;
        self.registers = state.registers;
        self.registers.status &= STATUS | VIRTIO_CONFIG_S_NEEDS_RESET;
        self.queues = queues;
        // The edge may have been on its way when the machine was saved; one too many does nothing.
        if self.registers.interrupt != 0 {
            self.line.raise();
        }
        Ok(())
    }
}

impl<D: Kind + Send> Device for Transport<D> {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(at) = offset.checked_sub(CONFIGURATION) {
            let configuration = self.device.configuration();
            let from = usize::try_from(at).unwrap_or(usize::MAX);
            let there = configuration.get(from..).unwrap_or_default();
            for (byte, value) in data.iter_mut().zip(there) {
                *byte = *value;
            }
        } else if data.len() == 4 && offset.is_multiple_of(4) {
            data.copy_from_slice(&self.register(offset).to_le_bytes());
        }
    }

    /// No configuration can be written.
    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        if let (Ok(value), Ok(offset)) = (data.try_into(), u32::try_from(offset)) {
            self.set_register(offset, u32::from_le_bytes(value));
        }
        Effect::None
    }
}

fn new_queues(sizes: &[u16]) -> Vec<Queue> {
    // Each is a power of two, as the trait says: a device with less queues does not start.
    sizes
        .iter()
        .filter_map(|size| Queue::new(*size).ok())
        .collect()
}

fn half(all: u64, which: u32) -> u32 {
    match which {
        0 => u32::try_from(all & u64::from(u32::MAX)).unwrap_or(0),
        1 => u32::try_from(all >> 32).unwrap_or(0),
        _ => 0,
    }
}

fn set_half(all: &mut u64, which: u32, value: u32) {
    match which {
        0 => *all = *all >> 32 << 32 | u64::from(value),
        1 => *all = *all & u64::from(u32::MAX) | u64::from(value) << 32,
        _ => {}
    }
}

/// What a transport is restored from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransportState<S> {
    registers: Registers,
    queues: Vec<QueueState>,
    device: S,
}

/// What a queue is restored from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct QueueState {
    size: u16,
    is_ready: bool,
    descriptors: u64,
    available: u64,
    used: u64,
    next_available: u16,
    next_used: u16,
}

impl From<Ring> for QueueState {
    fn from(ring: Ring) -> Self {
        Self {
            size: ring.size,
            is_ready: ring.ready,
            descriptors: ring.desc_table,
            available: ring.avail_ring,
            used: ring.used_ring,
            next_available: ring.next_avail,
            next_used: ring.next_used,
        }
    }
}

impl QueueState {
    fn queue(self, most: u16, memory: &Memory) -> Result<Queue, Unfit> {
        let ring = Ring {
            max_size: most,
            size: self.size,
            ready: self.is_ready,
            desc_table: self.descriptors,
            avail_ring: self.available,
            used_ring: self.used,
            next_avail: self.next_available,
            next_used: self.next_used,
            event_idx_enabled: false,
        };
        let value = format_args!("{self:x?}").to_string();
        let queue = Queue::try_from(ring)
            .map_err(|error| Unfit::new("virtio.queue", &value, error.to_string()))?;
        if queue.ready() && !queue.is_valid(memory) {
            let needed = "that is outside of the guest's memory";
            return Err(Unfit::new("virtio.queue", &value, needed));
        }
        Ok(queue)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::driver::{Driver, WRITE};
    use super::super::rng::{Rng, RngState};
    use super::*;

    fn driver() -> Driver<Rng> {
        Driver::new(Rng)
    }

    #[test]
    fn linux_finds_a_modern_device() {
        let mut driver = driver();
        assert_eq!(driver.get(mmio::VIRTIO_MMIO_MAGIC_VALUE), MAGIC);
        assert_eq!(driver.get(mmio::VIRTIO_MMIO_VERSION), 2);
        assert_eq!(driver.get(mmio::VIRTIO_MMIO_DEVICE_ID), 4);
        assert!(driver.transport.is_driven());
    }

    #[test]
    fn a_driver_that_takes_what_is_not_offered_is_not_agreed_with() {
        for (low, high) in [(1, 1), (0, 0), (0, 3)] {
            let mut driver = driver();
            driver.set(mmio::VIRTIO_MMIO_STATUS, 0);
            driver.set(mmio::VIRTIO_MMIO_STATUS, 3);
            for (half, value) in [(0, low), (1, high)] {
                driver.set(mmio::VIRTIO_MMIO_DRIVER_FEATURES_SEL, half);
                driver.set(mmio::VIRTIO_MMIO_DRIVER_FEATURES, value);
            }
            driver.set(mmio::VIRTIO_MMIO_STATUS, 3 | 8);
            assert_eq!(driver.get(mmio::VIRTIO_MMIO_STATUS), 3, "{low} {high}");
        }
    }

    #[test]
    fn an_answer_raises_the_line_until_it_is_acknowledged() {
        let mut driver = driver();
        assert_eq!(driver.get(mmio::VIRTIO_MMIO_INTERRUPT_STATUS), 0);
        driver.ask(0, &[], &[8]);
        assert_eq!(driver.transport.line().descriptor().read().unwrap(), 1);
        assert_eq!(driver.get(mmio::VIRTIO_MMIO_INTERRUPT_STATUS), 1);
        driver.set(mmio::VIRTIO_MMIO_INTERRUPT_ACK, 1);
        assert_eq!(driver.get(mmio::VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    }

    #[test]
    fn rings_outside_of_memory_are_not_used() {
        let mut driver = driver();
        driver.set(mmio::VIRTIO_MMIO_QUEUE_READY, 0);
        driver.set(mmio::VIRTIO_MMIO_QUEUE_USED_HIGH, 1);
        driver.set(mmio::VIRTIO_MMIO_QUEUE_READY, 1);
        assert_eq!(driver.get(mmio::VIRTIO_MMIO_QUEUE_READY), 0);
        assert_eq!(driver.get(mmio::VIRTIO_MMIO_STATUS) & 64, 64);
        driver.put(0, &[], &[8]);
        driver.notify(0);
        assert_eq!(driver.used(0).0, 0);
        driver.begin();
        assert!(driver.transport.is_driven());
    }

    #[test]
    fn requests_that_lead_out_of_memory_or_have_no_end_come_back_unanswered() {
        let mut driver = driver();
        // Outside, longer than may be, and a circle longer than may be.
        driver.describe(0, 0, 1 << 40, 16, WRITE, 0);
        driver.describe(0, 1, 0x10_0000, u32::MAX, WRITE, 0);
        driver.describe(0, 2, 0x10_0000, 1 << 20, WRITE | 1, 2);
        for head in 0..3 {
            driver.offer(0, head);
        }
        driver.notify(0);
        assert_eq!((driver.used(0), driver.transport.refused()), ((3, 0), 3));
        driver.ask(0, &[], &[8]);
        assert_eq!(driver.used(0), (4, 8));
    }

    #[test]
    fn more_requests_than_a_queue_has_break_it_until_a_reset() {
        let mut driver = driver();
        for _ in 0..65 {
            driver.put(0, &[], &[8]);
        }
        driver.notify(0);
        assert_eq!(driver.get(mmio::VIRTIO_MMIO_STATUS) & 64, 64);
        driver.set(mmio::VIRTIO_MMIO_INTERRUPT_ACK, 3);
        driver.put(0, &[], &[8]);
        driver.notify(0);
        assert_eq!(driver.used(0).0, 0);
    }

    #[test]
    fn a_driver_goes_on_with_a_restored_device() {
        let mut before = driver();
        before.ask(0, &[], &[8]);
        let state = before.transport.save();
        let line = Line::new().unwrap();
        before.transport = Transport::new(Rng, before.memory.clone(), line);
        before.transport.restore(state.clone()).unwrap();
        assert_eq!(before.transport.save(), state);
        // Nobody has acknowledged the first answer.
        assert_eq!(before.transport.line().descriptor().read().unwrap(), 1);
        before.ask(0, &[], &[9]);
        assert_eq!(before.used(0), (2, 9));
    }

    #[test]
    fn a_state_that_does_not_fit_names_what_does_not() {
        let driver = driver();
        let told = |change: fn(&mut TransportState<RngState>)| {
            let mut state = driver.transport.save();
            change(&mut state);
            let line = Line::new().unwrap();
            let mut other = Transport::new(Rng, driver.memory.clone(), line);
            other.restore(state).unwrap_err().to_string()
        };
        assert!(told(|state| state.registers.taken |= 1).starts_with("virtio.taken"));
        assert!(told(|state| state.queues.clear()).starts_with("virtio.queues: 0"));
        for change in [
            |queue: &mut QueueState| queue.size = 128,
            |queue: &mut QueueState| queue.size = 3,
            |queue: &mut QueueState| queue.used = 1 << 50,
            |queue: &mut QueueState| queue.available += 1,
        ] {
            let mut state = driver.transport.save();
            change(&mut state.queues[0]);
            let mut other = Transport::new(Rng, driver.memory.clone(), Line::new().unwrap());
            let error = other.restore(state).unwrap_err().to_string();
            assert!(error.starts_with("virtio.queue: "), "{error}");
        }
    }
}
