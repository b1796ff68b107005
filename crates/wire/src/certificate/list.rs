//! Lists of revoked certificates (RFC 5280 §5.1), read as far as operators need it: whose they are, and
//! for how long.

use super::CertificateError;
use super::der::{Der, GENERALIZED_TIME, INTEGER, SEQUENCE, UTC_TIME, time};

/// What the head of a list of revoked certificates says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RevocationList<'a> {
    /// Whose certificates it is about, as DER.
    pub issuer: &'a [u8],
    /// Unix time of the list, in seconds.
    pub this_update: i64,
    /// Unix time until which there is a newer one, in seconds, where it says so.
    pub next_update: Option<i64>,
}

impl<'a> RevocationList<'a> {
    /// Reads the head of a list in DER.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(der: &'a [u8]) -> Result<Self, CertificateError> {
        let mut outer = Der(Der(der).take(SEQUENCE)?);
        let mut signed = Der(outer.take(SEQUENCE)?);
        signed.optional(INTEGER)?;
        signed.take(SEQUENCE)?;
        let issuer = signed.take(SEQUENCE)?;
        let this_update = time(signed.next()?)?;
        let next_update = match signed.peek() {
            Some(UTC_TIME | GENERALIZED_TIME) => Some(time(signed.next()?)?),
            Some(_) | None => None,
        };
        Ok(Self { issuer, this_update, next_update })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::element;
    use super::*;

    fn list(after_issuer: &[Vec<u8>]) -> Vec<u8> {
        let algorithm = element(SEQUENCE, &[]);
        let issuer = element(SEQUENCE, b"it");
        let head = [element(INTEGER, &[1]), algorithm, issuer].concat();
        let signed = [head, after_issuer.concat()].concat();
        element(SEQUENCE, &element(SEQUENCE, &signed))
    }

    #[test]
    fn end_of_a_list_is_read_where_it_says_one() {
        let this = element(UTC_TIME, b"260102030405Z");
        let next = element(GENERALIZED_TIME, b"20500102030405Z");
        let revoked = element(SEQUENCE, &[]);
        for (parts, expected) in [
            (vec![this.clone(), next.clone(), revoked.clone()], Ok(Some(2_524_705_445))),
            (vec![this.clone(), next], Ok(Some(2_524_705_445))),
            (vec![this.clone(), revoked], Ok(None)),
            (vec![this], Ok(None)),
            (vec![], Err(CertificateError::Malformed)),
            (vec![element(INTEGER, &[1])], Err(CertificateError::Time)),
        ] {
            let der = list(&parts);
            let read = RevocationList::parse(&der);
            assert_eq!(read.map(|list| list.next_update), expected, "{parts:?}");
            if let Ok(list) = read {
                assert_eq!((list.issuer, list.this_update), (&b"it"[..], 1_767_323_045));
            }
        }
    }
}
