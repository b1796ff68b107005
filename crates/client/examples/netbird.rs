//! A peer that looks for another at a relay of NetBird or openZro, says hello as soon as that is
//! there, and ends once it has been greeted as well.
//!
//! ```text
//! cargo run -p beacon-client --example netbird -- rel://127.0.0.1:33080 secret.txt alice bob
//! cargo run -p beacon-client --example netbird -- rel://127.0.0.1:33080 secret.txt bob alice
//! ```

use std::error::Error;

use beacon_client::netbird::{Client, Credential, Event, Options, PeerId};

/// Meets a friend at the relay: what the friend said.
pub(crate) async fn meet(options: &Options, friend: PeerId) -> Result<String, Box<dyn Error>> {
    let mut client = Client::connect(options).await?;
    eprintln!("logged in at {}", client.instance());
    client.subscribe(&[friend]).await?;
    let mut has_greeted = false;
    let mut heard = None;
    while heard.is_none() || !has_greeted {
        match client.recv().await?.ok_or("nobody closes but we")? {
            Event::Online(peers) if peers.contains(&friend) => {
                client.send_to(friend, b"hello").await?;
                has_greeted = true;
            }
            Event::Packet { sender, payload } if sender == friend => {
                heard = Some(String::from_utf8_lossy(&payload).into_owned());
            }
            // Asked anew, the relay says when the friend comes again.
            Event::Offline(peers) if peers.contains(&friend) => client.subscribe(&[friend]).await?,
            Event::Online(_) | Event::Offline(_) | Event::Packet { .. } | _ => {}
        }
    }
    client.close().await?;
    Ok(heard.unwrap_or_default())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, secret, me, friend] = arguments.as_slice() else {
        return Err("usage: netbird URL SECRET_FILE NAME FRIENDS_NAME".into());
    };
    let secret = std::fs::read_to_string(secret)?.trim().to_owned();
    let options = Options::new(url, PeerId::of_name(me), Credential::Secret(secret));
    let said = meet(&options, PeerId::of_name(friend)).await?;
    eprintln!("{friend} said {said:?}");
    Ok(())
}
