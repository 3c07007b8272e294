//! A few instructions on this host's KVM.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use hearth_flat_guest::address::DOORBELL;
use hearth_vmm::boot::flat::{self, Level};
use hearth_vmm::device::{Device, Effect};
use hearth_vmm::kvm::{ClockPolicy, Host};
use hearth_vmm::machine::{Interrupts, Machine, Stop, cpu_here};
use hearth_vmm::memory::Memory;
use hearth_vmm::probe::{Obstacle, probe};
use vm_memory::{Bytes as _, GuestAddress};

const MEMORY: u64 = 2 << 20;
const CODE: u64 = 0x10_0000;
/// Writes 16 bytes to the device, over and over: `mov edi, 0xd0000000; movdqu xmm0, [0x100100];
/// movdqu [rdi], xmm0; jmp` to the last but one. KVM has them written 8 by 8.
const WRITE: [u8; 20] = [
    0xbf, 0x00, 0x00, 0x00, 0xd0, 0xf3, 0x0f, 0x6f, 0x04, 0x25, 0x00, 0x01, 0x10, 0x00, 0xf3, 0x0f,
    0x7f, 0x07, 0xeb, 0xfa,
];
const BYTES: [u8; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
const BYTES_AT: u64 = CODE + 0x100;

/// Keeps what is written, and stops the guest there.
#[derive(Default)]
struct Kept(Vec<u8>);

impl Device for Kept {
    fn read(&mut self, _: u64, _: &mut [u8]) {}

    fn write(&mut self, _: u64, data: &[u8]) -> Effect {
        self.0.extend_from_slice(data);
        Effect::Rang
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_mins(1)
}

#[test]
fn what_the_processor_was_doing_when_it_was_saved_is_done_once() {
    for interrupts in [Interrupts::None, Interrupts::Pc] {
        let host = Host::open().expect("these tests take a KVM");
        let memory = Memory::fresh(MEMORY).unwrap();
        memory
            .guest()
            .write_slice(&WRITE, GuestAddress(CODE))
            .unwrap();
        memory
            .guest()
            .write_slice(&BYTES, GuestAddress(BYTES_AT))
            .unwrap();
        let mut machine = Machine::new(&host, memory, interrupts).unwrap();
        flat::begin_at(&host, &machine, CODE, Level::User).unwrap();
        let device = Arc::new(Mutex::new(Kept::default()));
        let plug = |machine: &mut Machine| {
            let device = Arc::clone(&device);
            machine
                .memory_mapped()
                .insert(DOORBELL..DOORBELL + 16, device)
                .unwrap();
        };
        let written = || device.lock().unwrap().0.clone();

        plug(&mut machine);
        assert_eq!(machine.run(soon()).unwrap(), Stop::Rang);
        assert_eq!(written(), BYTES[..8]);
        let file = tempfile::tempfile().unwrap();
        let state = machine.save(&host).unwrap();
        assert_eq!(written(), BYTES, "the rest is written before it is saved");
        machine.memory().save(&file).unwrap();
        drop(machine);

        let memory = Memory::restored(file, MEMORY).unwrap();
        let mut restored = Machine::restored(&host, memory, &state, ClockPolicy::Continue).unwrap();
        plug(&mut restored);
        for _ in 0..2 {
            assert_eq!(restored.run(soon()).unwrap(), Stop::Rang);
        }
        assert_eq!(written(), [BYTES, BYTES].concat(), "{interrupts:?}");
    }
}

#[test]
fn a_probe_tells_what_guests_run_here() {
    let host = Host::open().expect("these tests take a KVM");
    let probe = probe(&host);
    // The flat guest does, as the tests of it show; not every KVM runs kernels natively.
    assert!(probe.programs.is_ok(), "{probe:?}");
    let emulates = matches!(probe.kernels, Err(Obstacle::Emulated { .. }));
    assert!(emulates || probe.kernels.is_ok(), "{probe:?}");
}

#[test]
fn a_machine_is_stopped_from_another_thread_and_goes_on() {
    let host = Host::open().expect("these tests take a KVM");
    let memory = Memory::fresh(MEMORY).unwrap();
    // `jmp` to itself.
    memory
        .guest()
        .write_slice(&[0xeb, 0xfe], GuestAddress(CODE))
        .unwrap();
    let mut machine = Machine::new(&host, memory, Interrupts::None).unwrap();
    flat::begin_at(&host, &machine, CODE, Level::User).unwrap();
    let stopper = machine.stopper();
    thread::scope(|scope| {
        for _ in 0..20 {
            let asked = scope.spawn(|| stopper.stop());
            assert_eq!(machine.run(soon()).unwrap(), Stop::Asked);
            asked.join().unwrap().unwrap();
        }
    });
    let short = Instant::now() + Duration::from_millis(1);
    assert_eq!(machine.run(short).unwrap(), Stop::Deadline);
}

#[test]
fn what_a_guest_was_shown_of_the_processor_is_what_this_host_shows() {
    let host = Host::open().expect("these tests take a KVM");
    let here = cpu_here(&host).unwrap();
    assert!(!here.features.is_empty(), "{here:?}");
    let memory = Memory::fresh(MEMORY).unwrap();
    let mut machine = Machine::new(&host, memory, Interrupts::None).unwrap();
    flat::begin_at(&host, &machine, CODE, Level::User).unwrap();
    let state = machine.save(&host).unwrap();
    assert_eq!(state.cpu(), here);
    assert!(state.cpu().check(&here).is_ok());
}
