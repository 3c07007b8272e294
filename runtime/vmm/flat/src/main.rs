//! The flat guest: no kernel, no interrupts, no system calls, all of it at privilege level 3. It
//! fills a table, then answers.
#![no_std]
#![no_main]

mod doorbell;
mod memory;
mod registers;

use core::arch::{asm, x86_64::_rdtsc};
use core::panic::PanicInfo;

use hearth_flat_guest::{Answer, FromGuest, ToGuest, all, mixed, registers_after, sample, word};
use registers::Registers;

/// All that it knows, beside what is in vector registers while it waits.
struct Guest {
    table: &'static mut [u64],
    nonce: u64,
    random: u64,
    epoch: u32,
    identity: u64,
    served: u64,
}

#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    let Some(ToGuest::Boot {
        seed,
        words,
        memory,
        entropy,
    }) = doorbell::take()
    else {
        crash();
    };
    doorbell::put(&FromGuest::Booted);
    doorbell::ring();
    // SAFETY: this is the only table, and nothing else is put behind the program.
    let Some(table) = (unsafe { memory::behind_program(words, memory) }) else {
        crash();
    };
    for (index, entry) in table.iter_mut().enumerate() {
        *entry = word(seed, index as u64);
    }
    // SAFETY: it reads a counter.
    let now = unsafe { _rdtsc() };
    let random = taken_up(now, &entropy);
    let guest = Guest {
        table,
        nonce: mixed(random),
        random,
        epoch: 0,
        identity: 0,
        served: 0,
    };
    doorbell::put(&FromGuest::Ready { nonce: guest.nonce });
    guest.serve(Registers::of(seed))
}

impl Guest {
    fn serve(mut self, mut registers: Registers) -> ! {
        loop {
            registers.ring();
            let answer = match doorbell::take() {
                Some(ToGuest::Reseed {
                    epoch,
                    identity,
                    entropy,
                }) => {
                    (self.epoch, self.identity) = (epoch, identity);
                    self.random = taken_up(self.random, &entropy);
                    FromGuest::Reseeded { epoch, identity }
                }
                Some(ToGuest::Ask { number }) => {
                    let sum = self.sampled(number);
                    self.answer(number, sum, &mut registers)
                }
                Some(ToGuest::Work { rounds }) => {
                    let words = (0..rounds).flat_map(|_| self.table.iter().copied());
                    let sum = all(words);
                    self.answer(rounds, sum, &mut registers)
                }
                Some(ToGuest::Put { index, word }) => {
                    if let Some(entry) = self.entry(index) {
                        *entry = word;
                    }
                    let sum = self.sampled(index);
                    self.answer(index, sum, &mut registers)
                }
                Some(ToGuest::Hang) => hang(),
                Some(ToGuest::Crash) => crash(),
                Some(ToGuest::Boot { .. }) | None => FromGuest::Refused,
            };
            doorbell::put(&answer);
        }
    }

    fn entry(&mut self, index: u64) -> Option<&mut u64> {
        self.table.get_mut(usize::try_from(index).ok()?)
    }

    fn sampled(&mut self, number: u64) -> u64 {
        let indices = sample(number, self.table.len() as u64);
        indices.fold(0, |sum, index| {
            sum.wrapping_add(self.entry(index).map_or(0, |word| *word))
        })
    }

    fn answer(&mut self, number: u64, sum: u64, registers: &mut Registers) -> FromGuest {
        registers.words = registers_after(registers.words, number);
        self.served += 1;
        self.random = mixed(self.random);
        FromGuest::Answer(Answer {
            number,
            sum,
            epoch: self.epoch,
            identity: self.identity,
            nonce: self.nonce,
            served: self.served,
            random: self.random,
            lanes: registers.lanes() as u64,
            registers: registers.folded(),
        })
    }
}

/// A generator's state with this in it.
fn taken_up(state: u64, entropy: &[u8; 32]) -> u64 {
    let (words, _) = entropy.as_chunks::<8>();
    words.iter().fold(state, |state, word| {
        mixed(state ^ u64::from_le_bytes(*word))
    })
}

fn hang() -> ! {
    loop {
        core::hint::spin_loop();
    }
}

fn crash() -> ! {
    // SAFETY: nothing comes after it: there is nobody in the guest to take the exception.
    unsafe { asm!("ud2", options(noreturn, nomem, nostack)) }
}

#[panic_handler]
fn panicked(_: &PanicInfo<'_>) -> ! {
    crash()
}

/// Named by the core library, which was compiled for programs that unwind. This one does not.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
