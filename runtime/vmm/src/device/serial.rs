//! The serial console: a 16550A whose output goes into a log of bounded size.

use std::collections::VecDeque;
use std::io;

use serde::{Deserialize, Serialize};
use vm_superio::serial::{NoEvents, SerialState as Uart};

use super::bus::{Device, Effect};
use super::line::Line;

/// The port of its first register, as every PC has it.
pub const PORT: u16 = 0x3f8;
/// How many registers it has.
pub const REGISTERS: u16 = 8;
/// Its interrupt, as every PC has it.
pub const IRQ: u32 = 4;

/// Bytes of the log. A boot that says all it can say has about half of that.
const MOST: usize = 64 * 1024;

/// The last bytes that the guest said, and how many were said before them.
#[derive(Debug, Default)]
pub struct Log {
    bytes: VecDeque<u8>,
    /// Bytes that had to go for newer ones.
    dropped: u64,
    /// Bytes at the front of `bytes` that were taken already.
    taken: usize,
}

impl Log {
    /// What is there, oldest first.
    #[must_use]
    pub fn text(&self) -> String {
        let (first, second) = self.bytes.as_slices();
        String::from_utf8_lossy(&[first, second].concat()).into_owned()
    }

    /// What was said since this was last asked, as far as it is still there.
    pub fn take_new(&mut self) -> Vec<u8> {
        let new = self.bytes.iter().skip(self.taken).copied().collect();
        self.taken = self.bytes.len();
        new
    }

    /// How many bytes went that nobody can read any more.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            if self.bytes.len() == MOST {
                self.bytes.pop_front();
                self.taken = self.taken.saturating_sub(1);
                self.dropped += 1;
            }
            self.bytes.push_back(*byte);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The console.
#[derive(Debug)]
pub struct Serial {
    uart: vm_superio::Serial<Line, NoEvents, Log>,
}

impl Serial {
    /// A console at rest.
    #[must_use]
    pub fn new(line: Line) -> Self {
        Self {
            uart: vm_superio::Serial::new(line, Log::default()),
        }
    }

    /// What the guest said.
    #[must_use]
    pub fn log(&self) -> &Log {
        self.uart.writer()
    }

    /// The same, to take from.
    pub fn log_mut(&mut self) -> &mut Log {
        self.uart.writer_mut()
    }

    /// The registers. The log is of this life only.
    #[must_use]
    pub fn save(&self) -> SerialState {
        let uart = self.uart.state();
        SerialState {
            divisor: [uart.baud_divisor_low, uart.baud_divisor_high],
            interrupt_enable: uart.interrupt_enable,
            interrupt_identification: uart.interrupt_identification,
            line: [uart.line_control, uart.line_status],
            modem: [uart.modem_control, uart.modem_status],
            scratch: uart.scratch,
            input: uart.in_buffer,
        }
    }

    /// A console with these registers and an empty log.
    pub fn restore(state: SerialState, line: Line) -> Result<Self, SerialError> {
        let input = state.input.len();
        let uart = Uart {
            baud_divisor_low: state.divisor[0],
            baud_divisor_high: state.divisor[1],
            interrupt_enable: state.interrupt_enable,
            interrupt_identification: state.interrupt_identification,
            line_control: state.line[0],
            line_status: state.line[1],
            modem_control: state.modem[0],
            modem_status: state.modem[1],
            scratch: state.scratch,
            in_buffer: state.input,
        };
        let uart = vm_superio::Serial::from_state(&uart, line, NoEvents, Log::default());
        let uart = uart.map_err(|_| SerialError { input })?;
        Ok(Self { uart })
    }
}

/// Accesses of one byte have a meaning, others do nothing.
impl Device for Serial {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let ([byte], Ok(register)) = (data, u8::try_from(offset)) {
            *byte = self.uart.read(register);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        if let ([byte], Ok(register)) = (data, u8::try_from(offset)) {
            // Neither the log nor the line can fail.
            let _ = self.uart.write(register, *byte);
        }
        Effect::None
    }
}

/// The state of a console is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "serial.input: {input} bytes wait, more than the device holds; the state is damaged: take the snapshot anew"
)]
pub struct SerialError {
    input: usize,
}

/// The registers of a console.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SerialState {
    divisor: [u8; 2],
    interrupt_enable: u8,
    interrupt_identification: u8,
    /// Control and status.
    line: [u8; 2],
    /// Control and status.
    modem: [u8; 2],
    scratch: u8,
    /// What the guest has not read yet.
    input: Vec<u8>,
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn what_the_guest_says_is_read_once_and_kept() {
        let mut serial = Serial::new(Line::new().unwrap());
        for byte in b"hello" {
            serial.write(0, &[*byte]);
        }
        assert_eq!(serial.log_mut().take_new(), b"hello");
        serial.write(0, b"!");
        assert_eq!(serial.log_mut().take_new(), b"!");
        assert_eq!(serial.log().text(), "hello!");
    }

    #[test]
    fn a_talkative_guest_costs_the_oldest_words_and_they_are_counted() {
        let mut serial = Serial::new(Line::new().unwrap());
        for nr in 0..MOST + 3 {
            serial.write(0, &[if nr < 3 { b'a' } else { b'b' }]);
        }
        assert_eq!(serial.log().dropped(), 3);
        assert_eq!(serial.log().text(), "b".repeat(MOST));
        assert_eq!(serial.log_mut().take_new().len(), MOST);
        serial.write(0, b"c");
        assert_eq!(serial.log_mut().take_new(), b"c");
    }

    #[test]
    fn accesses_that_no_driver_makes_do_nothing() {
        let mut serial = Serial::new(Line::new().unwrap());
        serial.write(0, b"wide");
        serial.write(300, b"x");
        let mut wide = [1; 4];
        serial.read(0, &mut wide);
        assert_eq!((wide, serial.log().text().as_str()), ([0; 4], ""));
    }

    #[test]
    fn a_restored_console_has_its_registers() {
        let mut serial = Serial::new(Line::new().unwrap());
        serial.write(7, &[0x5a]);
        serial.write(1, &[0x05]);
        let state = serial.save();
        let mut restored = Serial::restore(state.clone(), Line::new().unwrap()).unwrap();
        let mut scratch = [0];
        restored.read(7, &mut scratch);
        assert_eq!((scratch, restored.save()), ([0x5a], state.clone()));
        let damaged = SerialState {
            input: vec![0; 65],
            ..state
        };
        let error = Serial::restore(damaged, Line::new().unwrap()).unwrap_err();
        assert!(error.to_string().starts_with("serial.input: 65"));
    }
}
