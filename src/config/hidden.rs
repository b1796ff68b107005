//! URLs without the user and the password that they hold.

use std::borrow::Cow;

/// Stands where a user and a password were.
pub(super) const HIDDEN: &str = "***";

/// A URL without its user and password.
///
/// Of what is no URL it hides too much, such as all but the last of several, rather than a
/// part of a password that has an `@` or a comma in it.
pub(super) fn hidden(url: &str) -> Cow<'_, str> {
    let Some((before, host)) = url.rsplit_once('@') else { return Cow::Borrowed(url) };
    match before.split_once("://") {
        Some((scheme, _)) => Cow::Owned(format!("{scheme}://{HIDDEN}@{host}")),
        None => Cow::Owned(format!("{HIDDEN}@{host}")),
    }
}
