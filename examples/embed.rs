//! The WebSocket listener inside another program, which decides itself who hears what: it logs
//! nodes in, and delivers to each what others send it.
//!
//! ```text
//! beacon-relay keygen --out alice.key       # prints the public key
//! beacon-relay keygen --out bob.key
//! cargo run --example embed -- 127.0.0.1:8443 4242=PUBLIC_KEY_OF_ALICE 4243=PUBLIC_KEY_OF_BOB
//! cargo run -p beacon-client --example client -- ws://127.0.0.1:8443 4242 alice.key 4243
//! cargo run -p beacon-client --example client -- ws://127.0.0.1:8443 4243 bob.key 4242
//! ```

use std::collections::HashMap;
use std::error::Error;
use std::future::Future;

use beacon_relay::doors::pilot::{Login, Pilot, deliver, per_packet};
use beacon_relay::ids::{NodeId, PublicKey};
use beacon_relay::session::Settings;
use beacon_relay::wire::beacon::{self, Packet};
use tokio::sync::mpsc;

/// Packets that wait to be delivered; beyond that they are dropped.
const QUEUE: usize = 1_024;

/// Serves these nodes at this address until `stop`.
pub(crate) async fn serve(
    arguments: &[String],
    stop: impl Future<Output = ()>,
) -> Result<(), Box<dyn Error>> {
    let [bind, nodes @ ..] = arguments else {
        return Err("usage: embed IP:PORT NODE_ID=PUBLIC_KEY...".into());
    };
    // A function from a node to its key would do as well.
    let mut keys: HashMap<NodeId, PublicKey> = HashMap::new();
    for node in nodes {
        let (id, key) = node.split_once('=').ok_or("a node is NODE_ID=PUBLIC_KEY")?;
        keys.insert(id.parse()?, key.parse()?);
    }

    // The sink runs where the peer is read, so it must not wait.
    let (queue, mut packets) = mpsc::channel(QUEUE);
    let sink = per_packet(move |node, packet: &[u8]| {
        if queue.try_send((node, packet.to_vec())).is_err() {
            eprintln!("dropped a packet of node {node}");
        }
    });
    let server = Pilot::new(keys, sink, Login::default()).listen(Settings::new(bind.parse()?))?;
    if let Some(address) = server.addr() {
        eprintln!("listening on {address}");
    }

    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            Some((node, packet)) = packets.recv() => {
                // The sender is who has logged in, whomever the packet names.
                let Ok(Packet::Relay(relay)) = beacon::decode(&packet) else { continue };
                eprintln!("node {node} sends {} bytes to {}", relay.payload.len(), relay.dest);
                if !deliver(&server, node, relay.dest, relay.payload) {
                    eprintln!("node {} is not connected", relay.dest);
                }
            }
            () = &mut stop => break,
        }
    }
    eprintln!("{} peers, {:?}", server.peer_count(), server.metrics());
    server.close().await;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    serve(&arguments, async {
        let _ = tokio::signal::ctrl_c().await;
    })
    .await
}
