//! Keeps the order of packets when they change between the two lanes of a direction.
//!
//! The writer marks each change with an empty batch on the QUIC lane. What follows an odd mark
//! comes over TCP, and is read only when that mark has come: all before it has been read then.
//! What follows an even mark comes over QUIC again, and is read when nothing is read over TCP
//! any more. So no packet overtakes another, and nobody waits for an answer.

use std::num::NonZeroU32;

use tokio::sync::watch;

/// The marks of one link's incoming packets.
#[derive(Debug)]
pub(in crate::cluster::mesh) struct Turns(watch::Sender<State>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// Marks that have come.
    marks: u32,
    /// The mark whose packets are being read over TCP.
    active: Option<NonZeroU32>,
}

impl Turns {
    /// Packets come over QUIC.
    pub(in crate::cluster::mesh) fn new() -> Self {
        Self(watch::Sender::new(State::default()))
    }

    /// A mark has come on the QUIC lane. Returns when what follows it there may be read.
    pub(in crate::cluster::mesh) async fn mark(&self) {
        let mut states = self.0.subscribe();
        let mut is_odd = false;
        self.0.send_modify(|state| {
            state.marks = state.marks.wrapping_add(1);
            is_odd = state.marks % 2 == 1;
        });
        if !is_odd {
            // This is what it borrows from: it does not end.
            let _ended = states.wait_for(|state| state.active.is_none()).await;
        }
    }

    /// Waits for the turn of a lane whose packets follow this mark; `None` where it is over.
    pub(super) async fn begin(&self, mark: u32) -> Option<Turn<'_>> {
        let mark = NonZeroU32::new(mark).filter(|mark| mark.get() % 2 == 1)?;
        let mut states = self.0.subscribe();
        states.wait_for(|state| state.marks >= mark.get()).await.ok()?;
        let is_ours = self.0.send_if_modified(|state| {
            let is_free = state.marks == mark.get() && state.active.is_none();
            if is_free {
                state.active = Some(mark);
            }
            is_free
        });
        is_ours.then_some(Turn { turns: self, mark })
    }
}

/// Packets may be read over TCP until this is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    mark: NonZeroU32,
}

impl Turn<'_> {
    /// Waits for the next mark: what has come over TCP until then is all.
    pub(super) async fn over(&self) {
        let mut states = self.turns.0.subscribe();
        // As above.
        let _ended = states.wait_for(|state| state.marks != self.mark.get()).await;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.0.send_modify(|state| state.active = None);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn lane_is_read_only_between_its_mark_and_the_next() {
        let turns = Turns::new();
        let mut first = pin!(turns.begin(1));
        assert!((&mut first).now_or_never().is_none());
        turns.mark().await;
        let turn = first.await.unwrap();
        assert!(turn.over().now_or_never().is_none());
        let mut back = pin!(turns.mark());
        assert!((&mut back).now_or_never().is_none(), "something is still read over TCP");
        turn.over().await;
        drop(turn);
        back.await;
        assert!(turns.begin(1).await.is_none(), "its turn is over");
        turns.mark().await;
        assert!(turns.begin(3).await.is_some());
    }

    #[tokio::test]
    async fn numbers_that_no_lane_has_are_refused() {
        let turns = Turns::new();
        assert!(turns.begin(0).await.is_none() && turns.begin(2).await.is_none());
    }

    #[tokio::test]
    async fn second_lane_of_one_turn_is_refused() {
        let turns = Turns::new();
        turns.mark().await;
        let _first = turns.begin(1).await.unwrap();
        assert!(turns.begin(1).await.is_none());
    }

    #[tokio::test]
    async fn packets_come_back_to_quic_at_once_where_no_lane_is_read() {
        let turns = Turns::new();
        turns.mark().await;
        turns.mark().await;
    }
}
