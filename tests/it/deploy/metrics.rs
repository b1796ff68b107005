//! Every metric that the relay exports is explained, and shown or left out for a reason.

use std::collections::BTreeSet;
use std::fs;

use super::{dashboard, root};
use crate::cluster::{Cluster, Fabric};
use crate::harness::Node;

/// Families that the dashboard does not show, and why.
const NOT_SHOWN: [(&str, &str); 2] = [
    ("process_threads", "a number of the machine, the same from start to end"),
    ("process_virtual_memory_bytes", "says nothing of memory in use: allocators reserve"),
];

/// What a relay exports that uses everything there is.
fn families() -> BTreeSet<String> {
    let more = ["--registry", "127.0.0.1:1"];
    let cluster = Cluster::start(Fabric::Mesh, 1, &[&Node::new(1)], |_| more.to_vec());
    let text = cluster.relays[0].metrics();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

/// Whether `text` has this name, and not as a part of another.
fn names(text: &str, family: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(family).any(|(at, _)| {
        let rest = &text[at + family.len()..];
        let series = ["_bucket", "_sum", "_count"];
        let after = series.iter().find_map(|end| rest.strip_prefix(end)).unwrap_or(rest);
        !text[..at].ends_with(is_word) && !after.starts_with(is_word)
    })
}

#[test]
fn every_metric_is_in_the_document() {
    let document = fs::read_to_string(root("docs/OPERATIONS.md")).unwrap();
    let (_, section) = document.split_once("\n## Metrics\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    for family in families() {
        let short = family.strip_prefix("pilot_beacon_").unwrap_or(&family);
        let listed = section.lines().any(|line| names(line, short));
        assert!(listed, "{family} is not in docs/OPERATIONS.md, Metrics");
    }
}

#[test]
fn every_metric_is_in_the_dashboard_or_left_out_for_a_reason() {
    let families = families();
    let queries: String = dashboard::queries().into_iter().map(|(_, query)| query + "\n").collect();
    let left_out: BTreeSet<_> = NOT_SHOWN.iter().map(|(family, _)| (*family).to_owned()).collect();
    let missing: BTreeSet<_> =
        families.iter().filter(|family| !names(&queries, family)).cloned().collect();
    assert_eq!(missing, left_out);
}
