//! The canary over UDP that a receiving thread comes to so late that nobody knows it.

use super::*;

#[test]
fn canary_that_nobody_remembers_is_only_answered() {
    let (mut relay, now) = (Fixture::new(), Instant::now());
    let exchanges = crate::doors::pilot::canary_script(at(1), &[7; crate::udp::SECRET]);
    let [question, packet] = exchanges.as_slice() else { panic!("a question and a packet") };

    // As any node's is.
    assert_eq!(relay.one(at(1), &question.packet, now), [(at(1), question.answer.clone())]);
    assert_eq!(relay.one(at(1), &packet.packet, now), []);

    assert_eq!(relay.relay.table.endpoint_count(), 0);
    assert_eq!(relay.dropped(Drop::UNKNOWN_DESTINATION), 1);
}
