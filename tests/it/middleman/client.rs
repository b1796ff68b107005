//! The client of `crates/client` and its example against a real relay.

use std::time::Duration;

use beacon_relay::client::middleman::{
    Client, Content, Event, Options, RequestError, SendError, State,
};
use tokio::time::timeout;

use super::{CLIENT, SERVICE, Site};
use crate::harness::PATIENCE;

#[allow(dead_code, reason = "its `main` is for the terminal")]
#[path = "../../../crates/client/examples/middleman.rs"]
mod example;

impl Site {
    fn options(&self, key: &str) -> Options {
        Options::new(format!("ws://{}", self.address), key)
    }

    async fn library(&self, key: &str) -> Client {
        let mut client = Client::start(self.options(key)).unwrap();
        soon(client.connected()).await.unwrap();
        client
    }
}

async fn soon<T>(awaited: impl Future<Output = T>) -> T {
    timeout(PATIENCE, awaited).await.expect("it comes")
}

async fn event(client: &mut Client) -> Event {
    soon(client.recv()).await.unwrap().expect("an event")
}

async fn publication(client: &mut Client) -> (String, Content) {
    let event = event(client).await;
    let Event::Publication(publication) = event else { panic!("{event:?}") };
    (publication.topic, publication.content)
}

/// Waits until the relay has done what a client has said.
async fn settle(client: &mut Client) {
    client.sender().subscribe("settle").await.unwrap();
    client.sender().publish("settle", "").await.unwrap();
    assert_eq!(publication(client).await.0, "settle");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn example_answers_what_it_is_asked() {
    let site = Site::start(&[]);
    let answering = example::answer(site.options(SERVICE), "Echo", 1);
    let asking = example::ask(site.options(SERVICE), "Echo", "hello");
    let (answered, answer) = soon(async { tokio::join!(answering, asking) }).await;
    answered.unwrap();
    assert_eq!(answer.unwrap(), "hello");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publications_arrive_in_order_and_requests_are_answered_or_fail() {
    let site = Site::start(&[]);
    let mut service = site.library(SERVICE).await;
    let mut client = site.library(CLIENT).await;
    service.sender().allow_subscribe("news").await.unwrap();
    service.sender().respond("sum").await.unwrap();
    settle(&mut service).await;

    client.sender().subscribe("news").await.unwrap();
    // Behind its subscription, in the order of the relay.
    let nobody = soon(client.sender().request("sum", "first"));
    let answering = async {
        let Event::Request(request) = event(&mut service).await else { panic!("no request") };
        assert_eq!((request.topic.as_str(), request.content.body.as_str()), ("sum", "first"));
        request.answer(Content::text("two\n.\nlines").with("Total", "2")).await.unwrap();
    };
    let (answer, ()) = tokio::join!(nobody, answering);
    let answer = answer.unwrap();
    assert_eq!((answer.body.as_str(), answer.header("total")), ("two\n.\nlines", Some("2")));
    for number in 0..200 {
        service.sender().publish("news", number.to_string()).await.unwrap();
    }
    for number in 0..200 {
        let (topic, content) = publication(&mut client).await;
        assert_eq!((topic.as_str(), &*content.body), ("news", &*number.to_string()));
        assert!(content.header("cid").is_some());
    }

    let denied = soon(client.sender().request("nothing", "x")).await.unwrap_err();
    assert!(matches!(denied, RequestError::Failed { .. }), "{denied:?}");
    assert!(matches!(event(&mut client).await, Event::Complaint(_)));
    assert!(matches!(client.sender().publish("a\nb", "x").await, Err(SendError::Form(_))));
    for client in [service, client] {
        soon(client.close()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_comes_back_with_its_subscriptions_and_tells_what_was_under_way() {
    let mut site = Site::start(&[]);
    let mut service = site.library(SERVICE).await;
    service.sender().subscribe("news").await.unwrap();
    service.sender().respond("slow").await.unwrap();
    settle(&mut service).await;
    let sender = service.sender().clone();
    let asking = tokio::spawn(async move { sender.request("slow", "x").await });
    let Event::Request(request) = event(&mut service).await else { panic!("no request") };
    site.relay.signal("KILL");
    assert_eq!(soon(asking).await.unwrap().unwrap_err(), RequestError::Interrupted);
    site.start_again_here();
    // Of another session, it goes nowhere.
    request.answer("late").await.unwrap();
    let (sender, mut receiver, mut state) = service.split();
    soon(state.wait_for(|state| matches!(state, State::Connected))).await.unwrap();
    sender.publish("news", "again").await.unwrap();
    let Some(Event::Publication(publication)) = soon(receiver.recv()).await.unwrap() else {
        panic!("no publication")
    };
    assert_eq!((publication.topic.as_str(), publication.content.body.as_str()), ("news", "again"));
    let asking = tokio::spawn(async move { sender.request("slow", "y").await });
    let Some(Event::Request(request)) = soon(receiver.recv()).await.unwrap() else {
        panic!("no request")
    };
    request.answer("done").await.unwrap();
    assert_eq!(soon(asking).await.unwrap().unwrap().body, "done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_that_is_none_ends_the_client() {
    let site = Site::start(&[]);
    let mut client = Client::start(site.options("hunter2")).unwrap();
    let refused = soon(client.connected()).await.unwrap_err();
    assert!(!refused.to_string().contains("hunter2"));
    let late = timeout(Duration::from_secs(1), client.sender().publish("news", "x")).await;
    assert_eq!(late.unwrap(), Err(SendError::Ended));
}
