//! Times such as `10s` or `1m30s`: whole numbers with units.

use std::fmt;
use std::time::Duration;

use super::Invalid;

/// The units, the largest first, with their length in milliseconds.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads `500ms`, `10s`, `2m`, `1h`, `7d` or, with the largest unit first, `1m30s`.
pub(super) fn parse(text: &str) -> Result<Duration, Invalid> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("not a duration; write a number and a unit, such as {text}s").into());
    }
    milliseconds(text).map(Duration::from_millis).ok_or_else(|| {
        "not a duration; write numbers with units (d, h, m, s, ms), such as 10s or 1m30s".into()
    })
}

/// The sum of all parts, each of a smaller unit than the one before.
fn milliseconds(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total: u64 = 0;
    let mut larger = u64::MAX;
    loop {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, behind) = rest.split_at(digits);
        let letters = behind.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, others) = behind.split_at(letters);
        let (_, length) = UNITS.iter().find(|(name, _)| *name == unit)?;
        if *length >= larger {
            return None;
        }
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(*length)?)?;
        if others.is_empty() {
            return Some(total);
        }
        larger = *length;
        rest = others;
    }
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
    fn parts_of_a_time_add_up_the_largest_first() {
        for (text, milliseconds) in
            [("1m30s", 90_000), ("1d2h", 93_600_000), ("1h30m", 5_400_000), ("1s500ms", 1_500)]
        {
            assert_eq!(parse(text).unwrap(), Duration::from_millis(milliseconds), "{text}");
        }
        assert_eq!(Shown(parse("1m30s").unwrap()).to_string(), "90s");
    }

    #[test]
    fn number_without_a_unit_is_told_what_to_write() {
        let Invalid(reason) = parse("2").unwrap_err();
        assert_eq!(reason, "not a duration; write a number and a unit, such as 2s");
    }

    #[test]
    fn other_texts_are_no_durations() {
        for text in [
            "",
            "s",
            "-1s",
            "+1s",
            "1.5s",
            "1 s",
            "1w",
            "30s1m",
            "1m1m",
            "1m30",
            "1S",
            "99999999999999h",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
