//! What looks random, and is the same again for the same seed.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

/// Numbers by `SplitMix64`.
#[derive(Clone, Debug)]
pub struct Seed(u64);

impl Seed {
    /// With this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The one that `HEARTH_SEED` names, else another one each time.
    pub fn chosen() -> Result<u64> {
        if let Some(named) = std::env::var_os("HEARTH_SEED") {
            let named = named.to_str().and_then(|text| text.parse().ok());
            return named.context("HEARTH_SEED is no number");
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        Ok(u64::from(now.subsec_nanos()) ^ now.as_secs() << 20)
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One that is less than `end`; zero where that is.
    pub const fn below(&mut self, end: u64) -> u64 {
        match end {
            0 => 0,
            end => self.next() % end,
        }
    }

    /// One of several; none of none.
    pub fn one_of<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        let index = usize::try_from(self.below(all.len() as u64)).ok()?;
        all.get(index)
    }

    /// A time from `least` on, shorter than `most`.
    pub fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let range = most.saturating_sub(least).as_micros();
        least + Duration::from_micros(self.below(u64::try_from(range).unwrap_or(u64::MAX)))
    }

    /// A UUID.
    pub fn uuid(&mut self) -> String {
        let (high, low) = (self.next(), self.next());
        format!(
            "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
            high >> 32,
            high >> 16 & 0xffff,
            high & 0xfff,
            low >> 48 & 0xfff,
            low & 0xffff_ffff_ffff
        )
    }
}
