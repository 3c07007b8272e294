//! The channel: a stream of bytes between the outside and one process in the guest.
//!
//! It is a port of a virtio console (`/dev/vport0p0`), not a vsock: Debian's cloud kernels have the
//! driver of both (6.12 has the console's built in, 6.1 as one module; vsock takes three modules on
//! either), a port is a character device that `hearth-init` opens, reads and writes like a file, and
//! it knows of nothing but two queues: no connections, windows or addresses that a restored guest
//! could hold a stale view of. Closing the outside end hangs the port up in the guest, and opening it
//! is what a restored guest wakes up to.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};

use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::queue::Queues;
use super::transport::Transport;
use super::{Kind, Unfit};

/// What the guest sees as the name of the port.
pub const NAME: &str = "hearth.channel";

/// The driver can do more than one port, and thereby speaks of opening and closing.
const VIRTIO_CONSOLE_F_MULTIPORT: u64 = 1 << 1;

/// The queues, as the guest sees them.
const TO_GUEST: usize = 0;
const FROM_GUEST: usize = 1;
const CONTROL_TO_GUEST: usize = 2;
const CONTROL_FROM_GUEST: usize = 3;

/// Bytes that wait in here in each direction. What does not fit waits with who said it.
const MOST: usize = 256 << 10;
/// Bytes of one write of the guest: its driver makes them 32 KiB at most.
const LONGEST: usize = 64 << 10;
/// Control messages that wait for the guest to take them: its driver asks for five.
const CONTROLS: usize = 32;

/// What is said beside the stream.
mod event {
    pub(super) const DEVICE_READY: u16 = 0;
    pub(super) const DEVICE_ADD: u16 = 1;
    pub(super) const PORT_READY: u16 = 3;
    pub(super) const PORT_OPEN: u16 = 6;
    pub(super) const PORT_NAME: u16 = 7;
}

/// The device.
#[derive(Debug)]
pub struct Channel {
    state: ChannelState,
    news: EventFd,
    dropped: u64,
}

/// Where the channel stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelState {
    /// Somebody outside is there.
    is_open_outside: bool,
    /// A process in the guest has opened the port.
    is_open_inside: bool,
    /// The driver has made the port.
    is_there: bool,
    to_guest: VecDeque<u8>,
    from_guest: VecDeque<u8>,
    controls: VecDeque<(u16, u16)>,
}

impl Channel {
    /// A channel with nobody at either end.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            state: ChannelState::default(),
            news: EventFd::new(EFD_NONBLOCK)?,
            dropped: 0,
        })
    }

    /// Becomes readable when the guest has written, taken, opened or closed.
    #[must_use]
    pub fn news(&self) -> &EventFd {
        &self.news
    }

    /// Whether a process in the guest has it open.
    #[must_use]
    pub fn is_open_inside(&self) -> bool {
        self.state.is_open_inside
    }

    /// Bytes that were thrown away: those of an end that is gone, and writes that no driver makes.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn control(&mut self, event: u16, value: u16) {
        // A guest that asks again and again and takes nothing loses what it asked for.
        if self.state.controls.len() < CONTROLS {
            self.state.controls.push_back((event, value));
        }
    }

    fn hear_control(&mut self, event: u16, value: u16) {
        match event {
            event::DEVICE_READY if value == 1 => self.control(event::DEVICE_ADD, 1),
            event::PORT_READY if value == 1 => {
                self.state.is_there = true;
                self.control(event::PORT_NAME, 1);
                if self.state.is_open_outside {
                    self.control(event::PORT_OPEN, 1);
                }
            }
            event::PORT_OPEN => {
                self.state.is_open_inside = value == 1;
                if value != 1 {
                    self.dropped += self.state.to_guest.len() as u64;
                    self.state.to_guest.clear();
                }
            }
            _ => {}
        }
    }

    fn take_controls(&mut self, queues: &mut Queues<'_>) {
        while let Some(mut request) = queues.next(CONTROL_FROM_GUEST) {
            // Port (there is one), event, value.
            let mut message = [0; 8];
            if request.reader.read_exact(&mut message).is_ok() {
                let [_, _, _, _, event_low, event_high, low, high] = message;
                let event = u16::from_le_bytes([event_low, event_high]);
                self.hear_control(event, u16::from_le_bytes([low, high]));
            }
            queues.done(CONTROL_FROM_GUEST, &request);
        }
    }

    fn give_controls(&mut self, queues: &mut Queues<'_>) {
        while let Some(&(event, value)) = self.state.controls.front() {
            let Some(mut request) = queues.next(CONTROL_TO_GUEST) else {
                return;
            };
            self.state.controls.pop_front();
            let mut message = vec![0; 4];
            message.extend(event.to_le_bytes());
            message.extend(value.to_le_bytes());
            if event == event::PORT_NAME {
                message.extend(NAME.as_bytes());
            }
            // A driver that gives too little room gets what fits.
            let length = message.len().min(request.writer.available_bytes());
            let _ = request
                .writer
                .write_all(message.get(..length).unwrap_or_default());
            queues.done(CONTROL_TO_GUEST, &request);
        }
    }

    fn take(&mut self, queues: &mut Queues<'_>) {
        while self.state.from_guest.len() + LONGEST <= MOST {
            let Some(mut request) = queues.next(FROM_GUEST) else {
                return;
            };
            let length = request.reader.available_bytes();
            if length > LONGEST || !self.state.is_open_outside {
                self.dropped += length as u64;
            } else {
                let mut bytes = vec![0; length];
                // Memory that was there when the request was cut.
                if request.reader.read_exact(&mut bytes).is_ok() {
                    self.state.from_guest.extend(bytes);
                }
            }
            queues.done(FROM_GUEST, &request);
        }
    }

    fn give(&mut self, queues: &mut Queues<'_>) {
        while !self.state.to_guest.is_empty() {
            let Some(mut request) = queues.next(TO_GUEST) else {
                return;
            };
            let wanted = request.writer.available_bytes();
            let length = wanted.min(self.state.to_guest.len());
            let bytes: Vec<u8> = self.state.to_guest.drain(..length).collect();
            let _ = request.writer.write_all(&bytes);
            queues.done(TO_GUEST, &request);
        }
    }

    fn work(&mut self, queues: &mut Queues<'_>) {
        self.take_controls(queues);
        self.give_controls(queues);
        self.take(queues);
        self.give(queues);
    }

    fn tell(&self) {
        // It cannot fail but for a counter at its end: there is news already.
        let _ = self.news.write(1);
    }
}

impl Kind for Channel {
    const ID: u32 = VIRTIO_ID_CONSOLE;
    const QUEUES: &'static [u16] = &[64, 64, 32, 32];
    type State = ChannelState;

    fn features(&self) -> u64 {
        VIRTIO_CONSOLE_F_MULTIPORT
    }

    fn configuration(&self) -> Vec<u8> {
        // Columns and rows of a terminal, which it is none; ports; a register for early output.
        let mut bytes = vec![0; 4];
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend(0_u32.to_le_bytes());
        bytes
    }

    fn reset(&mut self) {
        let is_open_outside = self.state.is_open_outside;
        self.dropped += (self.state.to_guest.len() + self.state.from_guest.len()) as u64;
        self.state = ChannelState {
            is_open_outside,
            ..ChannelState::default()
        };
        self.tell();
    }

    fn notified(&mut self, _: usize, queues: &mut Queues<'_>) {
        self.work(queues);
        self.tell();
    }

    fn save(&self) -> ChannelState {
        self.state.clone()
    }

    fn restore(&mut self, state: ChannelState) -> Result<(), Unfit> {
        let longest = state.to_guest.len().max(state.from_guest.len());
        if longest > MOST || state.controls.len() > CONTROLS {
            let needed =
                format!("{MOST} is the most: the state is damaged, take the snapshot anew");
            return Err(Unfit::new("virtio.channel", longest, needed));
        }
        self.state = state;
        Ok(())
    }
}

/// The outside end.
impl Transport<Channel> {
    /// Opens or closes the outside end. What waits in either direction when it closes is gone.
    pub fn set_open(&mut self, is_open: bool) {
        let channel = self.device_mut();
        if channel.state.is_open_outside == is_open {
            return;
        }
        channel.state.is_open_outside = is_open;
        if !is_open {
            let waiting = channel.state.to_guest.len() + channel.state.from_guest.len();
            channel.dropped += waiting as u64;
            channel.state.to_guest.clear();
            channel.state.from_guest.clear();
        }
        if channel.state.is_there {
            channel.control(event::PORT_OPEN, is_open.into());
        }
        self.work(Channel::work);
    }

    /// Sends bytes to the guest; how many of them there was room for. None while nobody in the guest
    /// has it open.
    pub fn send(&mut self, bytes: &[u8]) -> usize {
        let state = &mut self.device_mut().state;
        if !state.is_open_outside || !state.is_open_inside {
            return 0;
        }
        let length = bytes.len().min(MOST.saturating_sub(state.to_guest.len()));
        state.to_guest.extend(bytes.iter().take(length));
        self.work(Channel::work);
        length
    }

    /// What the guest has written.
    pub fn receive(&mut self) -> Vec<u8> {
        let bytes = self.device_mut().state.from_guest.drain(..).collect();
        // There is room for what waits in the guest.
        self.work(Channel::work);
        bytes
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::driver::Driver;
    use super::*;

    fn message(event: u16, value: u16) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        bytes.extend(event.to_le_bytes());
        bytes.extend(value.to_le_bytes());
        bytes
    }

    /// A guest's driver that has made the port, and a process that has opened it.
    fn opened() -> Driver<Channel> {
        let mut driver = Driver::new(Channel::new().unwrap());
        driver.transport.set_open(true);
        for (event, value) in [
            (event::DEVICE_READY, 1),
            (event::PORT_READY, 1),
            (event::PORT_OPEN, 1),
        ] {
            driver.ask(CONTROL_FROM_GUEST, &[&message(event, value)], &[]);
        }
        driver
    }

    #[test]
    fn the_driver_is_told_of_the_port_its_name_and_that_somebody_is_there() {
        let mut driver = opened();
        let mut told = || driver.ask(CONTROL_TO_GUEST, &[], &[64]);
        assert_eq!(told()[..8], message(event::DEVICE_ADD, 1));
        let name = told();
        assert_eq!(
            (&name[..8], &name[8..22]),
            (&*message(event::PORT_NAME, 1), NAME.as_bytes())
        );
        assert_eq!(told()[..8], message(event::PORT_OPEN, 1));
        assert!(driver.transport.device().is_open_inside());
    }

    #[test]
    fn bytes_arrive_in_order_in_both_directions() {
        let mut driver = opened();
        driver.ask(FROM_GUEST, &[b"hello, ", b"outside"], &[]);
        assert!(driver.transport.device().news().read().unwrap() > 0);
        assert_eq!(driver.transport.receive(), b"hello, outside");
        assert_eq!(driver.transport.send(b"hello, inside"), 13);
        assert_eq!(driver.ask(TO_GUEST, &[], &[7]), b"hello, ");
        assert_eq!(driver.ask(TO_GUEST, &[], &[7])[..6], *b"inside");
        assert_eq!(driver.transport.device().dropped(), 0);
    }

    #[test]
    fn what_is_not_taken_waits_with_who_said_it() {
        let mut driver = opened();
        let said = vec![1; LONGEST];
        for _ in 0..8 {
            driver.put(FROM_GUEST, &[&said], &[]);
        }
        driver.notify(FROM_GUEST);
        assert_eq!(driver.used(FROM_GUEST).0, 4);
        assert_eq!(driver.transport.receive().len(), MOST);
        assert_eq!(driver.used(FROM_GUEST).0, 8);
        assert_eq!(driver.transport.receive().len(), MOST);
        assert_eq!(driver.transport.send(&vec![1; MOST + 5]), MOST);
        assert_eq!(driver.transport.send(&[1]), 0);
    }

    #[test]
    fn a_closed_end_hears_nothing_old_when_it_opens_again() {
        let mut driver = opened();
        driver.ask(FROM_GUEST, &[b"old"], &[]);
        driver.transport.set_open(false);
        driver.ask(FROM_GUEST, &[b"nobody is there"], &[]);
        assert_eq!(driver.transport.send(b"x"), 0);
        driver.transport.set_open(true);
        assert_eq!(driver.transport.receive(), b"");
        assert_eq!(driver.transport.device().dropped(), 18);
        driver.ask(FROM_GUEST, &[b"new"], &[]);
        assert_eq!(driver.transport.receive(), b"new");
    }

    #[test]
    fn a_restored_channel_goes_on() {
        let mut driver = opened();
        driver.ask(FROM_GUEST, &[b"before"], &[]);
        let state = driver.transport.save();
        let mut after = Driver::new(Channel::new().unwrap());
        after.transport.restore(state).unwrap();
        assert_eq!(after.transport.receive(), b"before");
        assert!(after.transport.device().is_open_inside());
    }

    #[test]
    fn a_guest_that_asks_for_ever_costs_no_memory() {
        let mut driver = opened();
        for _ in 0..1000 {
            driver.ask(CONTROL_FROM_GUEST, &[&message(event::DEVICE_READY, 1)], &[]);
        }
        assert_eq!(driver.transport.device().state.controls.len(), CONTROLS);
    }
}
