//! The scrape configuration and the alerts: promtool reads and tests them, and each alert is
//! tested and explained.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use super::{deploy, root, run};

fn promtool(arguments: &[&str], file: &str) {
    let said = run(Command::new("promtool").args(arguments).arg(deploy("prometheus").join(file)));
    assert!(said.contains("SUCCESS"), "{said}");
}

/// What follows `mark` on the lines of a text that have it.
fn after<'a>(text: &'a str, mark: &str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.split_once(mark)).map(|(_, rest)| rest).collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(root(path)).unwrap()
}

#[test]
fn prometheus_finds_no_fault_in_its_configuration() {
    promtool(&["check", "config", "--lint=all"], "prometheus.yml");
    promtool(&["check", "rules", "--lint=all"], "alerts.yml");
}

#[test]
fn alerts_fire_when_they_should_and_only_then() {
    promtool(&["test", "rules"], "alerts_test.yml");
}

#[test]
fn each_metric_that_is_said_to_be_alerted_on_has_a_rule() {
    let rules = read("deploy/prometheus/alerts.yml");
    let document = read("docs/METRICS.md");
    let rows = document.lines().filter(|line| line.contains("| **alert**"));
    // The family may be followed by its labels.
    let families = rows.map(|row| row.strip_prefix("| `").unwrap().split(['`', '{']).next());
    let families: BTreeSet<_> = families.map(Option::unwrap).collect();
    assert!(families.len() > 15, "{families:?}");
    let has_rule = |family: &&str| {
        if family.starts_with("beacon_relay_") {
            rules.contains(*family)
        } else {
            rules.contains(&format!("pilot_beacon_{family}"))
        }
    };
    let without: Vec<_> = families.into_iter().filter(|family| !has_rule(family)).collect();
    assert!(without.is_empty(), "{without:?}");
}

#[test]
fn each_alert_is_tested_and_has_a_line_that_says_what_to_do() {
    let rules = read("deploy/prometheus/alerts.yml");
    let alerts: BTreeSet<_> = after(&rules, "- alert: ").into_iter().collect();
    assert!(alerts.len() > 20, "{alerts:?}");

    let tests = read("deploy/prometheus/alerts_test.yml");
    let tested: BTreeSet<_> = after(&tests, "        alertname: ").into_iter().collect();
    assert_eq!(alerts, tested);
    // Each is seen silent before it fires.
    assert_eq!(after(&tests, ", alertname: ").len(), after(&tests, "        exp_alerts:").len());

    let document = read("docs/ALERTS.md");
    let runbooks: BTreeSet<_> = after(&document, "### ").into_iter().collect();
    assert_eq!(alerts, runbooks);
}

#[test]
fn each_alert_links_to_its_runbook() {
    let rules = read("deploy/prometheus/alerts.yml");
    let alerts = after(&rules, "- alert: ");
    let links = after(&rules, "runbook_url: ");
    assert_eq!(alerts.len(), links.len());
    for (alert, link) in alerts.into_iter().zip(links) {
        // Where the package has the document.
        let runbook = "file:///usr/share/doc/beacon-relay/docs/ALERTS.md";
        assert_eq!(link, format!("{runbook}#{}", alert.to_lowercase()));
    }
}

#[test]
fn each_runbook_says_how_urgent_the_alert_is_and_what_to_do() {
    let rules = read("deploy/prometheus/alerts.yml");
    let document = read("docs/ALERTS.md");
    let severity = |alert| {
        let (_, rule) = rules.split_once(&format!("- alert: {alert}\n"))?;
        rule.split_once("severity: ")?.1.split_whitespace().next()
    };
    for runbook in document.split("\n### ").skip(1) {
        let (alert, text) = runbook.split_once('\n').unwrap();
        let severity = severity(alert).unwrap();
        assert!(text.starts_with(&format!("\n**{severity}** · ")), "{alert}: {severity}");
        assert!(text.contains("\nDo:"), "{alert}");
    }
}
