//! Settings that tests of several modules need.

use crate::proto::translators::{Prefix, Translators};

/// A translator that has 2001:db8:64::/96, next to the well-known one.
pub(crate) fn translators() -> Translators {
    let first = "2001:db8:64::".parse().unwrap();
    Translators::new(vec![Prefix::new(first, 96).unwrap()]).unwrap()
}
