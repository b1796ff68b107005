//! What the manual's pages show of each command: how it is called for what.

/// The words behind the program's name, and what they do.
pub(super) type Example = (&'static str, &'static str);

/// The commands with examples, by what their pages are called.
pub(super) const EXAMPLES: &[(&str, &[Example])] = &[
    (
        "serve",
        &[
            ("serve --config /etc/beacon-relay/beacon-relay.toml", "Run the relay by a file"),
            ("serve --acme relay.example.org", "Get a certificate, and listen at port 443"),
            ("serve --keys keys.json --wss-bind unix:/run/relay/wss.sock", "Behind a proxy"),
        ],
    ),
    ("demo", &[("demo", "Start a relay on this machine, and show it at work")]),
    (
        "connect",
        &[
            (
                "connect ws://127.0.0.1:8443 --node-id 1 --key a.key",
                "Print what others send to node 1",
            ),
            (
                "connect ws://127.0.0.1:8443 --node-id 1 --key a.key --to 2 --once --timeout 5s",
                "Send the lines of stdin to node 2, and wait for one answer",
            ),
        ],
    ),
    (
        "doctor",
        &[
            ("doctor --config /etc/beacon-relay/beacon-relay.toml", "Check this machine's relay"),
            ("doctor wss://relay.example.org --json", "Check what a peer would find, for a report"),
        ],
    ),
    (
        "check-config",
        &[("check-config --config relay.toml", "Print what the settings come to, or all mistakes")],
    ),
    (
        "migrate",
        &[(
            "migrate netbird --compose compose.yaml",
            "Print a NetBird relay's settings as a configuration",
        )],
    ),
    ("keygen", &[("keygen --out node.key", "Write a private key, and print the public one")]),
    ("certs", &[("certs ca --name hubs", "Make an authority for hubs and their clients")]),
    (
        "enroll",
        &[(
            "enroll 4242 A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg= --wait",
            "Let node 4242 in, and wait until the relay knows",
        )],
    ),
    ("unenroll", &[("unenroll 4242 --wait", "Let node 4242 in no longer")]),
    ("enrolled", &[("enrolled --json", "List the nodes, as a file for --keys")]),
    ("cluster-id", &[("cluster-id", "Print what other relays write into --cluster-allow")]),
    (
        "status",
        &[
            ("status", "Say how the relay is, and its main numbers"),
            ("status --ready", "As a health check: exit 0, or 4 where no peer should come"),
        ],
    ),
    (
        "peers",
        &[
            ("peers --sort waiting --limit 10", "The ten peers for whom most waits"),
            ("peers --after 5000 --limit 1000", "The next page of a long list"),
        ],
    ),
    ("peer", &[("peer 4242", "What is known of node 4242")]),
    ("top", &[("top --count 5 --follow", "Who sends and receives most, again every 2 s")]),
    (
        "kick",
        &[
            ("kick 4242", "End its session; it may come back at once"),
            ("kick 4242 --for 1h", "And keep it out for an hour"),
            ("kick 4242 --for 0s", "Let it in again"),
        ],
    ),
    ("notify", &[("notify 4242", "Have a node look for a handshake at the registry")]),
    ("switch", &[("switch punch off", "Drop punches until they are switched on")]),
    ("drain", &[("drain", "Send all peers away, then end")]),
    ("reload", &[("reload", "Read settings and keys again, and say what has changed")]),
    ("log-level", &[("log-level info,beacon_relay::udp=debug", "Log more of one part")]),
    ("explain", &[("explain 4242", "Where a node is, and what became of its packets")]),
    ("record", &[("record --follow", "Print events of connections as they happen")]),
    ("names", &[("names --limit 50", "Whose the names of the message bus are")]),
    (
        "queue",
        &[
            ("queue alice --peek", "The first messages that wait for alice"),
            ("queue alice --requeue", "Deliver its dead letters again"),
        ],
    ),
    ("queues", &[("queues", "The mailboxes in which most waits")]),
    ("channels", &[("channels", "The channels of which somebody is furthest behind")]),
    ("channel", &[("channel news", "How far each peer of a channel has come")]),
    ("topics", &[("topics", "Who subscribes and who answers")]),
    (
        "mcp",
        &[(
            "mcp --url ws://127.0.0.1:47821 --name agent --token-file token",
            "Put an agent on the message bus, by a host that starts this",
        )],
    ),
    (
        "bus",
        &[(
            "bus move --to nats --bus-nats nats://127.0.0.1",
            "Have the messages in NATS from the next start on",
        )],
    ),
    ("audit", &[("audit verify", "Check the audit log of messages"), ("audit export", "Print it")]),
    (
        "completions",
        &[
            ("completions bash", "To /usr/share/bash-completion/completions/beacon-relay"),
            ("completions zsh", "To a folder of fpath, as _beacon-relay"),
            ("completions fish", "To ~/.config/fish/completions/beacon-relay.fish"),
        ],
    ),
];

/// The examples of the page of a command, whose name is without that of the program.
pub(super) fn of(command: &str) -> &'static [Example] {
    let found = EXAMPLES.iter().find(|(name, _)| *name == command);
    found.map_or(&[], |(_, examples)| examples)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn each_example_is_a_command_line_that_is_taken() {
        for (name, examples) in EXAMPLES {
            assert!(!examples.is_empty(), "{name}");
            for (line, about) in *examples {
                let words = ["beacon-relay"].into_iter().chain(line.split(' '));
                let parsed = Cli::try_parse_from(words);
                assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
                assert!(line.starts_with(name) && !about.is_empty(), "{line}");
            }
        }
    }
}
