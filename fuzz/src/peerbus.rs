//! The protocol of peerbus: whatever is read is written so that it reads the same, and to the same
//! bytes from then on; what is JSON is what another reader takes for JSON.

use beacon_wire::peerbus::{
    self, Body, Envelope, FromBroker, Received, Register, deliver, deliver_length,
};
use serde::de::IgnoredAny;

/// Takes one input: a message of either side, or a body.
///
/// # Panics
/// Where a frame does not come back.
pub fn run(input: &[u8]) {
    let is_json = serde_json::from_slice::<IgnoredAny>(input).is_ok();
    match Body::parse(input) {
        Ok(body) => {
            assert!(is_json, "only we take this for JSON");
            of_a_body(&body);
        }
        // Deeper than this reader goes an input cannot be.
        Err(_) => assert!(!is_json, "only we do not take this for JSON"),
    }
    if let Ok(register) = Register::parse(input) {
        let json = peerbus::register(&register.token, &register.name, register.receipts);
        assert_eq!(Register::parse(&json), Ok(register));
    }
    if let Ok(envelope) = Envelope::parse(input) {
        of_an_envelope(&envelope);
    }
    match Received::parse(input) {
        Ok(Received::Ack { key }) => {
            let json = peerbus::ack(&key);
            assert_eq!(Received::parse(&json), Ok(Received::Ack { key }));
        }
        Ok(Received::Envelope(envelope)) => {
            let json = envelope.encode();
            assert!(str::from_utf8(&json).is_ok(), "a text message that is none");
            assert_eq!(Received::parse(&json), Ok(Received::Envelope(envelope)));
        }
        Ok(Received::Peers | Received::Ignored) => assert!(is_json),
        Err(dropped) => assert!(!dropped.reason.word().is_empty()),
    }
    of_a_broker(input);
}

fn of_a_body(body: &Body<'_>) {
    let bytes = body.as_bytes();
    assert_eq!(Body::parse(bytes).as_ref(), Ok(body), "a compact body is not compact");
    assert!(!bytes.iter().any(|byte| b"<>&\n\r\t".contains(byte)));
    let is_wide = |three: &[u8]| three == "\u{2028}".as_bytes() || three == "\u{2029}".as_bytes();
    assert!(!bytes.windows(3).any(is_wide));
}

fn of_an_envelope(envelope: &Envelope<'_>) {
    let json = envelope.encode();
    let again = Envelope::parse(&json);
    assert_eq!(again.as_ref(), Ok(envelope));
    let signed = envelope.canonical();
    let (members, _) = signed.split_at(signed.len() - 1);
    assert!(json.starts_with(members));

    let key = &envelope.to;
    let delivery = deliver(key, &json);
    assert_eq!(delivery.len(), deliver_length(key, json.len()));
    let read = FromBroker::Deliver { key: key.clone(), envelope: envelope.clone() };
    assert_eq!(FromBroker::parse(&delivery), Ok(read));
}

fn of_a_broker(input: &[u8]) {
    let Ok(read) = FromBroker::parse(input) else { return };
    let again = match &read {
        FromBroker::Peers(names) => peerbus::peers(names.iter().map(AsRef::as_ref)),
        FromBroker::Deliver { key, envelope } => deliver(key, &envelope.encode()),
        FromBroker::Receipt { id, result, reason } => peerbus::receipt(id, *result, reason),
        FromBroker::Other => return,
    };
    assert_eq!(FromBroker::parse(&again), Ok(read));
}
