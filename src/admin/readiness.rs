//! Whether the relay is ready for peers, part by part, and how `/readyz` says so.

use std::collections::BTreeMap;
use std::fmt;

use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::Phase;

/// How a part of the relay is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// As it should be.
    Ok,
    /// Worth a look; peers are served all the same.
    Degraded,
    /// No peer should be sent here.
    Failed,
}

/// One part of the relay.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Part {
    /// How it is.
    pub condition: Condition,
    /// What that was judged by, for people.
    pub reason: String,
}

impl Part {
    /// A part in this condition.
    pub fn new(condition: Condition, reason: impl Into<String>) -> Self {
        Self { condition, reason: reason.into() }
    }
}

/// Whether peers should be sent to the relay, and why.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Readiness {
    /// It is running, and no part has failed.
    pub ready: bool,
    /// How far the relay has come.
    pub phase: Phase,
    /// Each part by its name.
    pub parts: BTreeMap<&'static str, Part>,
}

impl Readiness {
    /// What these parts come to.
    #[must_use]
    pub fn new(phase: Phase, parts: BTreeMap<&'static str, Part>) -> Self {
        let whole = parts.values().all(|part| part.condition < Condition::Failed);
        Self { ready: phase == Phase::Running && whole, phase, parts }
    }

    /// The answer to a probe: one line, or all of it where that is asked for.
    pub(super) fn response(&self, uri: &Uri, headers: &HeaderMap) -> Response {
        let code = if self.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let verbose = uri.query().is_some_and(|query| query.split('&').any(|q| q == "verbose"));
        let accepts = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
        if verbose || accepts.is_some_and(|accept| accept.contains("application/json")) {
            (code, axum::Json(self)).into_response()
        } else {
            (code, format!("{self}\n")).into_response()
        }
    }
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.phase {
            Phase::Starting => f.write_str("starting"),
            Phase::Draining => f.write_str("draining"),
            Phase::Stopped => f.write_str("stopped"),
            Phase::Running if self.ready => f.write_str("ready"),
            Phase::Running => {
                f.write_str("not ready")?;
                let failed = |(_, part): &(&&str, &Part)| part.condition == Condition::Failed;
                for (name, Part { reason, .. }) in self.parts.iter().filter(failed) {
                    write!(f, "; {name}: {reason}")?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readiness(phase: Phase, canary: Condition) -> Readiness {
        let part = |condition| Part::new(condition, "why");
        let parts = [("canary", part(canary)), ("registry", part(Condition::Degraded))];
        Readiness::new(phase, parts.into())
    }

    #[test]
    fn relay_is_ready_while_it_runs_and_nothing_has_failed() {
        for (phase, canary, ready, text) in [
            (Phase::Running, Condition::Ok, true, "ready"),
            (Phase::Running, Condition::Degraded, true, "ready"),
            (Phase::Running, Condition::Failed, false, "not ready; canary: why"),
            (Phase::Starting, Condition::Ok, false, "starting"),
            (Phase::Draining, Condition::Failed, false, "draining"),
        ] {
            let readiness = readiness(phase, canary);
            assert_eq!((readiness.ready, &*readiness.to_string()), (ready, text));
        }
    }

    #[test]
    fn parts_are_told_to_who_asks_for_them() {
        let ask = |uri: &'static str, accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            let uri = Uri::from_static(uri);
            let response = readiness(Phase::Running, Condition::Failed).response(&uri, &headers);
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            response.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned()
        };
        assert!(ask("/readyz", "*/*").starts_with("text/plain"));
        assert!(ask("/readyz?verbosely", "*/*").starts_with("text/plain"));
        assert_eq!(ask("/readyz?x=1&verbose", "*/*"), "application/json");
        assert_eq!(ask("/readyz", "text/html, application/json"), "application/json");
    }
}
