//! A peer of the message bus that greets another, who may be offline, and prints and acknowledges
//! what it is told until it has heard as many messages as it shall.
//!
//! ```text
//! cargo run -p beacon-client --example peerbus -- ws://127.0.0.1:47821 token.txt alice bob 1
//! cargo run -p beacon-client --example peerbus -- ws://127.0.0.1:47821 token.txt bob alice 1
//! ```

use std::error::Error;

use beacon_client::peerbus::{Client, Options};

/// Greets a friend and hears so many messages: who said what.
pub(crate) async fn talk(
    options: Options,
    friend: &str,
    messages: usize,
) -> Result<Vec<(String, String)>, Box<dyn Error>> {
    let mut client = Client::start(options)?;
    client.connected().await?;
    let sent = client.send(friend, &"hello").await?;
    eprintln!("greeted {friend}: {sent:?}");
    let mut heard = Vec::new();
    while heard.len() < messages {
        let delivery = client.recv().await?.ok_or("nobody closes but we")?;
        heard.push((delivery.from().to_owned(), delivery.body().to_owned()));
        // Not before it is as safe here as it was there.
        delivery.ack().await;
    }
    client.close().await?;
    Ok(heard)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, token, me, friend, messages] = arguments.as_slice() else {
        return Err("usage: peerbus URL TOKEN_FILE NAME FRIENDS_NAME MESSAGES".into());
    };
    let token = std::fs::read_to_string(token)?.trim().to_owned();
    let options = Options::new(url, me, token);
    for (from, said) in talk(options, friend, messages.parse()?).await? {
        eprintln!("{from} said {said}");
    }
    Ok(())
}
