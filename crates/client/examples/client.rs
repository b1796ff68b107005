//! A node that says hello to another once a second until that says hello as well, and then ends. The
//! session is dialled again whenever it breaks.
//!
//! ```text
//! cargo run -p beacon-client --example client -- ws://127.0.0.1:8443 4242 alice.key 4243
//! cargo run -p beacon-client --example client -- ws://127.0.0.1:8443 4243 bob.key 4242
//! ```
//!
//! `beacon-relay keygen --out alice.key` makes such a key. examples/python/pilot.py of the
//! repository says and hears the same.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use beacon_client::ids::NodeId;
use beacon_client::{Options, read_key};
use tokio::time::interval;

/// Greets the friend until it greets as well: what the friend said.
pub(crate) async fn greet(arguments: &[String]) -> Result<String, Box<dyn Error>> {
    let [url, node, key, friend] = arguments else {
        return Err("usage: client URL NODE_ID KEY_FILE FRIENDS_NODE_ID".into());
    };
    let friend: NodeId = friend.parse()?;
    let key = read_key(Path::new(key))?.key;
    let mut client = Options::new(url, node.parse()?, key).keep_connected()?;
    client.connected().await?;
    eprintln!("connected as node {node}");

    let mut second = interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            // Nobody hears it who is not there yet.
            _ = second.tick() => client.send_to(friend, b"hello").await?,
            delivery = client.recv() => {
                let delivery = delivery?.ok_or("nobody says bye but we")?;
                if delivery.sender == friend {
                    client.send_to(friend, b"hello").await?;
                    client.bye().await?;
                    return Ok(String::from_utf8_lossy(&delivery.payload).into_owned());
                }
            }
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let said = greet(&arguments).await?;
    eprintln!("node {} said {said:?}", arguments.last().map_or("?", String::as_str));
    Ok(())
}
