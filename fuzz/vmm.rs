//! What the fuzz targets of the VMM do with their bytes. The VMM's tests run the same without a
//! fuzzer.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};

use hearth_vmm::device::Device as _;
use hearth_vmm::device::line::Line;
use hearth_vmm::device::virtio::block::Block;
use hearth_vmm::device::virtio::channel::Channel;
use hearth_vmm::device::virtio::rng::Rng;
use hearth_vmm::device::virtio::transport::Transport;
use hearth_vmm::device::virtio::{Kind, Memory};
use vm_memory::{Bytes as _, GuestAddress};

/// Bytes of the guest's memory.
const MEMORY: usize = 1 << 20;
/// Bytes of a queue's descriptors, and of each of its rings.
const PART: u64 = 0x1000;
/// Bytes of what a driver does at once.
const ROUND: usize = 0x2000;
/// What the base has in it.
const BASE: [u8; 4096] = [7; 4096];

/// Any bytes as the queues of a driver, and as what it writes to registers while they are in use:
/// each device works through them, reads and writes within the guest's memory, and a base stays
/// what it is.
pub(crate) fn descriptors(data: &[u8]) {
    let mut base = tempfile::tempfile().expect("a file");
    base.write_all(&BASE).expect("a disk");
    let disk = |base: &File, is_writable| {
        let file = base.try_clone().expect("a file");
        Block::new(file, is_writable, "base").expect("a disk")
    };
    drive(disk(&base, false), data);
    let mut after = Vec::new();
    base.seek(SeekFrom::Start(0)).expect("the disk");
    base.read_to_end(&mut after).expect("the disk");
    assert_eq!(after, BASE);
    drive(disk(&base, true), data);
    let length = base.metadata().expect("the disk").len();
    assert_eq!(length, BASE.len() as u64, "no disk grows");
    drive(Rng, data);
    drive(Channel::new().expect("a channel"), data);
}

fn drive<D: Kind + Send>(device: D, data: &[u8]) {
    let memory = Memory::from_ranges(&[(GuestAddress(0), MEMORY)]).expect("memory");
    let line = Line::new().expect("a line");
    let mut transport = Transport::new(device, memory.clone(), line);
    let set = |transport: &mut Transport<D>, register: u64, value: u32| {
        transport.write(register, &value.to_le_bytes());
    };
    set(&mut transport, 0x70, 3);
    // All that is offered, and the modern transport.
    let mut offered = [0; 4];
    transport.read(0x10, &mut offered);
    set(&mut transport, 0x20, u32::from_le_bytes(offered));
    set(&mut transport, 0x24, 1);
    set(&mut transport, 0x20, 1);
    set(&mut transport, 0x70, 3 | 8);
    let mut at = 0x1000;
    for (queue, size) in (0..).zip(D::QUEUES) {
        set(&mut transport, 0x30, queue);
        set(&mut transport, 0x38, u32::from(*size));
        for register in [0x80, 0x90, 0xa0] {
            set(
                &mut transport,
                register,
                u32::try_from(at).expect("an address"),
            );
            at += PART;
        }
        set(&mut transport, 0x44, 1);
    }
    set(&mut transport, 0x70, 3 | 8 | 4);
    assert!(transport.is_driven());
    for round in data.chunks(ROUND) {
        let (registers, bytes) = round.split_at(round.len().min(8));
        // Each queue has the same in its memory, and says that something is there.
        for queue in 0..D::QUEUES.len() as u64 {
            let descriptors = GuestAddress(0x1000 + queue * 3 * PART);
            memory.write_slice(bytes, descriptors).expect("memory");
        }
        for queue in 0..D::QUEUES.len() {
            set(&mut transport, 0x50, u32::try_from(queue).expect("a queue"));
        }
        if let [register, a, b, c, d, ..] = *registers {
            transport.write(u64::from(register) * 4, &[a, b, c, d]);
            transport.read(u64::from(register), &mut [0; 4]);
        }
    }
    let _ = transport.save();
}
