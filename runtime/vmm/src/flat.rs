//! The flat guest, spoken with: it boots, becomes ready, is told its life, and answers.

use std::fs::File;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use hearth_flat_guest::{Answer, FromGuest, ToGuest, address};
use serde::{Deserialize, Serialize};

use crate::boot::flat::{self as boot, FlatBootError};
use crate::device::{BusError, Doorbell, Letterbox, LetterboxError};
use crate::kvm::{ClockPolicy, Ended, Host};
use crate::machine::{Interrupts, Machine, MachineError, MachineState, Stop};
use crate::memory::{Memory, MemoryError};

const TO_GUEST: Letterbox = Letterbox {
    address: address::TO_GUEST,
    room: address::ROOM,
};
const FROM_GUEST: Letterbox = Letterbox {
    address: address::FROM_GUEST,
    room: address::ROOM,
};

/// Why the guest does not do what it is to do.
#[derive(Debug, thiserror::Error)]
pub enum FlatError {
    /// The machine does not go on.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// It does not begin.
    #[error(transparent)]
    Boot(#[from] FlatBootError),
    /// Its devices.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// What is said does not get across.
    #[error(transparent)]
    Letterbox(#[from] LetterboxError),
    /// What is said is not understood.
    #[error("the words of the flat guest: {0}; it is of another version than this program")]
    Words(#[from] postcard::Error),
    /// It had no answer in time; it can be waited for longer.
    #[error("the guest has not answered in time")]
    Deadline,
    /// It has not answered what it was asked before.
    #[error("the guest has not answered the request before: it takes no other")]
    Busy,
    /// It was not asked.
    #[error("the guest was not asked anything: there is no answer to wait for")]
    Idle,
    /// It is over.
    #[error("the guest is over: {0}")]
    Ended(Ended),
    /// Something else than it was to say.
    #[error("the guest says {found}, and was to say {wanted}")]
    Said {
        /// What it was to say.
        wanted: &'static str,
        /// What it says.
        found: String,
    },
    /// Nobody has told it its life, or it has not acknowledged it.
    #[error(
        "the guest has not acknowledged its epoch, identity and entropy: it is not put into service"
    )]
    NotReseeded,
}

/// What the guest is to be.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Bytes of memory.
    pub memory: u64,
    /// Of its table.
    pub seed: u64,
    /// Words in its table.
    pub words: u64,
    /// Nobody else has these.
    pub entropy: [u8; 32],
}

/// One life of the guest.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    /// Which.
    pub epoch: u32,
    /// Whose.
    pub identity: u64,
    /// Nobody else has these.
    pub entropy: [u8; 32],
}

/// A machine with the flat guest, which waits.
pub struct Flat {
    machine: Machine,
    /// Whether it knows its life.
    is_reseeded: bool,
    /// Whether it has not answered yet.
    is_busy: bool,
}

/// What is saved of it beside its memory.
#[derive(Debug, Serialize, Deserialize)]
pub struct FlatState {
    machine: MachineState,
    /// It was at work: restored once, it goes on with that. It is never cloned.
    pub is_busy: bool,
}

impl FlatState {
    /// Bytes of its memory.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.machine.memory
    }
}

impl Flat {
    /// Boots it, and lets it become ready. Gives its nonce, too.
    pub fn boot(
        host: &Host,
        program: &mut File,
        config: &Config,
        deadline: Instant,
    ) -> Result<(Self, u64), FlatError> {
        let &Config {
            memory,
            seed,
            words,
            entropy,
        } = config;
        let new = Memory::fresh(memory).map_err(MachineError::from)?;
        let machine = Machine::new(host, new, Interrupts::None)?;
        boot::load(host, &machine, program)?;
        let mut guest = Self::with_doorbell(machine)?;
        let boot = ToGuest::Boot {
            seed,
            words,
            memory,
            entropy,
        };
        match guest.say(&boot, deadline)? {
            FromGuest::Booted => {}
            found => return Err(said("that it has booted", found)),
        }
        match guest.listen(deadline)? {
            FromGuest::Ready { nonce } => Ok((guest, nonce)),
            found => Err(said("that it is ready", found)),
        }
    }

    /// Goes on with one that was saved. It must be told its new life.
    pub fn restore(
        host: &Host,
        memory: File,
        state: &FlatState,
        clock: ClockPolicy,
    ) -> Result<Self, FlatError> {
        let memory = Memory::restored(memory, state.memory()).map_err(MachineError::from)?;
        let machine = Machine::restored(host, memory, &state.machine, clock)?;
        let mut guest = Self::with_doorbell(machine)?;
        guest.is_busy = state.is_busy;
        Ok(guest)
    }

    fn with_doorbell(mut machine: Machine) -> Result<Self, FlatError> {
        let at = address::DOORBELL..address::DOORBELL + size_of::<u64>() as u64;
        machine
            .memory_mapped()
            .insert(at, Arc::new(Mutex::new(Doorbell)))?;
        Ok(Self {
            machine,
            is_reseeded: false,
            is_busy: false,
        })
    }

    /// Tells it its life, and waits until it has acknowledged that.
    pub fn reseed(&mut self, life: &Life, deadline: Instant) -> Result<(), FlatError> {
        let &Life {
            epoch,
            identity,
            entropy,
        } = life;
        self.is_reseeded = false;
        let reseed = ToGuest::Reseed {
            epoch,
            identity,
            entropy,
        };
        let wanted = FromGuest::Reseeded { epoch, identity };
        let found = self.say(&reseed, deadline)?;
        if found != wanted {
            return Err(said("that it has taken up its life", found));
        }
        self.is_reseeded = true;
        Ok(())
    }

    /// Has a request answered.
    pub fn ask(&mut self, request: &ToGuest, deadline: Instant) -> Result<Answer, FlatError> {
        if !self.is_reseeded {
            return Err(FlatError::NotReseeded);
        }
        answer(self.say(request, deadline)?)
    }

    /// The answer that it had not given in time: of its former life, where it was saved at work.
    pub fn wait(&mut self, deadline: Instant) -> Result<Answer, FlatError> {
        if !self.is_busy {
            return Err(FlatError::Idle);
        }
        answer(self.listen(deadline)?)
    }

    /// Its state; its memory goes to a new file. It can go on.
    pub fn save(&mut self, host: &Host, memory: &File) -> Result<FlatState, FlatError> {
        let machine = self.machine.save(host)?;
        let saved: Result<(), MemoryError> = self.machine.memory().save(memory);
        saved.map_err(MachineError::from)?;
        let is_busy = self.is_busy;
        Ok(FlatState { machine, is_busy })
    }

    fn say(&mut self, what: &ToGuest, deadline: Instant) -> Result<FromGuest, FlatError> {
        if self.is_busy {
            return Err(FlatError::Busy);
        }
        let mut bytes = [0; address::ROOM];
        let bytes = postcard::to_slice(what, &mut bytes)?;
        TO_GUEST.put(self.machine.memory().guest(), bytes)?;
        self.listen(deadline)
    }

    fn listen(&mut self, deadline: Instant) -> Result<FromGuest, FlatError> {
        self.is_busy = true;
        match self.machine.run(deadline)? {
            Stop::Rang => self.is_busy = false,
            Stop::Deadline | Stop::Asked => return Err(FlatError::Deadline),
            Stop::Ended(how) => return Err(FlatError::Ended(how)),
        }
        let bytes = FROM_GUEST.take(self.machine.memory().guest())?;
        Ok(postcard::from_bytes(&bytes)?)
    }
}

fn answer(found: FromGuest) -> Result<Answer, FlatError> {
    match found {
        FromGuest::Answer(answer) => Ok(answer),
        found => Err(said("an answer", found)),
    }
}

fn said(wanted: &'static str, found: FromGuest) -> FlatError {
    let found = format!("{found:?}");
    FlatError::Said { wanted, found }
}
