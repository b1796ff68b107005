//! Percent-encoding in URLs (RFC 3986 §2.1).

/// Resolves `%` and two hex digits; any other `%` stands for itself. `None` is not UTF-8.
#[must_use]
pub fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        let digits = after.get(..2).filter(|two| two.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.unwrap_or(b'%'));
        rest = if byte.is_some() { after.get(2..)? } else { after };
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_signs_are_decoded() {
        for (text, decoded) in
            [("a", Some("a")), ("p%40ss%3a", Some("p@ss:")), ("50%", Some("50%")), ("%ff", None)]
        {
            assert_eq!(percent_decoded(text).as_deref(), decoded, "{text}");
        }
    }
}
