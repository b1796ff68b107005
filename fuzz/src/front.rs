//! What relays of a message bus tell each other: a message has one form, and its lists are whole.

use beacon_wire::front::{Letters, MAX_TEXT, Message, Texts};

/// Takes one input: a message.
///
/// # Panics
/// A message is written in another way than it was read.
pub fn run(input: &[u8]) {
    let Ok(message) = Message::parse(input) else { return };
    let mut again = Vec::new();
    message.encode(&mut again);
    assert_eq!(again, input, "a message has one form");
    if let Message::Deliver { session, letters } = message {
        again.clear();
        Message::begin_deliver(&mut again, session);
        for (key, body) in letters {
            assert!(key.len() <= MAX_TEXT);
            Letters::push(&mut again, key, body);
        }
        assert_eq!(again, input);
    }
    if let Message::Records { session, batch, is_last, records } = message {
        again.clear();
        Message::begin_records(&mut again, session, batch, is_last);
        records.into_iter().for_each(|(id, body)| Letters::push(&mut again, id, body));
        assert_eq!(again, input);
    }
    if let Message::Subscribe { session, is_ephemeral, channels } = message {
        again.clear();
        Message::begin_subscribe(&mut again, session, is_ephemeral);
        channels.into_iter().for_each(|name| Texts::push(&mut again, name));
        assert_eq!(again, input);
    }
    if let Message::Answered { session, outcomes } = message {
        again.clear();
        Message::begin_answered(&mut again, session);
        outcomes.into_iter().for_each(|outcome| outcome.encode(&mut again));
        assert_eq!(again, input);
    }
}
