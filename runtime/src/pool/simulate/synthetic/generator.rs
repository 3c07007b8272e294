//! Kinds of made-up traces: as published, and what differs from that.

use std::str::FromStr;
use std::time::Duration;

use super::Synthetic;

/// Kinds of made-up traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Generator {
    /// As published.
    Published,
    /// Most apps are asked in bursts, and these are larger.
    Bursts,
    /// By day there is ten times as much to do as by night.
    Diurnal,
    /// Most apps are asked by a clock.
    Timers,
    /// Starts take five seconds.
    SlowStarts,
    /// Twice as many apps, of which none is asked more than three times a minute.
    Sparse,
}

impl Generator {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Published,
        Self::Bursts,
        Self::Diurnal,
        Self::Timers,
        Self::SlowStarts,
        Self::Sparse,
    ];

    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Bursts => "bursts",
            Self::Diurnal => "diurnal",
            Self::Timers => "timers",
            Self::SlowStarts => "slow-starts",
            Self::Sparse => "sparse",
        }
    }

    /// A trace of this kind.
    #[must_use]
    pub fn with(self, seed: u64) -> Synthetic {
        let published = Synthetic {
            seed,
            apps: 200,
            length: Duration::from_hours(24),
            busiest: 30.0,
            // Clocks ask rarely more often than others: of the apps that are asked often enough
            // that one can tell, 20 % are periodic.
            patterns: [22.3, 35.9, 14.6, 27.2],
            burst: 12.0,
            within_burst: Duration::from_secs(2),
            diurnal: 0.3,
            start: Duration::from_millis(500),
            work: Duration::from_secs(1),
            memory_mib: 175.0,
        };
        match self {
            Self::Published => published,
            Self::Bursts => Synthetic {
                patterns: [10.0, 15.0, 15.0, 60.0],
                burst: 40.0,
                within_burst: Duration::from_millis(200),
                ..published
            },
            Self::Diurnal => Synthetic {
                diurnal: 0.82,
                ..published
            },
            Self::Timers => Synthetic {
                patterns: [60.0, 20.0, 8.0, 12.0],
                ..published
            },
            Self::SlowStarts => Synthetic {
                start: Duration::from_secs(5),
                ..published
            },
            Self::Sparse => Synthetic {
                apps: 400,
                busiest: 3.0,
                ..published
            },
        }
    }
}

/// No kind is called so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no kind of made-up traces is called `{0}`: there are published, bursts, diurnal, timers, \
     slow-starts and sparse"
)]
pub struct UnknownGenerator(String);

impl FromStr for Generator {
    type Err = UnknownGenerator;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|one| one.word() == text);
        found.ok_or_else(|| UnknownGenerator(text.chars().take(60).collect()))
    }
}
