//! The WebSocket listener inside another program: it logs nodes in, says what they send, and
//! sends it back. What a frame holds is the program's own affair.
//!
//! ```text
//! beacon-relay keygen --out node.key        # prints the public key
//! cargo run --example embed -- 127.0.0.1:8443 4242 PUBLIC_KEY
//! cargo run --example client -- ws://127.0.0.1:8443 4242 node.key 4242
//! ```

use std::collections::HashMap;
use std::error::Error;

use beacon_relay::doors::pilot::{Login, Pilot, per_packet};
use beacon_relay::ids::{NodeId, PublicKey};
use beacon_relay::session::Settings;
use tokio::sync::mpsc;

/// Frames that wait to be sent back; beyond that they are dropped.
const QUEUE: usize = 1_024;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [bind, node, key] = arguments.as_slice() else {
        return Err("usage: embed IP:PORT NODE_ID PUBLIC_KEY".into());
    };
    // A function from a node to its key would do as well.
    let keys: HashMap<NodeId, PublicKey> = HashMap::from([(node.parse()?, key.parse()?)]);

    // The sink runs where the peer is read, so it must not wait.
    let (queue, mut frames) = mpsc::channel(QUEUE);
    let sink = per_packet(move |node, frame: &[u8]| {
        if queue.try_send((node, frame.to_vec())).is_err() {
            eprintln!("dropped a frame of node {node}");
        }
    });
    let server = Pilot::new(keys, sink, Login::default()).listen(Settings::new(bind.parse()?))?;
    if let Some(address) = server.addr() {
        eprintln!("listening on {address}");
    }

    loop {
        tokio::select! {
            Some((node, frame)) = frames.recv() => {
                eprintln!("node {node} sent {} bytes", frame.len());
                if !server.write_frame(node, &frame) {
                    eprintln!("node {node} is no longer connected");
                }
            }
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    eprintln!("{} peers, {:?}", server.peer_count(), server.metrics());
    server.close().await;
    Ok(())
}
