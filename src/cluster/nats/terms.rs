//! Keeps membership mutual: if one of two relays has lost the other in between, the other
//! gets to know.
//!
//! There is no link whose end both would see. A relay that was stopped for a while comes
//! back with members that have forgotten it, and would never repeat to them what it said
//! before. So each gives a membership a number, its term, and a member that comes with a
//! higher one than before has to leave and join again. Sans-IO.

/// The two terms of a membership. Terms of one run of a relay only grow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Terms {
    /// Ours.
    pub(super) mine: u64,
    /// The other's; 0 until it has said it.
    pub(super) theirs: u64,
    /// Whether the other has said that it knows ours.
    pub(super) known: bool,
}

/// What to do after a beat.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Heard {
    /// Nothing.
    Agreed,
    /// Tell the other the terms as they are here.
    Answer,
    /// The other has lost us and made us a member anew: do the same.
    Anew,
}

impl Terms {
    /// Those of a member of whom only the existence is known.
    pub(super) const fn new(mine: u64) -> Self {
        Self { mine, theirs: 0, known: false }
    }

    /// Takes in the terms of a beat; [`Heard::Anew`] leaves these as they are.
    pub(super) fn hear(&mut self, term: u64, seen: u64, asks: bool) -> Heard {
        // A beat to all, or one that was overtaken.
        if term == 0 || term < self.theirs {
            return Heard::Agreed;
        }
        if seen == self.mine {
            self.theirs = term;
            self.known = true;
            return if asks { Heard::Answer } else { Heard::Agreed };
        }
        if self.theirs != 0 && term > self.theirs {
            return Heard::Anew;
        }
        // One that knows an earlier term of ours holds on to a membership that is over here:
        // the two are no pair, and our answer has it join anew.
        if seen == 0 {
            self.theirs = term;
        }
        Heard::Answer
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// A beat to all relays.
    const TO_ALL: (u64, u64, bool) = (0, 0, false);

    /// One of two relays, with what it does around its terms.
    #[derive(Default)]
    struct Relay {
        terms: Option<Terms>,
        last_term: u64,
        inbox: VecDeque<(u64, u64, bool)>,
    }

    impl Relay {
        fn join(&mut self) -> Terms {
            self.last_term += 1;
            Terms::new(self.last_term)
        }

        /// Hears a beat; true if there is something to say.
        fn hear(&mut self, (term, seen, asks): (u64, u64, bool)) -> bool {
            let heard = self.terms.as_mut().map(|terms| terms.hear(term, seen, asks));
            if heard.is_none_or(|heard| heard == Heard::Anew) {
                let mut terms = self.join();
                terms.hear(term, seen, asks);
                self.terms = Some(terms);
                return true;
            }
            heard == Some(Heard::Answer)
        }
    }

    fn say(pair: &mut [Relay; 2], from: usize) {
        let Some(terms) = pair[from].terms else { return };
        pair[1 - from].inbox.push_back((terms.mine, terms.theirs, !terms.known));
    }

    /// Delivers a beat to each until nothing is left; false if that does not end.
    fn settle(pair: &mut [Relay; 2]) -> bool {
        for _ in 0..100 {
            for to in [0, 1] {
                if let Some(beat) = pair[to].inbox.pop_front()
                    && pair[to].hear(beat)
                {
                    say(pair, to);
                }
            }
            if pair.iter().all(|relay| relay.inbox.is_empty()) {
                return true;
            }
        }
        false
    }

    fn agree(pair: &[Relay; 2]) -> bool {
        let [Some(a), Some(b)] = [pair[0].terms, pair[1].terms] else { return false };
        a.mine == b.theirs && b.mine == a.theirs && a.known && b.known
    }

    #[test]
    fn relay_that_was_lost_for_a_while_joins_again_on_both_sides() {
        let mut pair = [Relay::default(), Relay::default()];
        pair[0].hear(TO_ALL);
        say(&mut pair, 0);
        assert!(settle(&mut pair) && agree(&pair));
        let before = pair[1].terms.unwrap().mine;

        // 0 loses 1, which notices nothing, and hears of it again.
        pair[0].terms = None;
        pair[0].hear(TO_ALL);
        say(&mut pair, 0);

        assert!(settle(&mut pair) && agree(&pair));
        assert!(pair[1].terms.unwrap().mine > before, "1 holds on to the old membership");
    }

    proptest! {
        /// Whatever is lost, and whoever loses whom: repeating what is not known to be known
        /// brings both to one membership, and the beats end.
        #[test]
        fn both_agree_in_the_end(steps in proptest::collection::vec((0..6_u8, 0..2_usize), 0..60)) {
            let mut pair = [Relay::default(), Relay::default()];
            for (step, who) in steps {
                match step {
                    0 => pair[who].terms = None,
                    1 => _ = pair[who].inbox.pop_front(),
                    2 => pair[who].inbox.clear(),
                    3 => if pair[who].hear(TO_ALL) { say(&mut pair, who) },
                    4 => say(&mut pair, who),
                    _ => if let Some(beat) = pair[who].inbox.pop_front()
                        && pair[who].hear(beat) { say(&mut pair, who) },
                }
            }
            prop_assert!(settle(&mut pair), "beats without end");
            for who in [0, 1] {
                pair[who].hear(TO_ALL);
                if !pair[who].terms.unwrap().known { say(&mut pair, who) }
                prop_assert!(settle(&mut pair), "beats without end");
            }
            for who in [0, 1] {
                if !pair[who].terms.unwrap().known { say(&mut pair, who) }
                prop_assert!(settle(&mut pair), "beats without end");
            }
            prop_assert!(agree(&pair), "{:?} {:?}", pair[0].terms, pair[1].terms);
        }
    }
}
