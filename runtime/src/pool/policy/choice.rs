//! Which policy, as a person writes it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Adaptive, Concurrency, Damped, Fixed, Hybrid, Policy, Quantile};

/// For how long the target has to be lower before it is: what Kubernetes takes for it.
const COOL_DOWN: Duration = Duration::from_mins(5);
/// How long most platforms keep one.
const KEEP_ALIVE: Duration = Duration::from_mins(10);
/// What of cold starts and idle memory is less than with each of the others: `cargo xtask bench
/// policy`.
const PRICE: Duration = Duration::from_mins(15);
/// 99 percent, in hundredths.
const LEVEL: u16 = 9900;

/// Which policy, as a person writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Choice {
    /// [`Adaptive`], with its price.
    Adaptive(Duration),
    /// [`Fixed`], with its keep-alive.
    Fixed(Duration),
    /// [`Quantile`], with its level in hundredths of a percent, from 5000 to 9999.
    Quantile(u16),
    /// [`Hybrid`].
    Hybrid,
    /// [`Concurrency`].
    Concurrency,
}

impl Choice {
    /// Each of them once, without an argument.
    pub const ALL: [Self; 5] = [
        Self::Adaptive(PRICE),
        Self::Fixed(KEEP_ALIVE),
        Self::Quantile(LEVEL),
        Self::Hybrid,
        Self::Concurrency,
    ];

    /// A new one of them. Those whose target is an estimate are damped: it goes up and down where
    /// the load does not.
    #[must_use]
    pub fn build(self) -> Box<dyn Policy> {
        match self {
            Self::Fixed(keep_alive) => Box::new(Fixed::new(keep_alive)),
            Self::Quantile(level) => Box::new(Damped::new(
                Quantile::new(f64::from(level) / 100.0),
                COOL_DOWN,
            )),
            Self::Adaptive(price) => Box::new(Adaptive::new(price)),
            Self::Hybrid => Box::new(Hybrid::default()),
            Self::Concurrency => Box::new(Damped::new(Concurrency::default(), COOL_DOWN)),
        }
    }
}

impl Default for Choice {
    fn default() -> Self {
        Self::Adaptive(PRICE)
    }
}

/// No policy is called so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "policy `{0}`: there is `adaptive:SECONDS` (such as adaptive:900), `fixed:SECONDS` (such as fixed:600), `quantile:PERCENT` (of 50 to \
     99.99, such as quantile:99), `hybrid` and `concurrency`"
)]
pub struct UnknownPolicy(String);

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(keep_alive) => write!(f, "fixed:{}", keep_alive.as_secs_f64()),
            Self::Quantile(level) => write!(f, "quantile:{}", f64::from(*level) / 100.0),
            Self::Adaptive(price) => write!(f, "adaptive:{}", price.as_secs_f64()),
            Self::Hybrid => f.write_str("hybrid"),
            Self::Concurrency => f.write_str("concurrency"),
        }
    }
}

impl FromStr for Choice {
    type Err = UnknownPolicy;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = match text.split_once(':') {
            Some(("fixed", time)) => seconds(time).map(Self::Fixed),
            Some(("adaptive", price)) => {
                let price = seconds(price).filter(|price| !price.is_zero());
                price.map(Self::Adaptive)
            }
            Some(("quantile", percent)) => level(percent).map(Self::Quantile),
            None => Self::ALL
                .into_iter()
                .find(|choice| choice.to_string().split(':').next() == Some(text)),
            Some(_) => None,
        };
        found.ok_or_else(|| UnknownPolicy(text.chars().take(60).collect()))
    }
}

fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.parse().ok()?).ok()
}

/// Hundredths of so many percent.
fn level(percent: &str) -> Option<u16> {
    let hundredths = (percent.parse::<f64>().ok()? * 100.0).round();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is between 5000 and 9999"
    )]
    (5000.0..=9999.0)
        .contains(&hundredths)
        .then_some(hundredths as u16)
}

impl From<Choice> for String {
    fn from(choice: Choice) -> Self {
        choice.to_string()
    }
}

impl TryFrom<String> for Choice {
    type Error = UnknownPolicy;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn each_is_read_as_it_is_written() {
        for choice in Choice::ALL {
            let text = choice.to_string();
            assert_eq!(text.parse(), Ok(choice));
            assert_eq!(serde_json::to_value(choice).unwrap(), text.as_str());
            // The name alone will do, and the error tells of it.
            let name = text.split(':').next().unwrap();
            assert_eq!(name.parse(), Ok(choice));
            let error = "lru".parse::<Choice>().unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
        assert_eq!("quantile:99.9".parse(), Ok(Choice::Quantile(9990)));
        assert_eq!(
            "fixed:0.5".parse(),
            Ok(Choice::Fixed(Duration::from_millis(500)))
        );
    }

    #[test]
    fn what_is_none_is_told() {
        for text in [
            "",
            "fixed:",
            "fixed:-1",
            "fixed:nan",
            "quantile:100",
            "quantile:49",
            "hybrid:3",
            "adaptive:0",
        ] {
            assert!(text.parse::<Choice>().is_err(), "{text}");
        }
    }
}
