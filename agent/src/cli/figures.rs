//! Figures for people: three significant digits and a unit that fits.

use crate::time::Nanos;

/// A length of time: `312 ns`, `31.0 µs`, `1.11 ms`, `48.2 s`; `0` is `0 ns`.
#[must_use]
pub fn duration(length: Nanos) -> String {
    scaled(
        length.0,
        &[
            ("ns", 1),
            ("µs", 1_000),
            ("ms", 1_000_000),
            ("s", 1_000_000_000),
        ],
    )
}

/// Bytes in binary units: `512 B`, `2.31 MiB`.
#[must_use]
pub fn bytes(count: u64) -> String {
    scaled(
        count,
        &[
            ("B", 1),
            ("KiB", 1 << 10),
            ("MiB", 1 << 20),
            ("GiB", 1 << 30),
        ],
    )
}

/// A count with its thousands set apart: `3,412`.
#[must_use]
pub fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The share of `part` in `whole` in per cent, with one decimal below ten and none above, and
/// `<0.1` of what would round to nothing; `None` of an empty whole.
#[must_use]
pub fn percent(part: Nanos, whole: Nanos) -> Option<String> {
    let share = tenths_of_percent(part, whole)?;
    Some(match share {
        0 if part.0 > 0 => "<0.1".to_owned(),
        0..100 => format!("{}.{}", share / 10, share % 10),
        _ => ((share + 5) / 10).to_string(),
    })
}

/// Tenths of a per cent, rounded to the nearest.
fn tenths_of_percent(part: Nanos, whole: Nanos) -> Option<u128> {
    let whole = u128::from(whole.0);
    (u128::from(part.0) * 1_000 + whole / 2).checked_div(whole)
}

/// `value` in the largest unit that leaves at least one digit before the point, rounded
/// half up. Units grow; the first one is 1.
fn scaled(value: u64, units: &[(&str, u64)]) -> String {
    for (index, (unit, size)) in units.iter().enumerate() {
        let last = index + 1 == units.len();
        // 999.7 µs must not become `1000 µs`: the next unit takes over where rounding would.
        let next = units.get(index + 1).map_or(u64::MAX, |(_, next)| *next);
        if !last && value.saturating_add(size / 2) >= next {
            continue;
        }
        if *size == 1 {
            return format!("{value} {unit}");
        }
        let hundredths = rounded(value, *size, 100);
        return if hundredths < 1_000 {
            format!("{}.{:02} {unit}", hundredths / 100, hundredths % 100)
        } else {
            let tenths = rounded(value, *size, 10);
            if tenths < 1_000 {
                format!("{}.{} {unit}", tenths / 10, tenths % 10)
            } else {
                format!("{} {unit}", rounded(value, *size, 1))
            }
        };
    }
    value.to_string()
}

fn rounded(value: u64, size: u64, scale: u64) -> u128 {
    (u128::from(value) * u128::from(scale) + u128::from(size / 2)) / u128::from(size)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_have_three_digits_and_a_fitting_unit() {
        for (nanos, text) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.00 µs"),
            (31_040, "31.0 µs"),
            (312_499, "312 µs"),
            (999_499, "999 µs"),
            (999_500, "1.00 ms"),
            (9_994_999, "9.99 ms"),
            (9_995_000, "10.0 ms"),
            (99_950_000, "100 ms"),
            (48_212_345, "48.2 ms"),
            (999_499_999, "999 ms"),
            (999_500_000, "1.00 s"),
            (301_000_000_000, "301 s"),
            (4_321_000_000_000, "4321 s"),
        ] {
            assert_eq!(duration(Nanos(nanos)), text, "{nanos} ns");
        }
    }

    #[test]
    fn bytes_counts_and_shares() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1_023), "1023 B");
        assert_eq!(bytes(4_096), "4.00 KiB");
        assert_eq!(bytes(2_422_000), "2.31 MiB");
        assert_eq!(count(7), "7");
        assert_eq!(count(3_412), "3,412");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(percent(Nanos(1), Nanos(3)).as_deref(), Some("33"));
        assert_eq!(percent(Nanos(23), Nanos(1_000)).as_deref(), Some("2.3"));
        assert_eq!(percent(Nanos(9_996), Nanos(100_000)).as_deref(), Some("10"));
        assert_eq!(percent(Nanos(5), Nanos(5)).as_deref(), Some("100"));
        assert_eq!(percent(Nanos(1), Nanos(9_999)).as_deref(), Some("<0.1"));
        assert_eq!(percent(Nanos(0), Nanos(9_999)).as_deref(), Some("0.0"));
        assert_eq!(percent(Nanos(0), Nanos(0)), None);
    }

    proptest! {
        #[test]
        fn any_duration_is_short_and_within_half_a_percent(nanos in 0..1_000_000_000_000_u64) {
            let text = duration(Nanos(nanos));
            prop_assert!(text.chars().count() <= 7, "{text}");
            let (figure, unit) = text.split_once(' ').expect("a unit");
            let scale = match unit { "ns" => 1.0, "µs" => 1e3, "ms" => 1e6, _ => 1e9 };
            let back: f64 = figure.parse::<f64>().expect("a number") * scale;
            #[expect(clippy::cast_precision_loss, reason = "compared to half a per cent")]
            let exact = nanos as f64;
            prop_assert!((back - exact).abs() <= exact * 0.005 + f64::EPSILON, "{text} for {nanos}");
        }
    }
}
