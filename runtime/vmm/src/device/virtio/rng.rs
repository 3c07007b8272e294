//! The source of randomness: the host's.

use std::io::Write as _;

use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;

use super::queue::Queues;
use super::{Kind, Unfit};

/// Bytes that one request gets. A driver asks for less, and again.
const MOST: usize = 256;

/// The device. It keeps nothing: what it gave is in the guest's pool, and a restored guest is told
/// to mix in more before it serves.
#[derive(Debug, Default)]
pub struct Rng;

/// It has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RngState;

impl Kind for Rng {
    const ID: u32 = VIRTIO_ID_RNG;
    const QUEUES: &'static [u16] = &[64];
    type State = RngState;

    fn features(&self) -> u64 {
        0
    }

    fn configuration(&self) -> Vec<u8> {
        Vec::new()
    }

    fn reset(&mut self) {}

    fn notified(&mut self, queue: usize, queues: &mut Queues<'_>) {
        while let Some(mut request) = queues.next(queue) {
            let mut bytes = [0; MOST];
            let wanted = request.writer.available_bytes().min(MOST);
            // So few come at once, or none: this waits only in a host's first moments.
            let got = getrandom(&mut bytes[..wanted], GetRandomFlags::empty()).unwrap_or(0);
            // It fits, since so many are available.
            let _ = request.writer.write_all(&bytes[..got]);
            queues.done(queue, &request);
        }
    }

    fn save(&self) -> RngState {
        RngState
    }

    fn restore(&mut self, _: RngState) -> Result<(), Unfit> {
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::driver::Driver;
    use super::*;

    #[test]
    fn the_guest_gets_as_much_as_it_asks_for_and_never_the_same() {
        let mut driver = Driver::new(Rng);
        let first = driver.ask(0, &[], &[16, 16]);
        assert_eq!(driver.used(0), (1, 32));
        let second = driver.ask(0, &[], &[32]);
        assert_ne!(first, second);
        assert_ne!(first, [0; 32]);
    }

    #[test]
    fn a_large_request_gets_a_little_and_one_without_room_nothing() {
        let mut driver = Driver::new(Rng);
        driver.ask(0, &[], &[1 << 20]);
        assert_eq!(driver.used(0), (1, u32::try_from(MOST).unwrap()));
        driver.ask(0, &[b"no room"], &[]);
        assert_eq!(driver.used(0), (2, 0));
    }
}
