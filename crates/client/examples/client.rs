//! A node that says hello to another and prints what it is sent, until the relay or a
//! Ctrl-C ends it. The session is dialled again whenever it breaks.
//!
//! ```text
//! beacon-relay keygen --out node.key
//! cargo run -p beacon-client --example client -- ws://127.0.0.1:8443 4242 node.key 4243
//! ```

use std::error::Error;
use std::path::Path;

use beacon_client::ids::NodeId;
use beacon_client::{Options, Reconnecting, read_key};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, node, key, friend] = arguments.as_slice() else {
        return Err("usage: client URL NODE_ID KEY_FILE FRIENDS_NODE_ID".into());
    };
    let friend: NodeId = friend.parse()?;
    let options = Options::new(url, node.parse()?, read_key(Path::new(key))?.key);
    let (mut sender, mut receiver, mut state) = Reconnecting::start(options)?.split();

    sender.send_to(friend, b"hello").await?;
    loop {
        tokio::select! {
            delivery = receiver.recv() => match delivery? {
                Some(delivery) => {
                    let text = String::from_utf8_lossy(&delivery.payload);
                    eprintln!("node {}: {text:?}", delivery.sender);
                }
                None => return Ok(()),
            },
            Ok(()) = state.changed() => eprintln!("{:?}", *state.borrow_and_update()),
            _ = tokio::signal::ctrl_c() => sender.bye().await,
        }
    }
}
