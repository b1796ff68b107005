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
    /// What to do about it, unless it is as it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Part {
    /// A part that is as it should be.
    pub fn ok(reason: impl Into<String>) -> Self {
        Self { condition: Condition::Ok, reason: reason.into(), remedy: None }
    }

    /// A part that is worth a look, and what to do about it.
    pub fn degraded(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::judged(Condition::Degraded, reason, remedy)
    }

    /// A part without which no peer should be sent here, and what to do about it.
    pub fn failed(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::judged(Condition::Failed, reason, remedy)
    }

    /// A part in this condition; the remedy is left out where nothing is wrong.
    pub fn judged(
        condition: Condition,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let remedy = (condition > Condition::Ok).then(|| remedy.into());
        Self { condition, reason: reason.into(), remedy }
    }
}

/// What all parts come to, which the status page, `status` and its exit code show.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Running, and every part is as it should be.
    Ready,
    /// Running, and peers are served; a part is worth a look.
    Degraded,
    /// No peer should be sent here: a part has failed, or the relay starts or drains.
    #[serde(rename = "not ready")]
    NotReady,
}

/// A part that is not as it should be.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Reason {
    /// Its name.
    pub part: &'static str,
    /// How it is.
    pub condition: Condition,
    /// What that was judged by, for people.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
}

/// Whether peers should be sent to the relay, and why.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Readiness {
    /// It is running, and no part has failed.
    pub ready: bool,
    /// What the parts come to.
    pub verdict: Verdict,
    /// How far the relay has come.
    pub phase: Phase,
    /// Each part by its name.
    pub parts: BTreeMap<&'static str, Part>,
}

impl Readiness {
    /// What these parts come to.
    #[must_use]
    pub fn new(phase: Phase, parts: BTreeMap<&'static str, Part>) -> Self {
        let worst = parts.values().map(|part| part.condition).max().unwrap_or(Condition::Ok);
        let verdict = match (phase, worst) {
            (Phase::Running, Condition::Ok) => Verdict::Ready,
            (Phase::Running, Condition::Degraded) => Verdict::Degraded,
            (Phase::Running, Condition::Failed)
            | (Phase::Starting | Phase::Draining | Phase::Stopped, _) => Verdict::NotReady,
        };
        Self { ready: verdict != Verdict::NotReady, verdict, phase, parts }
    }

    /// The parts that are not as they should be, the failed ones first.
    #[must_use]
    pub fn reasons(&self) -> Vec<Reason> {
        let is_wrong = |(_, part): &(&&str, &Part)| part.condition > Condition::Ok;
        let wrong = self.parts.iter().filter(is_wrong);
        let mut reasons: Vec<_> = wrong
            .map(|(name, part)| Reason {
                part: name,
                condition: part.condition,
                reason: part.reason.clone(),
                remedy: part.remedy.clone().unwrap_or_default(),
            })
            .collect();
        // Stable: parts of one condition stay in the order of their names.
        reasons.sort_by_key(|reason| std::cmp::Reverse(reason.condition));
        reasons
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
            Phase::Running => {
                f.write_str(match self.verdict {
                    Verdict::Ready => "ready",
                    Verdict::Degraded => "ready, but degraded",
                    Verdict::NotReady => "not ready",
                })?;
                for Reason { part, reason, remedy, .. } in self.reasons() {
                    write!(f, "; {part}: {reason} -> {remedy}")?;
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
        let parts = [("canary", Part::judged(canary, "why", "what to do")), ("udp", Part::ok("-"))];
        Readiness::new(phase, parts.into())
    }

    #[test]
    fn relay_is_ready_while_it_runs_and_nothing_has_failed() {
        for (phase, canary, verdict, text) in [
            (Phase::Running, Condition::Ok, Verdict::Ready, "ready"),
            (
                Phase::Running,
                Condition::Degraded,
                Verdict::Degraded,
                "ready, but degraded; canary: why -> what to do",
            ),
            (
                Phase::Running,
                Condition::Failed,
                Verdict::NotReady,
                "not ready; canary: why -> what to do",
            ),
            (Phase::Starting, Condition::Ok, Verdict::NotReady, "starting"),
            (Phase::Draining, Condition::Failed, Verdict::NotReady, "draining"),
        ] {
            let readiness = readiness(phase, canary);
            assert_eq!((readiness.verdict, &*readiness.to_string()), (verdict, text));
            assert_eq!(readiness.ready, verdict != Verdict::NotReady);
        }
    }

    #[test]
    fn failed_parts_are_the_first_reasons_and_good_ones_are_none() {
        let part = |condition| Part::judged(condition, "why", "what to do");
        let (ok, degraded, failed) = (Condition::Ok, Condition::Degraded, Condition::Failed);
        let conditions = [("acme", degraded), ("canary", ok), ("udp", failed)];
        let parts = conditions.map(|(name, condition)| (name, part(condition)));

        let reasons = Readiness::new(Phase::Running, parts.into()).reasons();

        let order: Vec<_> = reasons.iter().map(|one| (one.part, one.condition)).collect();
        assert_eq!(order, [("udp", failed), ("acme", degraded)]);
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
