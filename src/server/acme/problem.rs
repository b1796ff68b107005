//! Why an order brought no certificate: what it counts as, and what it means for the next one.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use instant_acme::Error;

use super::http::HttpError;
use crate::words;

/// Longest text of an authority's that is shown, in characters.
const MAX_TEXT: usize = 500;

/// What stands before the types of problems that ACME has (RFC 8555 §6.7).
const TYPES: &str = "urn:ietf:params:acme:error:";

words! {
    /// How an order ended.
    pub(super) enum Outcome {
        /// With a certificate.
        Ok => "ok",
        /// The authority does not answer, or has a failure of its own.
        Unreachable => "unreachable",
        /// The authority has had too many of them.
        RateLimited => "rate_limited",
        /// The authority does not want to.
        Refused => "refused",
        /// The authority could not check that the names lead here.
        Validation => "validation",
        /// What the authority says makes no sense.
        Invalid => "invalid",
        /// The state folder does not take what has to be kept.
        Storage => "storage",
        /// The certificate is not good now, by this machine's clock.
        Clock => "clock",
    }
}

impl Outcome {
    /// What an operator can do about it.
    pub(super) const fn remedy(self) -> &'static str {
        match self {
            Self::Ok => "wait: an order takes some seconds",
            Self::Unreachable => {
                "let the relay connect to the authority (--acme-directory), by HTTPS"
            }
            Self::RateLimited => {
                "wait: the authority allows a few orders in a while, and the relay retries automatically"
            }
            Self::Refused => {
                "read what the authority says: the account, or the name, is not allowed there"
            }
            Self::Validation => {
                "let the name lead to this relay, port 443 open to all; `beacon-relay doctor` checks both"
            }
            Self::Invalid => "is --acme-directory the URL of an ACME directory? See the log",
            Self::Storage => {
                "let the relay's user write in the state folder, and make room on its disk: what is not \
                 kept has to be ordered again after a restart"
            }
            Self::Clock => "set this machine's clock, by NTP",
        }
    }
}

/// Why there is no certificate.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub(super) outcome: Outcome,
    text: String,
    /// How long the authority wants to be left alone.
    pub(super) retry_after: Option<Duration>,
    /// The authority does not know the account.
    pub(super) is_of_account: bool,
    /// The authority has signed all the same.
    has_signed: bool,
}

impl Problem {
    pub(super) fn new(outcome: Outcome, text: impl fmt::Display) -> Self {
        let text = printable(&text.to_string());
        Self { outcome, text, retry_after: None, is_of_account: false, has_signed: false }
    }

    /// Whether it counts at an authority that allows a few an hour.
    pub(super) const fn is_counted(&self) -> bool {
        if self.has_signed {
            return true;
        }
        match self.outcome {
            Outcome::RateLimited | Outcome::Refused | Outcome::Validation | Outcome::Clock => true,
            Outcome::Ok | Outcome::Unreachable | Outcome::Invalid | Outcome::Storage => false,
        }
    }

    /// The same, of a certificate that was signed: authorities sign few for one name in a week.
    pub(super) fn of_certificate(self) -> Self {
        Self { has_signed: true, ..self }
    }

    /// The same; the authority wants to be left alone for so long.
    pub(super) fn with_retry_after(self, retry_after: Option<Duration>) -> Self {
        Self { retry_after, ..self }
    }

    /// The same, of this name.
    pub(super) fn of_name(self, name: &str) -> Self {
        Self { text: format!("{name}: {}", self.text), ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match &error {
            Error::Api(problem) => Self::of_api(problem),
            Error::Timeout(_) => Self::new(Outcome::Unreachable, "the authority takes too long"),
            Error::Other(other) if other.is::<HttpError>() => {
                Self::new(Outcome::Unreachable, chain(&error))
            }
            Error::Crypto
            | Error::KeyRejected
            | Error::Http(_)
            | Error::InvalidUri(_)
            | Error::Json(_)
            | Error::Unsupported(_)
            | Error::Other(_)
            | Error::Str(_)
            | _ => {
                Self::new(Outcome::Invalid, format!("no sense in the answer: {}", chain(&error)))
            }
        }
    }
}

impl Problem {
    /// What an authority has found when it checked a name, whatever it calls that.
    pub(super) fn of_validation(problem: &instant_acme::Problem) -> Self {
        Self { outcome: Outcome::Validation, ..Self::of_api(problem) }
    }

    /// What an authority has said in so many words.
    pub(super) fn of_api(problem: &instant_acme::Problem) -> Self {
        let kind = problem.r#type.as_deref().and_then(|kind| kind.strip_prefix(TYPES));
        let outcome = match kind.unwrap_or_default() {
            "rateLimited" => Outcome::RateLimited,
            "caa" | "connection" | "dns" | "incorrectResponse" | "tls" | "unauthorized" => {
                Outcome::Validation
            }
            // The library has tried again with other nonces.
            "badNonce" | "serverInternal" => Outcome::Unreachable,
            _ if problem.status.is_some_and(|status| status >= 500) => Outcome::Unreachable,
            _ => Outcome::Refused,
        };
        let text = problem.to_string();
        let text = text.strip_prefix("API error: ").unwrap_or(&text);
        let is_of_account = kind == Some("accountDoesNotExist");
        Self { is_of_account, ..Self::new(outcome, text) }
    }
}

/// The error with its causes.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let of_cause = cause.to_string();
        // Many texts have those of their causes in them.
        if !text.contains(&of_cause) {
            text = format!("{text}: {of_cause}");
        }
        next = cause.source();
    }
    text
}

/// On one line and not too long: it is somebody else's.
fn printable(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(MAX_TEXT).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(text: &str) -> Problem {
        Problem::of_api(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn what_an_authority_says_is_told_apart_by_what_it_means_for_the_next_order() {
        for (kind, outcome, is_counted) in [
            ("rateLimited", Outcome::RateLimited, true),
            ("connection", Outcome::Validation, true),
            ("unauthorized", Outcome::Validation, true),
            ("rejectedIdentifier", Outcome::Refused, true),
            ("badNonce", Outcome::Unreachable, false),
            ("serverInternal", Outcome::Unreachable, false),
        ] {
            let problem = api(&format!("{{\"type\":\"{TYPES}{kind}\",\"detail\":\"why\\nnot\"}}"));
            assert_eq!((problem.outcome, problem.is_counted()), (outcome, is_counted), "{kind}");
            assert_eq!(problem.to_string(), format!("why not ({TYPES}{kind})"));
            assert!(!problem.is_of_account);
        }
        assert!(api(&format!("{{\"type\":\"{TYPES}accountDoesNotExist\"}}")).is_of_account);
        assert_eq!(api("{\"status\":503}").outcome, Outcome::Unreachable);
        let long = api(&format!("{{\"detail\":\"{}\"}}", "ä".repeat(9_000))).to_string();
        assert_eq!(long.chars().count(), MAX_TEXT);
        let nonsense = Problem::new(Outcome::Invalid, "no certificate in it");
        assert!(!nonsense.is_counted() && nonsense.of_certificate().is_counted());
    }
}
