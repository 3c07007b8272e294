//! States that no machine was saved in: refused, or a guest that goes wrong, and never more than that.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod built;

use std::fs::File;
use std::time::{Duration, Instant};

use hearth_flat_guest::{ToGuest, mixed};
use hearth_vmm::flat::{Config, Flat, FlatState, Life};
use hearth_vmm::kvm::{ClockPolicy, Host};

const ROUNDS: u64 = 300;

#[test]
fn any_changed_state_is_refused_or_runs_no_longer_than_it_may() {
    let host = Host::open().expect("these tests take a KVM");
    let mut program = built::flat_guest();
    let soon = || Instant::now() + Duration::from_mins(1);
    let config = Config {
        memory: 8 << 20,
        seed: 1,
        words: 1 << 10,
        entropy: [1; 32],
    };
    let (mut guest, _) = Flat::boot(&host, &mut program, &config, soon()).unwrap();
    let memory = tempfile::NamedTempFile::new().unwrap();
    let state = guest.save(&host, memory.as_file()).unwrap();
    let whole = postcard::to_stdvec(&state).unwrap();
    drop(guest);

    let mut outcomes = [0; 3];
    for round in 0..ROUNDS {
        let mut bytes = whole.clone();
        for change in 0..=round % 4 {
            let random = mixed(round << 8 | change);
            let at = usize::try_from(random >> 8).unwrap() % bytes.len();
            bytes[at] ^= u8::try_from(random & 0xff).unwrap();
        }
        if round % 16 == 0 {
            bytes.truncate(bytes.len() / 2);
        }
        let Ok(state) = postcard::from_bytes::<FlatState>(&bytes) else {
            outcomes[0] += 1;
            continue;
        };
        let file = File::open(memory.path()).unwrap();
        let Ok(mut guest) = Flat::restore(&host, file, &state, ClockPolicy::Continue) else {
            outcomes[1] += 1;
            continue;
        };
        let short = Instant::now() + Duration::from_millis(50);
        let life = Life {
            epoch: 1,
            identity: 1,
            entropy: [2; 32],
        };
        // Right, wrong or not at all: it returns.
        let _ = guest.reseed(&life, short);
        let _ = guest.ask(&ToGuest::Ask { number: 1 }, short);
        outcomes[2] += 1;
    }
    assert!(
        outcomes.iter().all(|count| *count > 0),
        "no state is tried to its end: {outcomes:?}"
    );
}
