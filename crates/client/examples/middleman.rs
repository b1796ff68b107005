//! A service of middleman's protocol that answers what others ask it, and publishes that it has; or
//! somebody who asks it.
//!
//! ```text
//! cargo run -p beacon-client --example middleman -- ws://127.0.0.1:8764 service.key answer Echo 1
//! cargo run -p beacon-client --example middleman -- ws://127.0.0.1:8764 service.key ask Echo hello
//! ```

use std::error::Error;

use beacon_client::middleman::{Client, Content, Event, Options, RequestError};

/// Answers so many requests with what they say, and tells all who hear of the topic.
pub(crate) async fn answer(
    options: Options,
    topic: &str,
    requests: usize,
) -> Result<(), Box<dyn Error>> {
    let mut client = Client::start(options)?;
    client.sender().respond(topic).await?;
    let mut answered = 0;
    while answered < requests {
        match client.recv().await?.ok_or("nobody closes but we")? {
            Event::Request(request) => {
                let said = request.content.body.clone();
                request.answer(Content::text(said)).await?;
                client.sender().publish(topic, format!("answered {answered}")).await?;
                answered += 1;
            }
            Event::Complaint(text) => eprintln!("the broker says: {text}"),
            Event::Publication(_) | _ => {}
        }
    }
    Ok(client.close().await?)
}

/// Asks until somebody is there to answer.
pub(crate) async fn ask(
    options: Options,
    topic: &str,
    body: &str,
) -> Result<String, Box<dyn Error>> {
    let mut client = Client::start(options)?;
    client.connected().await?;
    loop {
        match client.sender().request(topic, body).await {
            Ok(answer) => {
                client.close().await?;
                return Ok(answer.body);
            }
            Err(RequestError::Failed { reason }) => eprintln!("not yet: {reason}"),
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, key, action, topic, what] = arguments.as_slice() else {
        return Err("usage: middleman URL KEY_FILE answer|ask TOPIC REQUESTS|TEXT".into());
    };
    let key = std::fs::read_to_string(key)?.trim().to_owned();
    let options = Options::new(url, key);
    if action == "answer" {
        answer(options, topic, what.parse()?).await
    } else {
        eprintln!("{}", ask(options, topic, what).await?);
        Ok(())
    }
}
