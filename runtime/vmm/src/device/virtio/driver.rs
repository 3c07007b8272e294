//! A driver, for tests: it does what Linux does with a device, or what Linux would never do.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use virtio_bindings::virtio_mmio as mmio;
use vm_memory::{Bytes as _, GuestAddress};

use super::transport::Transport;
use super::{Kind, Memory};
use crate::device::Device as _;
use crate::device::line::Line;

pub(crate) const WRITE: u16 = 2;
const NEXT: u16 = 1;

/// Bytes between the queues' rings, and where buffers are.
const RINGS: u64 = 0x1_0000;
const BUFFERS: u64 = 0x10_0000;

pub(crate) struct Driver<D: Kind> {
    pub(crate) transport: Transport<D>,
    pub(crate) memory: Memory,
    added: Vec<u16>,
}

impl<D: Kind + Send> Driver<D> {
    pub(crate) fn new(device: D) -> Self {
        let memory = Memory::from_ranges(&[(GuestAddress(0), 16 << 20)]).unwrap();
        let transport = Transport::new(device, memory.clone(), Line::new().unwrap());
        let mut driver = Self {
            transport,
            memory,
            added: vec![0; D::QUEUES.len()],
        };
        driver.begin();
        driver
    }

    pub(crate) fn get(&mut self, register: u32) -> u32 {
        let mut bytes = [0; 4];
        self.transport.read(register.into(), &mut bytes);
        u32::from_le_bytes(bytes)
    }

    pub(crate) fn set(&mut self, register: u32, value: u32) {
        self.transport.write(register.into(), &value.to_le_bytes());
    }

    /// From reset to work, all that is offered taken.
    pub(crate) fn begin(&mut self) {
        self.set(mmio::VIRTIO_MMIO_STATUS, 0);
        self.set(mmio::VIRTIO_MMIO_STATUS, 3);
        for half in 0..2 {
            self.set(mmio::VIRTIO_MMIO_DEVICE_FEATURES_SEL, half);
            self.set(mmio::VIRTIO_MMIO_DRIVER_FEATURES_SEL, half);
            let offered = self.get(mmio::VIRTIO_MMIO_DEVICE_FEATURES);
            self.set(mmio::VIRTIO_MMIO_DRIVER_FEATURES, offered);
        }
        self.set(mmio::VIRTIO_MMIO_STATUS, 3 | 8);
        assert_eq!(self.get(mmio::VIRTIO_MMIO_STATUS), 11);
        for queue in 0..D::QUEUES.len() {
            let at = u32::try_from(RINGS * (queue as u64 + 1)).unwrap();
            self.set(mmio::VIRTIO_MMIO_QUEUE_SEL, u32::try_from(queue).unwrap());
            let most = self.get(mmio::VIRTIO_MMIO_QUEUE_NUM_MAX);
            self.set(mmio::VIRTIO_MMIO_QUEUE_NUM, most);
            self.set(mmio::VIRTIO_MMIO_QUEUE_DESC_LOW, at);
            self.set(mmio::VIRTIO_MMIO_QUEUE_AVAIL_LOW, at + 0x4000);
            self.set(mmio::VIRTIO_MMIO_QUEUE_USED_LOW, at + 0x8000);
            self.set(mmio::VIRTIO_MMIO_QUEUE_READY, 1);
            assert_eq!(self.get(mmio::VIRTIO_MMIO_QUEUE_READY), 1);
        }
        self.set(mmio::VIRTIO_MMIO_STATUS, 3 | 8 | 4);
    }

    /// One descriptor of a queue, as it is to be.
    pub(crate) fn describe(
        &self,
        queue: usize,
        nr: u16,
        address: u64,
        length: u32,
        flags: u16,
        next: u16,
    ) {
        let at = RINGS * (queue as u64 + 1) + u64::from(nr) * 16;
        let mut bytes = address.to_le_bytes().to_vec();
        bytes.extend(length.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        self.memory.write_slice(&bytes, GuestAddress(at)).unwrap();
    }

    /// Makes a descriptor available.
    pub(crate) fn offer(&mut self, queue: usize, head: u16) {
        let ring = RINGS * (queue as u64 + 1) + 0x4000;
        let added = self.added[queue];
        let slot = ring + 4 + u64::from(added % D::QUEUES[queue]) * 2;
        self.memory.write_obj(head, GuestAddress(slot)).unwrap();
        self.added[queue] = added.wrapping_add(1);
        let index = self.added[queue];
        self.memory
            .write_obj(index, GuestAddress(ring + 2))
            .unwrap();
    }

    pub(crate) fn notify(&mut self, queue: usize) {
        self.set(
            mmio::VIRTIO_MMIO_QUEUE_NOTIFY,
            u32::try_from(queue).unwrap(),
        );
    }

    /// How many requests came back, and the bytes written into the last of them.
    pub(crate) fn used(&self, queue: usize) -> (u16, u32) {
        let ring = RINGS * (queue as u64 + 1) + 0x8000;
        let index: u16 = self.memory.read_obj(GuestAddress(ring + 2)).unwrap();
        let last = u64::from(index.wrapping_sub(1) % D::QUEUES[queue]);
        let length = self
            .memory
            .read_obj(GuestAddress(ring + 4 + last * 8 + 4))
            .unwrap();
        (index, length)
    }

    /// One request: what is said, and room for the answer. What came back.
    pub(crate) fn ask(&mut self, queue: usize, said: &[&[u8]], room: &[u32]) -> Vec<u8> {
        self.put(queue, said, room);
        self.notify(queue);
        let said: u64 = said.iter().map(|part| part.len() as u64).sum();
        let room = room.iter().map(|part| *part as usize).sum();
        let mut answer = vec![0; room];
        let from = GuestAddress(BUFFERS * (queue as u64 + 1) + said);
        self.memory.read_slice(&mut answer, from).unwrap();
        answer
    }

    /// The same, without telling the device.
    pub(crate) fn put(&mut self, queue: usize, said: &[&[u8]], room: &[u32]) {
        let mut at = BUFFERS * (queue as u64 + 1);
        let parts = said.len() + room.len();
        let lengths = said.iter().map(|part| u32::try_from(part.len()).unwrap());
        let lengths: Vec<u32> = lengths.chain(room.iter().copied()).collect();
        for (nr, length) in lengths.into_iter().enumerate() {
            let zero = vec![0; length as usize];
            let content = said.get(nr).copied().unwrap_or(&zero);
            self.memory.write_slice(content, GuestAddress(at)).unwrap();
            let writes = if nr < said.len() { 0 } else { WRITE };
            let more = if nr + 1 < parts { NEXT } else { 0 };
            let nr = u16::try_from(nr).unwrap();
            self.describe(queue, nr, at, length, writes | more, nr + 1);
            at += u64::from(length);
        }
        self.offer(queue, 0);
    }
}
