//! The settings of NetBird's and openZro's relay, by the names of their flags.

/// Settings that are on or off, as flags without a value.
pub(super) const SWITCHES: [&str; 2] = ["enable-stun", "letsencrypt-aws-route53"];

/// Settings that have a counterpart.
pub(super) const KNOWN: [&str; 14] = [
    "listen-address",
    "exposed-address",
    "auth-secret",
    "auth-secret-file",
    "tls-cert-file",
    "tls-key-file",
    "letsencrypt-domains",
    "letsencrypt-email",
    "metrics-port",
    "log-level",
    "health-listen-address",
    "trusted-proxies",
    "enable-stun",
    "stun-ports",
];

/// Settings that have none, and why.
pub(super) const NONE: [(&str, &str); 11] = [
    ("letsencrypt-data-dir", "certificates are kept in the state folder, and ordered anew once"),
    (
        "letsencrypt-aws-route53",
        "certificates are proved at port 443 (TLS-ALPN), which the authority has to reach; else get \
         them by another program and name their files",
    ),
    ("log-file", "the log goes to stderr, for systemd or the container's engine to keep"),
    ("stun-log-level", "log_level is for all parts; STUN is counted, not logged"),
    ("relay-hc-attempt-threshold", "a client ends after 45 s without a message"),
    (
        "cluster-headless",
        "a cluster is another one here: set cluster_bind, cluster_dns with this name, and \
         cluster_secret_file (docs/CLUSTER.md)",
    ),
    ("cluster-port", "see cluster-headless"),
    ("pod-ip", "relays tell each other where they are"),
    ("cluster-auth-secret", "see cluster-headless: cluster_secret_file"),
    ("enable-pprof", "there is no profiler to be reached over HTTP"),
    ("config", "write its settings as variables"),
];

/// Whether this is a setting of the original.
pub(super) fn is_known(name: &str) -> bool {
    KNOWN.contains(&name) || NONE.iter().any(|(none, _)| *none == name)
}
