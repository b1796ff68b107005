//! Times such as `10s`: a whole number and one unit.

use std::fmt;
use std::time::Duration;

use super::Invalid;

/// The units, the largest first, with their length in milliseconds.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads `500ms`, `10s`, `2m`, `1h` or `7d`.
pub(super) fn parse(text: &str) -> Result<Duration, Invalid> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if !number.is_empty() && unit.is_empty() {
        return Err(format!("not a duration; write a number and a unit, such as {number}s").into());
    }
    number
        .parse::<u64>()
        .ok()
        .zip(UNITS.iter().find(|(name, _)| *name == unit))
        .and_then(|(number, (_, milliseconds))| number.checked_mul(*milliseconds))
        .map(Duration::from_millis)
        .ok_or_else(|| {
            "not a duration; write a number and a unit (ms, s, m, h, d), such as 10s".into()
        })
}

/// A whole number of milliseconds in its largest unit; one day is 24h.
pub(super) struct Shown(pub(super) Duration);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.0.as_millis();
        let (name, length) = UNITS
            .into_iter()
            .find(|(name, length)| {
                let least = if *name == "d" { 2 * length } else { *length };
                total >= least.into() && total.is_multiple_of(u128::from(*length))
            })
            .unwrap_or(("s", 1_000));
        write!(f, "{}{name}", total / u128::from(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_unit_is_read_and_shown() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("0s", 0),
            ("24h", 86_400_000),
            ("7d", 604_800_000),
        ] {
            let duration = parse(text).unwrap();
            assert_eq!(duration, Duration::from_millis(milliseconds));
            assert_eq!(Shown(duration).to_string(), text);
        }
    }

    #[test]
    fn number_without_a_unit_is_told_what_to_write() {
        let Invalid(reason) = parse("2").unwrap_err();
        assert_eq!(reason, "not a duration; write a number and a unit, such as 2s");
    }

    #[test]
    fn other_texts_are_no_durations() {
        for text in
            ["", "s", "-1s", "+1s", "1.5s", "1 s", "1w", "1d2h", "1h30m", "1S", "99999999999999h"]
        {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
