//! What the doctor found, a line a check; how bad it is, and what to do.

use std::fmt::{self, Write as _};
use std::net::SocketAddr;

use serde::Serialize;

use crate::cli::Exit;

/// How a check ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// All is well.
    Ok,
    /// Worth a look; a peer can use the URL all the same.
    Warning,
    /// A peer cannot use the URL.
    Failed,
    /// Not checked: the arguments, or an earlier failure, do not let us.
    Skipped,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "FAILED",
            Self::Skipped => "skipped",
        })
    }
}

/// One check.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(super) struct Finding {
    /// What was checked: a word that stays the same.
    pub(super) check: &'static str,
    /// How it ended.
    pub(super) verdict: Verdict,
    /// What was found.
    pub(super) found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remedy: Option<String>,
}

/// All checks, in the order in which they were made.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    checks: Vec<Finding>,
}

impl Report {
    pub(super) fn ok(&mut self, check: &'static str, found: impl Into<String>) {
        self.add(check, Verdict::Ok, found.into(), None);
    }

    pub(super) fn warn(
        &mut self,
        check: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(check, Verdict::Warning, found.into(), Some(remedy.into()));
    }

    pub(super) fn fail(
        &mut self,
        check: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(check, Verdict::Failed, found.into(), Some(remedy.into()));
    }

    pub(super) fn skip(&mut self, check: &'static str, why: impl Into<String>) {
        self.add(check, Verdict::Skipped, why.into(), None);
    }

    fn add(
        &mut self,
        check: &'static str,
        verdict: Verdict,
        found: String,
        remedy: Option<String>,
    ) {
        self.checks.push(Finding { check, verdict, found, remedy });
    }

    /// Takes in what was found at several addresses, check by check: once what is the same at
    /// all, and else with the addresses at which it was found.
    pub(super) fn merge(&mut self, reports: &[(SocketAddr, &Self)]) {
        let mut checks: Vec<&'static str> = Vec::new();
        for finding in reports.iter().flat_map(|(_, report)| &report.checks) {
            if !checks.contains(&finding.check) {
                checks.push(finding.check);
            }
        }
        for check in checks {
            let mut groups: Vec<(&Finding, Vec<String>)> = Vec::new();
            for (address, report) in reports {
                for finding in report.checks.iter().filter(|finding| finding.check == check) {
                    match groups.iter_mut().find(|(known, _)| *known == finding) {
                        Some((_, addresses)) => addresses.push(address.to_string()),
                        None => groups.push((finding, vec![address.to_string()])),
                    }
                }
            }
            for (finding, addresses) in groups {
                let mut finding = finding.clone();
                if addresses.len() < reports.len() {
                    finding.found = format!("at {}: {}", addresses.join(", "), finding.found);
                }
                self.checks.push(finding);
            }
        }
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.checks.iter().filter(|finding| finding.verdict == verdict).count()
    }

    /// All of it as one line of JSON.
    pub(super) fn json(&self) -> String {
        serde_json::to_string(self).expect("words and texts always serialize") + "\n"
    }

    /// The exit code that it comes to.
    pub(super) fn end(&self) -> Result<(), Exit> {
        let (failed, warnings) = (self.count(Verdict::Failed), self.count(Verdict::Warning));
        if failed + warnings == 0 { Ok(()) } else { Err(Exit::Findings { failed, warnings }) }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { check, verdict, found, remedy } in &self.checks {
            write!(f, "{verdict:8} {check:14} {}", printable(found))?;
            if let Some(remedy) = remedy {
                write!(f, " -> {}", printable(remedy))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// One line, whatever a server has sent.
fn printable(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut line, c| {
        if c.is_control() {
            write!(line, "{}", c.escape_default()).expect("a String takes everything");
        } else {
            line.push(c);
        }
        line
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_check_is_a_line_whatever_it_found() {
        let mut report = Report::default();
        report.ok("name", "192.0.2.1");
        report.warn("udp", "a\nb\x1b[31m", "look");
        report.skip("login", "no --key");
        let text = report.to_string();
        assert_eq!(
            text,
            "ok       name           192.0.2.1\n\
             warning  udp            a\\nb\\u{1b}[31m -> look\n\
             skipped  login          no --key\n"
        );
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["checks"][1]["remedy"], "look");
        assert_eq!(json["checks"][2]["verdict"], "skipped");
    }

    #[test]
    fn what_differs_between_addresses_names_them() {
        let [one, two, three] = [1, 2, 3].map(|n| SocketAddr::from(([192, 0, 2, n], 443)));
        let [mut good, mut bad] = [Report::default(), Report::default()];
        good.ok("tls", "TLS 1.3");
        good.ok("upgrade", "a WebSocket");
        bad.ok("tls", "TLS 1.3");
        bad.fail("upgrade", "refused", "look");
        let mut report = Report::default();
        report.merge(&[(one, &good), (two, &bad), (three, &good)]);
        assert_eq!(
            report.to_string(),
            "ok       tls            TLS 1.3\n\
             ok       upgrade        at 192.0.2.1:443, 192.0.2.3:443: a WebSocket\n\
             FAILED   upgrade        at 192.0.2.2:443: refused -> look\n"
        );
    }

    #[test]
    fn exit_code_is_that_of_the_worst() {
        let mut report = Report::default();
        let code = |report: &Report| report.end().map_err(|exit| exit.code());
        report.ok("a", "");
        report.skip("b", "");
        assert_eq!(code(&report), Ok(()));
        report.warn("c", "", "");
        assert_eq!(code(&report), Err(1));
        report.fail("d", "", "");
        report.warn("e", "", "");
        assert_eq!(code(&report), Err(2));
    }
}
