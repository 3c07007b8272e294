//! The switch: how a guest says that it is over.

use super::bus::{Device, Effect};

/// The port of its first register.
pub const PORT: u16 = 0x600;
/// How many registers it has.
pub const REGISTERS: u16 = 3;

/// ACPI's sleep control: the type of the sleep, and whether it is to begin.
pub(crate) const SLEEP: u16 = PORT;
/// ACPI's sleep status: nobody wakes up here.
pub(crate) const STATUS: u16 = PORT + 1;
/// ACPI's reset.
pub(crate) const RESET: u16 = PORT + 2;
/// The type of the sleep that is power off.
pub(crate) const OFF: u8 = 5;

const SLEEP_BEGINS: u8 = 1 << 5;

/// What the guest wanted when it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// To be over.
    Off,
    /// To boot again; what a panic does as well.
    Reboot,
}

/// The switch.
#[derive(Debug, Default)]
pub struct Power {
    wish: Option<Wish>,
}

impl Power {
    /// What the guest wanted, if it has ended.
    #[must_use]
    pub fn wish(&self) -> Option<Wish> {
        self.wish
    }
}

impl Device for Power {
    fn read(&mut self, _: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        let register = u16::try_from(offset).map_or(u16::MAX, |offset| PORT.saturating_add(offset));
        self.wish = match (register, data) {
            (SLEEP, [value]) if value & SLEEP_BEGINS != 0 => Some(Wish::Off),
            (RESET, _) => Some(Wish::Reboot),
            _ => return Effect::None,
        };
        Effect::Ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_ends_as_it_wishes() {
        let mut power = Power::default();
        assert_eq!(power.write(1, &[0x80]), Effect::None);
        assert_eq!(power.write(0, &[OFF << 2]), Effect::None);
        assert_eq!(power.wish(), None);
        assert_eq!(power.write(0, &[OFF << 2 | SLEEP_BEGINS]), Effect::Ended);
        assert_eq!(power.wish(), Some(Wish::Off));
        assert_eq!(Power::default().write(2, &[1]), Effect::Ended);
    }
}
