//! Which thread is to take a turn.

use super::*;
use crate::proto::bus::MailboxId;

/// An inbox that has had so many small turns that the next are for the thread of sessions.
fn inbox_of_sessions() -> Inbox {
    let inbox = Inbox::default();
    inbox.set_sessions(Some(2));
    take_small_turns(&inbox);
    let mut state = inbox.state.lock();
    assert!(state.small >= SMALL);
    state.taker = Taker::Sessions;
    drop(state);
    inbox
}

fn take_small_turns(inbox: &Inbox) {
    for _ in 0..SMALL {
        inbox.put(Item::Synced);
        inbox.wait(Instant::now());
        assert_eq!(inbox.take(VecDeque::new()).items.len(), 1);
    }
}

fn large() -> Item {
    Item::Ask(Box::new(|_| Box::new(|| {})))
}

#[test]
fn small_turns_are_for_the_thread_of_sessions_until_one_is_large() {
    let inbox = inbox_of_sessions();
    inbox.put(Item::Synced);
    let taken = inbox.take_small(VecDeque::new()).ok().expect("a turn that is its own");
    assert_eq!(taken.items.len(), 1);

    inbox.put(Item::Synced);
    inbox.put(large());
    assert!(inbox.take_small(VecDeque::new()).is_err());
    inbox.wait(Instant::now());
    assert_eq!(inbox.take(VecDeque::new()).items.len(), 2);
    assert_eq!(inbox.state.lock().small, 0, "it was none of many small ones");
}

#[test]
fn many_items_and_many_bytes_are_a_large_turn() {
    let inbox = inbox_of_sessions();
    (1..ENOUGH).for_each(|_| inbox.put(Item::Synced));
    assert_eq!(inbox.state.lock().taker, Taker::Sessions);
    inbox.put(Item::Synced);
    assert_eq!(inbox.state.lock().taker, Taker::Bus);

    let inbox = inbox_of_sessions();
    inbox.state.lock().bytes = ENOUGH_BYTES;
    inbox.put(Item::Synced);
    assert_eq!(inbox.state.lock().taker, Taker::Bus);
}

#[test]
fn bus_takes_turns_again_where_none_comes_and_at_once_where_acknowledgements_wait() {
    let inbox = inbox_of_sessions();
    inbox.state.lock().taken = 1;
    let began = Instant::now();
    inbox.wait(began + Duration::from_secs(60));
    assert!(began.elapsed() >= LONG_NAP * CALM, "a nap without a turn is nothing yet");
    assert_eq!(inbox.state.lock().taker, Taker::Bus);
    assert!(inbox.take_small(VecDeque::new()).is_err());

    let inbox = inbox_of_sessions();
    let key = "key".into();
    inbox.put(Item::Acknowledge { mailbox: MailboxId(1), generation: 1, key });
    inbox.wait(Instant::now() + Duration::from_secs(60));
    assert_eq!(inbox.state.lock().taker, Taker::Bus);
}

#[test]
fn bus_takes_one_turn_where_something_is_due_that_no_turn_has_seen_to() {
    let inbox = inbox_of_sessions();
    inbox.note_due(Instant::now());
    inbox.state.lock().taken = 1;
    let began = Instant::now();
    inbox.wait(began + Duration::from_secs(60));
    assert!(began.elapsed() >= LONG_NAP * 2, "a turn has seen to it in the first nap");
    let state = inbox.state.lock();
    assert_eq!((state.taker, state.due), (Taker::Sessions, None));
}

#[test]
fn both_threads_share_what_is_too_much_for_one_where_each_has_a_core() {
    for (cores, has_rested, is_shared) in [(2, false, false), (3, false, true), (3, true, false)] {
        let inbox = inbox_of_sessions();
        let mut state = inbox.state.lock();
        state.has_cores = cores > 2;
        state.taken = 1;
        drop(state);
        if has_rested {
            inbox.rest();
        }
        inbox.wait(Instant::now() + Duration::from_secs(60));
        take_small_turns(&inbox);
        let is_left = inbox.state.lock().may_leave_to_sessions();
        assert_eq!(!is_left, is_shared, "{cores} cores, rested: {has_rested}");
    }
}

#[test]
fn thread_of_sessions_takes_no_turn_of_an_inbox_that_is_closed_or_that_it_has_left() {
    let inbox = inbox_of_sessions();
    inbox.put(Item::Synced);
    inbox.close();
    assert!(inbox.take_small(VecDeque::new()).is_err());
    inbox.wait(Instant::now() + Duration::from_secs(60));
    assert!(inbox.take(VecDeque::new()).is_last);

    let inbox = inbox_of_sessions();
    inbox.set_sessions(None);
    take_small_turns(&inbox);
    inbox.wait(Instant::now());
    assert_eq!(inbox.state.lock().taker, Taker::Bus);
}

#[test]
fn acknowledgements_wait_longer_only_while_messages_come_all_the_time() {
    let mut state = State { is_urgent: true, ..State::default() };
    assert_eq!(state.nap(), NAP);
    (0..BRISK).for_each(|_| state.note_turn());
    assert_eq!(state.nap(), LONG_NAP);
    state.is_urgent = false;
    state.note_turn();
    assert_eq!(state.nap(), NAP);
}
