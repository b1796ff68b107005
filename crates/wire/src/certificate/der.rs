//! What of DER (X.690) certificates and lists of revocations are made of: elements, and times.

use super::CertificateError;

pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(super) const UTF8_STRING: u8 = 0x0c;
pub(super) const PRINTABLE_STRING: u8 = 0x13;
pub(super) const IA5_STRING: u8 = 0x16;
pub(super) const UTC_TIME: u8 = 0x17;
pub(super) const GENERALIZED_TIME: u8 = 0x18;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;

/// What is left of a structure in DER (X.690).
#[derive(Clone, Copy)]
pub(super) struct Der<'a>(pub(super) &'a [u8]);

impl<'a> Der<'a> {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next element: its tag, and what is in it.
    pub(super) fn next(&mut self) -> Result<(u8, &'a [u8]), CertificateError> {
        let (&tag, rest) = self.0.split_first().ok_or(CertificateError::Malformed)?;
        let (&first, mut rest) = rest.split_first().ok_or(CertificateError::Malformed)?;
        let mut length = usize::from(first);
        if first >= 0x80 {
            let count = usize::from(first & 0x7f);
            if !(1..=4).contains(&count) {
                return Err(CertificateError::Malformed);
            }
            let (bytes, behind) =
                rest.split_at_checked(count).ok_or(CertificateError::Malformed)?;
            length = bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            rest = behind;
        }
        let (inner, behind) = rest.split_at_checked(length).ok_or(CertificateError::Malformed)?;
        self.0 = behind;
        Ok((tag, inner))
    }

    /// The tag of the next element.
    pub(super) fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The next element, which has this tag.
    pub(super) fn take(&mut self, tag: u8) -> Result<&'a [u8], CertificateError> {
        let (found, inner) = self.next()?;
        (found == tag).then_some(inner).ok_or(CertificateError::Malformed)
    }

    /// The next element, if it has this tag.
    pub(super) fn optional(&mut self, tag: u8) -> Result<Option<&'a [u8]>, CertificateError> {
        if self.peek() == Some(tag) { self.take(tag).map(Some) } else { Ok(None) }
    }
}

/// Unix time in seconds: `YYMMDDHHMMSSZ` of 1950 to 2049, or `YYYYMMDDHHMMSSZ`.
pub(super) fn time((tag, text): (u8, &[u8])) -> Result<i64, CertificateError> {
    let (year, rest) = match (tag, text.len()) {
        (UTC_TIME, 13) => {
            let (year, rest) = text.split_at(2);
            let year = number(year)?;
            (if year < 50 { 2_000 + year } else { 1_900 + year }, rest)
        }
        (GENERALIZED_TIME, 15) => {
            let (year, rest) = text.split_at(4);
            (number(year)?, rest)
        }
        _ => return Err(CertificateError::Time),
    };
    let (parts, zone) = rest.as_chunks::<2>();
    let [month, day, hour, minute, second] = *parts else { return Err(CertificateError::Time) };
    let [month, day, hour, minute, second] =
        [number(&month)?, number(&day)?, number(&hour)?, number(&minute)?, number(&second)?];
    let exists = zone == b"Z"
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 61;
    if !exists {
        return Err(CertificateError::Time);
    }
    Ok(days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second)
}

fn number(digits: &[u8]) -> Result<i64, CertificateError> {
    digits.iter().try_fold(0, |number, digit| match digit {
        b'0'..=b'9' => Ok(number * 10 + i64::from(digit - b'0')),
        _ => Err(CertificateError::Time),
    })
}

/// Days from 1970 to a date, by the calendar that counts years from March.
const fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_both_kinds_are_read_and_others_refused() {
        for (tag, text, expected) in [
            (UTC_TIME, &b"700101000000Z"[..], Ok(0)),
            (UTC_TIME, b"500101000000Z", Ok(-631_152_000)),
            (GENERALIZED_TIME, b"20240229235959Z", Ok(1_709_251_199)),
            (GENERALIZED_TIME, b"99991231235959Z", Ok(253_402_300_799)),
            (UTC_TIME, b"701301000000Z", Err(CertificateError::Time)),
            (UTC_TIME, b"70010100000Z", Err(CertificateError::Time)),
            (UTC_TIME, b"7001010000000", Err(CertificateError::Time)),
            (INTEGER, b"700101000000Z", Err(CertificateError::Time)),
        ] {
            assert_eq!(time((tag, text)), expected, "{}", text.escape_ascii());
        }
    }
}
