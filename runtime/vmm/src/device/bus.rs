//! Which device answers at which address.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Registers, of which a guest reads and writes 1 to 8 bytes at once.
pub trait Device: Send {
    /// The guest reads: all of `data` is to be filled. The offset is that in the device's range.
    fn read(&mut self, offset: u64, data: &mut [u8]);

    /// The guest writes.
    fn write(&mut self, offset: u64, data: &[u8]) -> Effect;
}

/// What follows from a write for the guest's processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It goes on.
    None,
    /// The guest waits for an answer: running it returns to the caller.
    Rang,
    /// The guest is over.
    Ended,
}

/// Two devices at one address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is a device at {:#x}..{:#x} already: none can be put at {:#x}..{:#x}",
    .taken.start, .taken.end, .wanted.start, .wanted.end
)]
pub struct BusError {
    taken: Range<u64>,
    wanted: Range<u64>,
}

/// Devices by their addresses: one bus for memory-mapped registers, one for ports.
#[derive(Default)]
pub struct Bus {
    /// By first address; the range's end beside.
    devices: BTreeMap<u64, (u64, Arc<Mutex<dyn Device>>)>,
    unclaimed: u64,
}

impl Bus {
    /// Puts a device there. Who keeps another handle of it must not hold its lock while it waits for
    /// the guest.
    pub fn insert(
        &mut self,
        wanted: Range<u64>,
        device: Arc<Mutex<dyn Device>>,
    ) -> Result<(), BusError> {
        let before = self.devices.range(..wanted.end).next_back();
        if let Some((&start, &(end, _))) = before
            && end > wanted.start
        {
            let taken = start..end;
            return Err(BusError { taken, wanted });
        }
        self.devices.insert(wanted.start, (wanted.end, device));
        Ok(())
    }

    /// The guest reads at this address; all bits are set where nobody answers.
    pub fn read(&mut self, address: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some((offset, device)) = self.at(address, data.len()) {
            let mut device = device.lock().unwrap_or_else(PoisonError::into_inner);
            device.read(offset, data);
        }
    }

    /// The guest writes at this address; it is thrown away where nobody listens.
    pub fn write(&mut self, address: u64, data: &[u8]) -> Effect {
        match self.at(address, data.len()) {
            Some((offset, device)) => {
                let mut device = device.lock().unwrap_or_else(PoisonError::into_inner);
                device.write(offset, data)
            }
            None => Effect::None,
        }
    }

    /// How often a guest read or wrote where there is no device.
    #[must_use]
    pub fn unclaimed(&self) -> u64 {
        self.unclaimed
    }

    fn at(&mut self, address: u64, length: usize) -> Option<(u64, &Mutex<dyn Device>)> {
        let whole = |&(&start, (end, _)): &(&u64, &(u64, _))| {
            (end - start).checked_sub(length as u64) >= Some(address - start)
        };
        let found = self.devices.range(..=address).next_back().filter(whole);
        if found.is_none() {
            self.unclaimed += 1;
        }
        found.map(|(start, (_, device))| (address - start, &**device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tells its offset, and stops at the offset 3.
    struct Offset;

    impl Device for Offset {
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            data.fill(u8::try_from(offset).unwrap_or(0xee));
        }

        fn write(&mut self, offset: u64, _: &[u8]) -> Effect {
            if offset == 3 {
                Effect::Rang
            } else {
                Effect::None
            }
        }
    }

    fn bus(ranges: &[Range<u64>]) -> Result<Bus, BusError> {
        let mut bus = Bus::default();
        for range in ranges {
            bus.insert(range.clone(), Arc::new(Mutex::new(Offset)))?;
        }
        Ok(bus)
    }

    #[test]
    fn a_device_answers_in_its_range_and_nowhere_else() -> Result<(), BusError> {
        let mut bus = bus(&[0x1000..0x1008, 0x1008..0x1010])?;
        let mut read = |address, length| {
            let mut data = [0; 8];
            bus.read(address, &mut data[..length]);
            data[0]
        };
        assert_eq!(
            [read(0x1000, 8), read(0x100c, 4), read(0x100f, 1)],
            [0, 4, 7]
        );
        assert_eq!(
            [
                read(0xfff, 1),
                read(0x1010, 1),
                read(0x1005, 4),
                read(u64::MAX, 1)
            ],
            [0xff; 4]
        );
        assert_eq!(bus.unclaimed(), 4);
        assert_eq!(bus.write(0x1003, &[1]), Effect::Rang);
        assert_eq!(bus.write(0x2003, &[1]), Effect::None);
        Ok(())
    }

    #[test]
    fn no_two_devices_share_an_address() {
        for taken in [0x10..0x20, 0x1f..0x21, 0x0..0x11, 0x12..0x13, 0x0..0x100] {
            assert!(bus(&[0x10..0x20, taken.clone()]).is_err(), "{taken:?}");
        }
        assert!(bus(&[0x10..0x20, 0x20..0x21, 0x0..0x10]).is_ok());
    }
}
