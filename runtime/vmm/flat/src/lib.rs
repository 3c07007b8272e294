//! What the flat guest and its host have in common: where things are, what is said, and how the
//! table is made that the host checks answers against.
#![no_std]

use serde::{Deserialize, Serialize};

/// The guest's physical addresses, which are its virtual ones.
pub mod address {
    /// Bytes for the guest: their number (4 bytes), then themselves.
    pub const TO_GUEST: u64 = 0x8000;
    /// Bytes from the guest, likewise.
    pub const FROM_GUEST: u64 = 0x9000;
    /// Of each.
    pub const ROOM: usize = 0x1000;
    /// A write here hands over to the host; the guest goes on when there is something for it.
    pub const DOORBELL: u64 = 0xd000_0000;
}

/// Registers that keep a value each while the guest waits.
pub const REGISTERS: usize = 16;
/// Words of such a register: four where the processor has AVX, else two.
pub const LANES: usize = 4;

/// Said to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToGuest {
    /// Before its first instruction.
    Boot {
        /// Of the table.
        seed: u64,
        /// Words in the table.
        words: u64,
        /// Bytes of memory.
        memory: u64,
        /// Nobody else has these.
        entropy: [u8; 32],
    },
    /// A life begins.
    Reseed {
        /// Which.
        epoch: u32,
        /// Whose.
        identity: u64,
        /// Nobody else has these.
        entropy: [u8; 32],
    },
    /// To be answered.
    Ask {
        /// Which words of the table are summed up.
        number: u64,
    },
    /// As `Ask`, but the sum is that of [`all`], which takes long.
    Work {
        /// How often it goes through the table.
        rounds: u64,
    },
    /// This word of the table is to be another one.
    Put {
        /// Which.
        index: u64,
        /// What it is to be.
        word: u64,
    },
    /// Never answers.
    Hang,
    /// Does what a processor cannot do.
    Crash,
}

/// Said by the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromGuest {
    /// Its code runs.
    Booted,
    /// The table is full.
    Ready {
        /// Made in its memory and nowhere else: it stays what it is until the guest boots again.
        nonce: u64,
    },
    /// It has taken this as its life.
    Reseeded {
        /// Which.
        epoch: u32,
        /// Whose.
        identity: u64,
    },
    /// To [`ToGuest::Ask`], [`ToGuest::Work`] and [`ToGuest::Put`].
    Answer(Answer),
    /// It does not understand, or cannot do it.
    Refused,
}

/// All that there is to check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Of the request.
    pub number: u64,
    /// Sum of the words of the table that [`sample`] names, or what [`all`] gives.
    pub sum: u64,
    /// As it was told last.
    pub epoch: u32,
    /// As it was told last.
    pub identity: u64,
    /// As it was when it became ready.
    pub nonce: u64,
    /// Answers until now, with this one.
    pub served: u64,
    /// The next of its random numbers.
    pub random: u64,
    /// Words that a vector register has: 4, or 2 without AVX.
    pub lanes: u64,
    /// The vector registers, [`folded`]; how they come about tells [`registers_after`].
    pub registers: u64,
}

/// Words that an answer sums up.
const SAMPLE: u64 = 32;

/// One step of a generator (`SplitMix64`); neighbours become as different as can be.
#[must_use]
pub const fn mixed(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// A word of the table.
#[must_use]
pub const fn word(seed: u64, index: u64) -> u64 {
    mixed(seed ^ mixed(index))
}

/// Which words of a table of so many an answer sums up; none of an empty one.
pub fn sample(number: u64, words: u64) -> impl Iterator<Item = u64> {
    let indices = (0..SAMPLE).map(move |step| mixed(number.wrapping_mul(SAMPLE) ^ step));
    indices.filter_map(move |index| index.checked_rem(words))
}

/// One word of all words, of which each depends on the place of each.
pub fn all(words: impl Iterator<Item = u64>) -> u64 {
    words.fold(0, |sum, word| mixed(sum ^ word))
}

/// What the vector registers have, given what they had, when another request came: each request
/// moves every one of their words.
#[must_use]
pub fn registers_after(
    registers: [[u64; LANES]; REGISTERS],
    number: u64,
) -> [[u64; LANES]; REGISTERS] {
    registers.map(|lanes| lanes.map(|lane| lane.rotate_left(9).wrapping_add(mixed(number))))
}

/// What they have before the first request.
#[must_use]
pub fn registers_at_first(seed: u64) -> [[u64; LANES]; REGISTERS] {
    core::array::from_fn(|register| {
        core::array::from_fn(|lane| word(!seed, (register * LANES + lane) as u64))
    })
}

/// They as one word.
#[must_use]
pub fn folded(registers: &[[u64; LANES]; REGISTERS], lanes: usize) -> u64 {
    all(registers
        .iter()
        .flat_map(|words| words.iter().take(lanes).copied()))
}
