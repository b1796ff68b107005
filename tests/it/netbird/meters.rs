//! The metrics that NetBird's dashboards read.

use super::{Site, frame, message};

#[test]
fn metrics_have_the_names_and_the_values_that_dashboards_of_the_original_read() {
    let site = Site::start(&[]);
    let relay = &site.relay;
    let [mut alice, mut bob, _idle] = ["alice", "bob", "carol"].map(|who| site.log_in(who));
    for _ in 0..5 {
        alice.send(2, &message(3, "bob", &[7; 100]));
        assert_eq!(bob.read(), frame(3, "alice", &[7; 100]));
    }
    // Nobody has it: it came in and went nowhere.
    alice.send(2, &message(3, "nobody", b""));
    relay.wait_for_metric("relay_transfer_received_bytes_total", 5.0 * 138.0 + 38.0);
    assert_eq!(relay.metric("relay_transfer_sent_bytes_total"), 5.0 * 138.0);
    assert_eq!(relay.metric("relay_peers{transport=\"ws\"}"), 3.0);
    assert_eq!(relay.metric("relay_peers{transport=\"quic\"}"), 0.0);
    assert_eq!(relay.metric("relay_peers_active") + relay.metric("relay_peers_idle"), 3.0);
    assert_eq!(relay.metric("relay_peer_authentication_time_milliseconds_count"), 3.0);
    assert_eq!(relay.metric("relay_peer_store_time_milliseconds_count"), 3.0);
    let bounds = ["0.1", "0.5", "1", "5", "10", "50", "100", "500", "1000", "5000", "10000"];
    let text = relay.metrics();
    for bound in bounds {
        let bucket = format!("relay_peer_store_time_milliseconds_bucket{{le=\"{bound}\"}}");
        assert!(text.contains(&bucket), "{bucket}");
    }
    assert!(!text.contains("relay_peer_reconnections_total"), "there is none yet");

    let _again = site.log_in("alice");
    assert_eq!(alice.read(), None);
    relay.wait_for_metric("relay_peer_reconnections_total", 1.0);
    relay.wait_for_metric("relay_peers{transport=\"ws\"}", 3.0);
    drop(bob);
    relay.wait_for_metric("relay_peers{transport=\"ws\"}", 2.0);
}
