//! Where messages are in NATS JetStream: can a relay use it, and does it reach who leads?

use super::machine::status;
use super::report::Report;
use crate::cli::way_out;
use crate::config::{BusNats, Config};
use crate::server::jetstream_settings;
use crate::store::{Probe, ProbedAccount, ProbedLog};

/// The name of the check of NATS.
const MESSAGES: &str = "messages";

/// The streams of a log.
const STREAMS: usize = 2;

/// Checks the NATS that has the messages, as a relay sees it.
pub(super) async fn check(nats: &BusNats, report: &mut Report) {
    match jetstream_settings(nats).probe().await {
        Err(error) => report.warn(MESSAGES, error.to_string(), way_out::of_nats(&error)),
        Ok(probe) => {
            let findings = findings(&probe, nats.replicas, nats.max_bytes, nats.name.as_str());
            if findings.is_empty() {
                report.ok(MESSAGES, probe.to_string());
            }
            for (found, remedy) in findings {
                report.warn(MESSAGES, found, remedy);
            }
        }
    }
}

/// What is wrong with a NATS that can be used, and what helps.
fn findings(
    probe: &Probe,
    replicas: usize,
    max_bytes: Option<u64>,
    name: &str,
) -> Vec<(String, String)> {
    let mut findings = Vec::new();
    let mut add = |found: String, remedy: String| findings.push((found, remedy));
    let ProbedAccount { bytes, max_bytes: most, streams, max_streams, .. } = probe.account;
    let missing = STREAMS - probe.log.map_or(0, |log| log.streams);
    if let Some(max) = max_streams
        && (streams + missing) as u64 > max
    {
        add(
            format!("the account may have {max} streams, and {} are needed", streams + missing),
            "max_streams of the account in NATS".to_owned(),
        );
    }
    if let Some(most) = most {
        // What the streams may have is reserved when they are made.
        let wanted = bytes + max_bytes.unwrap_or_default() * missing as u64;
        if wanted > most - most / 10 {
            add(
                format!("the account may store {most} bytes, and {wanted} are stored or reserved"),
                "max_file of the account in NATS, or a smaller --bus-nats-max-bytes".to_owned(),
            );
        }
    }
    if probe.account.is_max_bytes_required && max_bytes.is_none() {
        add(
            "the account takes no streams without a bound".to_owned(),
            "--bus-nats-max-bytes".to_owned(),
        );
    }
    if max_bytes.is_none() && most.is_none() {
        add(
            "nothing bounds what messages take of the disk of nats-server, which has to be \
             started again once that is full"
                .to_owned(),
            "--bus-nats-max-bytes, half of max_file_store of nats-server or less".to_owned(),
        );
    }
    let Some(log) = probe.log else { return findings };
    let ProbedLog { replicas: there, behind, is_nearly_full, .. } = log;
    if behind > 0 {
        add(
            format!("{behind} of {there} servers of NATS are away or behind"),
            "`nats stream report` says which".to_owned(),
        );
    }
    if there < replicas {
        add(
            format!("the streams have {there} copies, and --bus-nats-replicas is {replicas}"),
            format!(
                "`nats stream edit --replicas {replicas}` of {name}-bus and {name}-bus-snapshots: \
                 that of a stream stays as it was made"
            ),
        );
    }
    if is_nearly_full {
        add(
            "a stream of the log is nearly as long as it may be".to_owned(),
            "a larger --bus-nats-max-bytes; `beacon-relay queues` says whose messages wait"
                .to_owned(),
        );
    }
    findings
}

/// Whether the relay that runs reaches the one that leads the bus.
pub(super) async fn check_leader(config: &Config, report: &mut Report) {
    // That none runs is said already.
    let Some(status) = status(config).await else { return };
    let Some(bus) = status.get("bus") else {
        let found = "the relay that runs has no messages in NATS";
        report.warn("bus-leader", found, "restart it: these settings have some");
        return;
    };
    let leader = bus["leader"].as_str().unwrap_or("another relay");
    match (bus["role"].as_str(), bus["trouble"].as_str()) {
        (_, Some(trouble)) => {
            let remedy = "docs/TROUBLESHOOTING.md, \"Messages do not move\"";
            report.warn("bus-leader", trouble, remedy);
        }
        (Some("leads"), None) => report.ok("bus-leader", "this relay leads the message bus"),
        (Some("follows"), None) => {
            let found = format!("{leader} leads the message bus, and this relay is linked to it");
            report.ok("bus-leader", found);
        }
        (_, None) => {
            report.warn("bus-leader", "no relay leads the message bus yet", "ask again in 10 s");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: ProbedLog =
        ProbedLog { bytes: 1, replicas: 3, behind: 0, streams: 2, is_nearly_full: false };

    fn probe(account: ProbedAccount, log: Option<ProbedLog>) -> Probe {
        Probe { version: "2".to_owned(), max_payload: 2_000_000, account, log }
    }

    fn found(probe: &Probe, max_bytes: Option<u64>) -> String {
        let findings = findings(probe, 3, max_bytes, "beacon");
        findings.into_iter().map(|(found, remedy)| format!("{found} -> {remedy}\n")).collect()
    }

    #[test]
    fn each_bound_that_the_messages_come_to_is_named_with_what_raises_it() {
        let unbounded = probe(ProbedAccount::default(), Some(LOG));
        assert!(
            found(&unbounded, None).ends_with("half of max_file_store of nats-server or less\n")
        );
        assert_eq!(found(&unbounded, Some(1)), "");

        let account = ProbedAccount { max_bytes: Some(1_000), ..ProbedAccount::default() };
        let few = ProbedAccount { streams: 2, max_streams: Some(3), ..account };
        assert_eq!(found(&probe(few, Some(LOG)), None), "", "both are there");
        assert!(found(&probe(few, None), None).contains("may have 3 streams, and 4 are needed"));
        let small = ProbedAccount { bytes: 95, max_bytes: Some(100), ..account };
        assert!(found(&probe(small, Some(LOG)), None).contains("may store 100 bytes, and 95"));
        let small = ProbedAccount { bytes: 0, ..small };
        assert_eq!(found(&probe(small, Some(LOG)), Some(80)), "", "it is reserved already");
        assert!(found(&probe(small, None), Some(80)).contains("and 160 are stored or reserved"));
        let bounded = ProbedAccount { is_max_bytes_required: true, ..account };
        assert!(found(&probe(bounded, None), None).ends_with("-> --bus-nats-max-bytes\n"));
        assert_eq!(found(&probe(bounded, None), Some(1)), "");
    }

    #[test]
    fn streams_with_too_few_copies_or_room_are_worth_a_look() {
        let of = |log| found(&probe(ProbedAccount::default(), Some(log)), Some(1));
        assert!(of(ProbedLog { behind: 1, ..LOG }).contains("1 of 3 servers of NATS are away"));
        let few = of(ProbedLog { replicas: 1, ..LOG });
        assert!(few.contains("have 1 copies, and --bus-nats-replicas is 3"), "{few}");
        assert!(few.contains("beacon-bus-snapshots"), "{few}");
        assert!(of(ProbedLog { is_nearly_full: true, ..LOG }).contains("nearly as long"));
    }
}
