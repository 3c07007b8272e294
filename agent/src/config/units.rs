//! Values that carry their unit: `"10s"`, `"4MiB"`, and a share of the time.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};
use serde::{Serialize, Serializer};

/// A unit: what it is written as, how many of the smallest it is, what people write instead.
type Unit = (&'static str, u64, &'static [&'static str]);

/// Units of time, in nanoseconds.
const TIMES: [Unit; 6] = [
    ("ns", 1, &["nanos", "nsec"]),
    ("us", 1_000, &["µs", "micros", "usec"]),
    ("ms", 1_000_000, &["millis", "msec"]),
    (
        "s",
        1_000_000_000,
        &["S", "sec", "secs", "second", "seconds"],
    ),
    (
        "min",
        60_000_000_000,
        &["m", "M", "mins", "minute", "minutes"],
    ),
    ("h", 3_600_000_000_000, &["H", "hr", "hour", "hours"]),
];

/// Units of size, in bytes.
const SIZES: [Unit; 4] = [
    ("B", 1, &["b", "bytes"]),
    ("KiB", 1 << 10, &["k", "K", "kB", "KB", "kib"]),
    ("MiB", 1 << 20, &["m", "M", "mB", "MB", "mib"]),
    ("GiB", 1 << 30, &["g", "G", "gB", "GB", "gib"]),
];

/// A length of time with its unit: `"250ms"`, `"5min"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

/// A number of bytes with its unit: `"4MiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A share between 0 and 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Share(pub f64);

/// Reads `text` as a whole number followed by one of `units`.
fn read(text: &str, units: &[Unit], example: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let names = units
        .iter()
        .map(|(name, ..)| *name)
        .collect::<Vec<_>>()
        .join(", ");
    let remedy = format!("write a whole number and one of {names}, such as \"{example}\"");
    if number.is_empty() {
        return Err(format!(
            "\"{text}\" does not begin with a whole number; {remedy}"
        ));
    }
    if unit.is_empty() {
        return Err(format!("\"{text}\" has no unit; {remedy}"));
    }
    let Some((_, factor, _)) = units.iter().find(|(name, ..)| *name == unit) else {
        let meant = units.iter().find(|(_, _, instead)| instead.contains(&unit));
        let meant = meant.map(|(name, ..)| format!("; did you mean \"{number}{name}\"?"));
        let meant = meant.unwrap_or_else(|| format!("; {remedy}"));
        return Err(format!("\"{text}\" has the unknown unit `{unit}`{meant}"));
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(*factor))
        .ok_or_else(|| format!("\"{text}\" is too large"))
}

/// Writes `value` in the largest unit that divides it.
fn write(value: u64, units: &[Unit]) -> String {
    let whole = units
        .iter()
        .rev()
        .find(|(_, factor, _)| value > 0 && value.is_multiple_of(*factor));
    let (name, factor, _) = whole.unwrap_or(&units[0]);
    format!("{}{name}", value / factor)
}

/// Accepts a string, and answers a bare number with what its unit could be.
struct WithUnit {
    units: &'static [Unit],
    example: &'static str,
}

impl Visitor<'_> for WithUnit {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a string with a number and its unit, such as \"{}\"",
            self.example
        )
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
        read(text, self.units, self.example).map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<u64, E> {
        let bare = if number < 0 {
            String::new()
        } else {
            number.to_string()
        };
        read(&bare, self.units, self.example).map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<u64, E> {
        read(&number.to_string(), self.units, self.example).map_err(E::custom)
    }
}

impl std::str::FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match read(text, &TIMES, "10s")? {
            0 => Err("must be longer than zero".to_owned()),
            nanos => Ok(Self(Duration::from_nanos(nanos))),
        }
    }
}

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match read(text, &SIZES, "4MiB")? {
            0 => Err("must be more than zero".to_owned()),
            bytes => Ok(Self(bytes)),
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&write(
            u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX),
            &TIMES,
        ))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&write(self.0, &SIZES))
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let nanos = from.deserialize_any(WithUnit {
            units: &TIMES,
            example: "10s",
        })?;
        if nanos == 0 {
            return Err(D::Error::custom("must be longer than zero"));
        }
        Ok(Self(Duration::from_nanos(nanos)))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(WithUnit {
            units: &SIZES,
            example: "4MiB",
        })
        .map(Self)
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let share = f64::deserialize(from)?;
        if (0.0..=1.0).contains(&share) {
            return Ok(Self(share));
        }
        Err(D::Error::invalid_value(
            Unexpected::Float(share),
            &"a share between 0.0 and 1.0",
        ))
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{SIZES, TIMES, read, write};

    #[test]
    fn a_value_is_read_back_as_it_was_written() {
        for text in ["250ms", "10s", "5min", "1h", "90s", "7ns"] {
            assert_eq!(
                read(text, &TIMES, "")
                    .map(|value| write(value, &TIMES))
                    .as_deref(),
                Ok(text)
            );
        }
        for text in ["512B", "4MiB", "1GiB"] {
            assert_eq!(
                read(text, &SIZES, "")
                    .map(|value| write(value, &SIZES))
                    .as_deref(),
                Ok(text)
            );
        }
    }

    #[test]
    fn a_wrong_value_is_answered_with_what_to_write() {
        let wrong = |text| read(text, &TIMES, "10s").expect_err("wrong");
        assert!(wrong("10").contains("has no unit; write a whole number and one of ns, us"));
        assert!(wrong("10sec").contains("unknown unit `sec`; did you mean \"10s\"?"));
        assert!(wrong("10m").contains("did you mean \"10min\"?"));
        assert!(wrong("10 parsecs").contains("unknown unit `parsecs`; write a whole number"));
        assert!(wrong("1.5s").contains("unknown unit `.5s`"));
        assert!(wrong("s").contains("does not begin with a whole number"));
        assert!(wrong("99999999999999999999s").contains("too large"));
        let size = read("4MB", &SIZES, "4MiB").expect_err("wrong");
        assert!(size.contains("did you mean \"4MiB\"?"), "{size}");
    }
}
