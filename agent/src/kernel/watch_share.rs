//! When the daemon attaches the watch set: for a bounded share of the time.
//!
//! In each period there is one window, at a place drawn anew, so that work with a rhythm of its
//! own is not always missed or always hit.

use std::time::Duration;

/// Length of a window. Starts that begin and end inside one get their causes and parts in full.
const WINDOW: Duration = Duration::from_secs(2);

/// Decides; asked again and again, with time going forward.
#[derive(Debug)]
pub struct WatchShare {
    share: f64,
    period: Duration,
    /// Begin and end of this period's window.
    window: (Duration, Duration),
    /// End of this period.
    until: Duration,
    seed: u64,
    on_since: Option<Duration>,
    attached: Duration,
    now: Duration,
}

impl WatchShare {
    /// At most `share` (0 to 1) of the time; `seed` places the windows.
    #[must_use]
    pub fn new(share: f64, seed: u64) -> Self {
        let share = share.clamp(0.0, 1.0);
        let period = if share > 0.0 {
            WINDOW.div_f64(share)
        } else {
            Duration::MAX
        };
        Self {
            share,
            period,
            window: (Duration::ZERO, Duration::ZERO),
            until: Duration::ZERO,
            seed: seed | 1,
            on_since: None,
            attached: Duration::ZERO,
            now: Duration::ZERO,
        }
    }

    /// Whether the set is to be attached at `now` (time since the start).
    pub fn at(&mut self, now: Duration) -> bool {
        self.now = self.now.max(now);
        let on = if self.share <= 0.0 {
            false
        } else if self.share >= 1.0 {
            true
        } else {
            while self.now >= self.until {
                let begin = self.until;
                let room = self.period.saturating_sub(WINDOW).mul_f64(self.draw());
                self.window = (begin + room, begin + room + WINDOW);
                self.until = begin + self.period;
            }
            (self.window.0..self.window.1).contains(&self.now)
        };
        match (on, self.on_since) {
            (true, None) => self.on_since = Some(self.now),
            (false, Some(since)) => {
                self.attached += self.now.saturating_sub(since);
                self.on_since = None;
            }
            _ => {}
        }
        on
    }

    /// Share of the time so far in which it was attached, 0 to 1.
    #[must_use]
    pub fn measured(&self) -> f64 {
        if self.now.is_zero() {
            return 0.0;
        }
        let open = self
            .on_since
            .map_or(Duration::ZERO, |since| self.now.saturating_sub(since));
        (self.attached + open).as_secs_f64() / self.now.as_secs_f64()
    }

    /// 0 to 1, evenly (xorshift: the places need to be scattered, not secret).
    fn draw(&mut self) -> f64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        f64::from(u32::try_from(self.seed >> 32).unwrap_or(0)) / f64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_kept_and_the_windows_move() {
        for share in [0.0, 0.05, 0.5, 1.0] {
            let mut watch = WatchShare::new(share, 42);
            let mut begins = Vec::new();
            let mut was_on = false;
            for tick in 0..4_000_000_u64 {
                let now = Duration::from_millis(tick * 10);
                let on = watch.at(now);
                if on && !was_on {
                    begins.push(now.as_secs_f64() % WINDOW.div_f64(share.max(0.01)).as_secs_f64());
                }
                was_on = on;
            }
            assert!(
                (watch.measured() - share).abs() < 0.01,
                "{share}: {}",
                watch.measured()
            );
            if (share - 0.05).abs() < f64::EPSILON {
                let spread = begins.iter().copied().fold(0.0, f64::max)
                    - begins.iter().copied().fold(f64::MAX, f64::min);
                assert!(
                    spread > 30.0,
                    "windows stay within {spread} s of each other"
                );
            }
        }
    }
}
