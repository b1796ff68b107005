//! Publications of one sender come in their order, whatever else goes on.

use std::thread;

use super::{Site, Speaker};
use crate::cells::assert_balance;

/// Publications of each sender.
const COUNT: usize = 200;

fn publish(speaker: &mut Speaker, number: usize) {
    let guid = speaker.guid.clone();
    speaker.say(&format!("PUB Chat\r\nof: {guid}\r\n\r\n{number}\r\n.\r\n"));
}

#[test]
fn two_hundred_publications_of_each_sender_are_in_order_at_each_subscriber() {
    let site = Site::start(&[]);
    let mut service = site.service();
    service.tell(&["EPUB Chat", "ESUB Chat"]);
    let mut subscribers: Vec<_> = (0..3).map(|_| site.client()).collect();
    subscribers.iter_mut().for_each(|subscriber| subscriber.tell(&["SUB Chat"]));
    let senders: Vec<_> = (0..4).map(|_| site.client()).collect();
    let guids: Vec<_> = senders.iter().map(|sender| sender.guid.clone()).collect();

    thread::scope(|scope| {
        for mut sender in senders {
            scope.spawn(move || {
                (0..COUNT).for_each(|number| publish(&mut sender, number));
                sender.settle();
            });
        }
        for subscriber in &mut subscribers {
            scope.spawn(|| {
                let mut next = vec![0; guids.len()];
                for _ in 0..COUNT * guids.len() {
                    let heard = subscriber.message();
                    let of = heard.header("Of").unwrap();
                    let of = guids.iter().position(|guid| guid == of).unwrap();
                    assert_eq!(heard.body, next[of].to_string());
                    next[of] += 1;
                }
            });
        }
    });
    assert_balance(&site.relay);
}

#[test]
fn who_subscribes_and_publishes_at_once_gets_its_own() {
    let site = Site::start(&[]);
    let mut service = site.service();
    for number in 0..50 {
        service.say(&format!("SUB T{number}\r\n\r\n.\r\n"));
        service.say(&format!("PUB T{number}\r\n\r\nx\r\n.\r\n"));
    }
    for number in 0..50 {
        assert_eq!(service.message().top, format!("PUB T{number}"));
    }
}

#[test]
fn answer_comes_behind_what_its_responder_published_before() {
    let site = Site::start(&[]);
    let mut service = site.service();
    service.tell(&["EREQ Svc", "ESUB News"]);
    let mut client = site.client();
    client.tell(&["SUB News"]);
    for number in 0..100 {
        client.say(&format!("REQ Svc\r\nrid: {number}\r\n\r\n.\r\n"));
        let asked = service.message();
        let rid = asked.header("Rid").unwrap().to_owned();
        service.say(&format!("PUB News\r\n\r\n{number}\r\n.\r\n"));
        service.say(&format!("RES Svc\r\nrid: {rid}\r\n\r\n{number}\r\n.\r\n"));
        service.say("PUB News\r\n\r\nbehind\r\n.\r\n");
        let heard = [client.message(), client.message(), client.message()];
        let heard = heard.map(|heard| (heard.top, heard.body));
        let number = number.to_string();
        let expected = [("PUB News", &*number), ("RES Svc", &number), ("PUB News", "behind")];
        assert_eq!(heard, expected.map(|(top, body)| (top.to_owned(), body.to_owned())));
    }
}
