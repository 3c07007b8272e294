//! The flat guest on this host's KVM: booted, saved, restored and cloned, and each answer checked.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod built;

use std::fs::File;
use std::io::Read as _;
use std::time::{Duration, Instant};

use hearth_flat_guest::{
    Answer, LANES, REGISTERS, ToGuest, all, folded, registers_after, registers_at_first, sample,
    word,
};
use hearth_vmm::flat::{Config, Flat, FlatError, FlatState, Life};
use hearth_vmm::kvm::{ClockPolicy, Host};

const SEED: u64 = 5;
/// In a table of 4 MiB.
const WORDS: u64 = 1 << 19;
const MEMORY: u64 = 16 << 20;

/// What is missing for these tests is a failure, never a skip.
fn host() -> Host {
    Host::open().expect("these tests take a KVM")
}

fn soon() -> Instant {
    Instant::now() + Duration::from_mins(1)
}

fn boot(host: &Host, entropy: u8) -> (Flat, u64) {
    let config = Config {
        memory: MEMORY,
        seed: SEED,
        words: WORDS,
        entropy: [entropy; 32],
    };
    Flat::boot(host, &mut built::flat_guest(), &config, soon()).unwrap()
}

fn life(number: u32) -> Life {
    let entropy = [u8::try_from(number % 251).unwrap(); 32];
    Life {
        epoch: number,
        identity: u64::from(number) << 32 | 7,
        entropy,
    }
}

fn ask(guest: &mut Flat, number: u64) -> Answer {
    guest.ask(&ToGuest::Ask { number }, soon()).unwrap()
}

/// A guest as it is on disk.
struct Snapshot {
    memory: tempfile::NamedTempFile,
    state: Vec<u8>,
}

impl Snapshot {
    fn of(host: &Host, guest: &mut Flat) -> Self {
        let memory = tempfile::NamedTempFile::new().unwrap();
        let state = guest.save(host, memory.as_file()).unwrap();
        let state = postcard::to_stdvec(&state).unwrap();
        Self { memory, state }
    }

    fn memory(&self) -> File {
        File::open(self.memory.path()).unwrap()
    }

    fn state(&self) -> FlatState {
        postcard::from_bytes(&self.state).unwrap()
    }

    fn restore(&self, host: &Host) -> Flat {
        Flat::restore(host, self.memory(), &self.state(), ClockPolicy::Continue).unwrap()
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.memory().read_to_end(&mut bytes).unwrap();
        bytes
    }
}

/// What a guest must answer, worked out without it.
#[derive(Clone)]
struct Expected {
    life: Life,
    nonce: u64,
    served: u64,
    registers: [[u64; LANES]; REGISTERS],
}

impl Expected {
    fn of(life: Life, nonce: u64) -> Self {
        let registers = registers_at_first(SEED);
        Self {
            life,
            nonce,
            served: 0,
            registers,
        }
    }

    fn sum(number: u64) -> u64 {
        let words = sample(number, WORDS).map(|index| word(SEED, index));
        words.fold(0, u64::wrapping_add)
    }

    /// Asks, and fails where the answer is not right in all that it has.
    fn check(&mut self, guest: &mut Flat, number: u64) -> Answer {
        let answer = ask(guest, number);
        self.is_right(&answer, number, Self::sum(number));
        answer
    }

    fn is_right(&mut self, answer: &Answer, number: u64, sum: u64) {
        self.served += 1;
        self.registers = registers_after(self.registers, number);
        let lanes = usize::try_from(answer.lanes).unwrap();
        assert!(lanes == LANES || lanes == LANES / 2, "{lanes}");
        let right = Answer {
            number,
            sum,
            epoch: self.life.epoch,
            identity: self.life.identity,
            nonce: self.nonce,
            served: self.served,
            random: answer.random,
            lanes: answer.lanes,
            registers: folded(&self.registers, lanes),
        };
        assert_eq!(*answer, right);
    }
}

#[test]
fn a_guest_that_booted_answers_right() {
    let host = host();
    let (mut guest, nonce) = boot(&host, 1);
    guest.reseed(&life(1), soon()).unwrap();
    let mut expected = Expected::of(life(1), nonce);
    for number in [0, 1, 2, u64::MAX] {
        expected.check(&mut guest, number);
    }
}

#[test]
fn a_thousand_restores_answer_right_each_as_itself() {
    let host = host();
    let (mut guest, nonce) = boot(&host, 2);
    let snapshot = Snapshot::of(&host, &mut guest);
    drop(guest);
    for number in 1..=1000 {
        let mut clone = snapshot.restore(&host);
        clone.reseed(&life(number), soon()).unwrap();
        let mut expected = Expected::of(life(number), nonce);
        expected.check(&mut clone, number.into());
        expected.check(&mut clone, number.into());
    }
}

#[test]
fn who_has_not_acknowledged_its_life_is_not_asked() {
    let host = host();
    let (mut guest, _) = boot(&host, 3);
    let request = ToGuest::Ask { number: 1 };
    let refused = guest.ask(&request, soon()).unwrap_err();
    assert!(matches!(refused, FlatError::NotReseeded), "{refused}");
    guest.reseed(&life(1), soon()).unwrap();
    let snapshot = Snapshot::of(&host, &mut guest);
    // It knew its life when it was saved; that was another one.
    let refused = snapshot.restore(&host).ask(&request, soon()).unwrap_err();
    assert!(matches!(refused, FlatError::NotReseeded), "{refused}");
}

#[test]
fn what_was_in_vector_registers_when_it_was_saved_is_there_again() {
    let host = host();
    let (mut guest, nonce) = boot(&host, 4);
    guest.reseed(&life(1), soon()).unwrap();
    let mut expected = Expected::of(life(1), nonce);
    for number in 10..15 {
        expected.check(&mut guest, number);
    }
    let snapshot = Snapshot::of(&host, &mut guest);
    // The one that was saved goes on as if it had not been.
    let mut saved = expected.clone();
    saved.check(&mut guest, 99);
    let mut restored = snapshot.restore(&host);
    restored.reseed(&life(2), soon()).unwrap();
    expected.life = life(2);
    expected.check(&mut restored, 15);
    // And a snapshot of what was restored itself.
    let second = Snapshot::of(&host, &mut restored);
    let mut again = second.restore(&host);
    again.reseed(&life(3), soon()).unwrap();
    expected.life = life(3);
    expected.check(&mut again, 16);
}

#[test]
fn what_one_clone_writes_is_seen_by_no_other_nor_in_the_file() {
    let host = host();
    let (mut guest, nonce) = boot(&host, 5);
    let snapshot = Snapshot::of(&host, &mut guest);
    let before = snapshot.bytes();
    let mut clones = [1, 2].map(|number| {
        let mut clone = snapshot.restore(&host);
        clone.reseed(&life(number), soon()).unwrap();
        clone
    });
    let index = sample(77, WORDS).next().unwrap();
    let put = ToGuest::Put { index, word: 0 };
    clones[0].ask(&put, soon()).unwrap();
    assert_ne!(ask(&mut clones[0], 77).sum, Expected::sum(77));
    Expected::of(life(2), nonce).check(&mut clones[1], 77);
    assert!(snapshot.bytes() == before, "the memory file has changed");
}

#[test]
fn a_restored_guest_was_not_rebooted_and_has_random_numbers_of_its_own() {
    let host = host();
    let (mut guest, nonce) = boot(&host, 6);
    let (mut other, another) = boot(&host, 6);
    assert_ne!(nonce, another, "each boot makes a nonce of its own");
    other.reseed(&life(1), soon()).unwrap();
    assert_eq!(ask(&mut other, 1).nonce, another);
    let snapshot = Snapshot::of(&host, &mut guest);
    let first = |number| {
        let mut clone = snapshot.restore(&host);
        clone.reseed(&life(number), soon()).unwrap();
        let mut expected = Expected::of(life(number), nonce);
        expected.check(&mut clone, 1).random
    };
    let numbers = [1, 2, 3].map(first);
    assert_ne!(numbers[0], numbers[1]);
    assert_ne!(numbers[1], numbers[2]);
    // It is the entropy that makes the difference.
    assert_eq!(first(1), numbers[0]);
}

#[test]
fn what_was_saved_at_work_goes_on_with_it() {
    const ROUNDS: u64 = 20;
    let host = host();
    let (mut guest, nonce) = boot(&host, 7);
    guest.reseed(&life(1), soon()).unwrap();
    let mut expected = Expected::of(life(1), nonce);
    expected.check(&mut guest, 1);
    let work = ToGuest::Work { rounds: ROUNDS };
    let short = Instant::now() + Duration::from_millis(5);
    let late = guest.ask(&work, short).unwrap_err();
    assert!(matches!(late, FlatError::Deadline), "{late}");
    let refused = guest.reseed(&life(2), soon()).unwrap_err();
    assert!(matches!(refused, FlatError::Busy), "{refused}");
    let snapshot = Snapshot::of(&host, &mut guest);
    drop(guest);
    assert!(snapshot.state().is_busy);

    let mut restored = snapshot.restore(&host);
    let table = || (0..WORDS).map(|index| word(SEED, index));
    let sum = all((0..ROUNDS).flat_map(|_| table()));
    let answer = restored.wait(soon()).unwrap();
    expected.is_right(&answer, ROUNDS, sum);
    let idle = restored.wait(soon()).unwrap_err();
    assert!(matches!(idle, FlatError::Idle), "{idle}");
    restored.reseed(&life(2), soon()).unwrap();
    expected.life = life(2);
    expected.check(&mut restored, 3);
}

#[test]
fn who_hangs_and_who_crashes_is_told_apart() {
    let host = host();
    let (mut guest, _) = boot(&host, 8);
    let snapshot = Snapshot::of(&host, &mut guest);
    let ends = |request| {
        let mut clone = snapshot.restore(&host);
        clone.reseed(&life(1), soon()).unwrap();
        let deadline = Instant::now() + Duration::from_millis(50);
        clone.ask(&request, deadline).unwrap_err()
    };
    let hung = ends(ToGuest::Hang);
    assert!(matches!(hung, FlatError::Deadline), "{hung}");
    let crashed = ends(ToGuest::Crash);
    assert!(matches!(crashed, FlatError::Ended(_)), "{crashed}");
}

#[test]
fn memory_of_another_size_is_refused() {
    let host = host();
    let (mut guest, _) = boot(&host, 9);
    let snapshot = Snapshot::of(&host, &mut guest);
    let short = snapshot.memory.as_file();
    short.set_len(MEMORY - 4096).unwrap();
    let state = snapshot.state();
    let refused = Flat::restore(&host, snapshot.memory(), &state, ClockPolicy::Continue);
    let told = refused.err().unwrap().to_string();
    assert!(
        told.contains("16773120") && told.contains("16777216"),
        "{told}"
    );
}
