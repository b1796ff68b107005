//! The relay as a client of other hubs: records go both ways, each once, over outages as well.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use beacon_client::keyop::{Client, HubName, Identity, Options, Publication, Published, Transport};
use tokio::time::timeout;

use super::Site;
use super::pki::Authority;
use crate::harness::PATIENCE;

/// Settings that make a relay a client of others.
pub(super) fn hubs(of: &[(&str, &Site)], more: &str) -> String {
    let table = |(name, site): &(&str, &Site)| {
        format!(
            "[[keyop.hub]]\nname = \"{name}\"\naddress = \"{}\"\nsubscribe = [\"orders\"]\n\
             publish = [\"orders\"]\n{more}\n",
            site.address
        )
    };
    of.iter().map(table).collect()
}

/// A client of a relay whose name is `hub`, as `name`.
fn client(site: &Site, hub: &str, name: &str, transport: Transport) -> Client {
    client_at(site.address, (&site.authority, site.folder.path()), hub, name, transport)
}

/// The same at this address, with certificates of an authority, whose own is in a folder.
pub(super) fn client_at(
    address: SocketAddr,
    (authority, folder): (&Authority, &Path),
    hub: &str,
    name: &str,
    transport: Transport,
) -> Client {
    authority.issue(name).write(folder, name);
    let file = |ending: &str| folder.join(format!("{name}.{ending}"));
    let identity = Identity::new(file("crt"), file("key"));
    let authorities = folder.join("ca.crt");
    let mut options = Options::new(address.to_string(), name, identity, authorities);
    options.transport = transport;
    options.hub_name = HubName::Is(hub.to_owned());
    options.subscribe = vec!["orders".to_owned()];
    Client::start(options).unwrap()
}

/// The payloads of the next records, each of which comes once, and the hubs that the last one passed.
pub(super) async fn take(client: &mut Client, count: usize) -> (BTreeSet<u64>, Vec<String>) {
    let mut payloads = BTreeSet::new();
    let mut route = Vec::new();
    while payloads.len() < count {
        let batch = timeout(PATIENCE, client.recv()).await.unwrap().unwrap().unwrap();
        for record in batch.envelopes() {
            let record = record.unwrap();
            let payload: u64 = serde_json::from_slice(record.payload().as_bytes()).unwrap();
            assert!(payloads.insert(payload), "{payload} came twice");
            route = record.route.iter().map(|name| name.into_owned()).collect();
        }
        batch.ack().await;
    }
    (payloads, route)
}

pub(super) async fn publish(client: &Client, payloads: impl Iterator<Item = u64>) {
    let mut pending = Vec::new();
    for payload in payloads {
        let publication = Publication::new("orders", "t", &payload);
        pending.push(client.publisher().post(&publication).await.unwrap());
    }
    for pending in pending {
        let published = timeout(PATIENCE, pending.published()).await.unwrap();
        assert_eq!(published, Ok(Published::Acknowledged));
    }
}

fn wait_for_hubs(site: &Site, state: &str, hubs: f64) {
    let metric = format!("beacon_relay_keyop_hubs{{state=\"{state}\"}}");
    site.relay.wait_for_metric(&metric, hubs);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ring_of_three_hubs_has_each_record_once_at_each() {
    let authority = Arc::new(Authority::new("test CA"));
    let one = Site::named("one", Arc::clone(&authority), "", &[]);
    let two = Site::named("two", Arc::clone(&authority), &hubs(&[("one", &one)], ""), &[]);
    let all = hubs(&[("one", &one), ("two", &two)], "");
    let three = Site::named("three", authority, &all, &[]);
    wait_for_hubs(&two, "connected", 1.0);
    wait_for_hubs(&three, "connected", 2.0);
    let sites = [("one", &one), ("two", &two), ("three", &three)];
    let mut clients = Vec::new();
    for (number, (hub, site)) in sites.into_iter().enumerate() {
        let transport = if number == 1 { Transport::WebSocket } else { Transport::Grpc };
        clients.push(client(site, hub, &format!("client-of-{hub}"), transport));
        site.wait_until_subscribed(if number == 0 {
            3
        } else if number == 1 {
            2
        } else {
            1
        });
    }

    publish(&clients[0], 0..40).await;
    publish(&clients[1], 40..60).await;
    publish(&clients[2], 60..80).await;

    for (number, client) in clients.iter_mut().enumerate() {
        // What a client has published itself does not come back to it.
        let own = [0..40, 40..60, 60..80][number].clone();
        let expected: BTreeSet<u64> = (0..80).filter(|payload| !own.contains(payload)).collect();
        let (payloads, route) = take(client, expected.len()).await;
        assert_eq!(payloads, expected);
        assert_eq!(route.last().unwrap(), sites[number].0);
    }
    // One more, behind which a second copy of those before would have come.
    publish(&clients[0], 80..81).await;
    for client in &mut clients[1..] {
        assert_eq!(take(client, 1).await.0, BTreeSet::from([80]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_while_a_hub_is_away_arrives_when_it_is_back() {
    let authority = Arc::new(Authority::new("test CA"));
    let mut one = Site::named("one", Arc::clone(&authority), "", &[]);
    let settings = hubs(&[("one", &one)], "transport = \"websocket\"");
    let two = Site::named("two", authority, &settings, &[]);
    wait_for_hubs(&two, "connected", 1.0);
    let mut of_one = client(&one, "one", "client-of-one", Transport::Grpc);
    let of_two = client(&two, "two", "client-of-two", Transport::Grpc);
    one.wait_until_subscribed(2);
    publish(&of_two, 0..5).await;
    assert_eq!(take(&mut of_one, 5).await.0, (0..5).collect());

    timeout(PATIENCE, of_one.close()).await.unwrap().unwrap();
    one.relay.signal("STOP");
    publish(&of_two, 5..25).await;
    one.restart("KILL");

    let mut of_one = client(&one, "one", "client-of-one", Transport::Grpc);
    assert_eq!(take(&mut of_one, 20).await.0, (5..25).collect());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hub_that_refuses_is_shown_and_left_alone() {
    let authority = Arc::new(Authority::new("test CA"));
    let others = "[[keyop.peer]]\nname = \"somebody-else\"\n";
    let one = Site::named("one", Arc::clone(&authority), others, &[]);
    let two = Site::named("two", authority, &hubs(&[("one", &one)], ""), &[]);
    wait_for_hubs(&two, "refused", 1.0);
    let line = two.relay.wait_for_line("a hub refuses this one");
    assert!(line.contains("not in allowlist") && line.contains("one"), "{line}");
}
