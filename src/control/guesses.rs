//! Slows wrong tokens down: each waits for its turn before it hears so.
//!
//! The right token never waits: whoever knows it cannot be locked out. Answers to wrong ones
//! take turns, for each address and over all; those who wait give way, the oldest first, where
//! the port has no place left for another connection. Also decides which lines the audit log has
//! of them.

use std::collections::VecDeque;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::proto::limit::{Bucket, Places, Rate};
use crate::proto::network::Client;
use crate::proto::translators::Translators;

/// Between two answers to wrong tokens of one address.
const PACE: Duration = Duration::from_secs(1);

/// Between two answers to wrong tokens of all.
const PACE_OF_ALL: Duration = Duration::from_millis(100);

/// Longest wait for an answer; one that would be longer has this length.
const LONGEST: Duration = Duration::from_secs(10);

/// Addresses whose turns are remembered; the least recently used of four gives its place.
const SOURCES: usize = 1_024;

/// Lines about wrong tokens in the audit log: 10 at once, then one a minute, 230 KB a day. So
/// they fill no file before months are over.
const LINES: Rate = Rate::per_second(1).with_burst(10 * LINE);

/// What a line takes of that: a minute's worth.
const LINE: u64 = 60;

/// Addresses whose attempts are counted apart until a line tells of them; further ones are
/// counted together.
const UNTOLD: usize = 16;

/// Turns of those who show a wrong token.
#[derive(Debug)]
pub(super) struct Guesses {
    translators: Translators,
    turns: Mutex<Turns>,
    /// Those who wait for their answer, the oldest first: as many as the port has connections.
    waiting: Mutex<VecDeque<oneshot::Sender<()>>>,
    told: Mutex<Told>,
}

#[derive(Debug)]
struct Turns {
    sources: Places<Turn>,
    all: Turn,
}

/// When the next answer may be given.
#[derive(Clone, Copy, Debug, Default)]
struct Turn(Option<Instant>);

/// What the audit log has been told, and what not.
#[derive(Debug, Default)]
struct Told {
    lines: Bucket,
    /// The longest untold first: [`UNTOLD`] addresses at most, and the others together.
    untold: VecDeque<Untold>,
}

/// Wrong tokens that the audit log does not tell of yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Untold {
    pub(super) attempts: u64,
    /// Who shows them, and whence the latest came; `None` for several who are counted together.
    pub(super) from: Option<(Client, SocketAddr)>,
}

impl Guesses {
    /// Nobody has guessed; they may come through these translators.
    pub(super) fn new(translators: Translators) -> Self {
        let turns = Turns { sources: Places::new(SOURCES), all: Turn::default() };
        Self {
            translators,
            turns: Mutex::new(turns),
            waiting: Mutex::default(),
            told: Mutex::default(),
        }
    }

    /// The wait until a wrong token of this address may be answered. It takes its turn now.
    pub(super) fn turn(&self, address: IpAddr) -> impl Future<Output = ()> + Send + 'static {
        let source = Client::of(address, &self.translators);
        let pause = self.turns.lock().take(source, Instant::now());
        let (give_way, gives_way) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        waiting.retain(|other| !other.is_closed());
        waiting.push_back(give_way);
        drop(waiting);
        async move {
            tokio::select! {
                () = sleep(pause) => {}
                _ = gives_way => {}
            }
        }
    }

    /// Has the oldest of those who wait answered at once, so that its connection ends.
    pub(super) fn give_way(&self) {
        let mut waiting = self.waiting.lock();
        while let Some(oldest) = waiting.pop_front() {
            if oldest.send(()).is_ok() {
                return;
            }
        }
    }

    /// Notes a wrong token, for the audit log.
    pub(super) fn note(&self, from: SocketAddr) {
        let client = Client::of(from.ip(), &self.translators);
        self.told.lock().note(client, from);
    }

    /// What the next line of the audit log is to tell of; `None` where it knows all, or has
    /// enough lines for now.
    pub(super) fn to_tell(&self, now: Instant) -> Option<Untold> {
        let mut told = self.told.lock();
        if told.untold.is_empty() || !told.lines.take(LINES, LINE, now) {
            return None;
        }
        told.untold.pop_front()
    }
}

impl Told {
    fn note(&mut self, client: Client, from: SocketAddr) {
        let is_its = |untold: &&mut Untold| untold.from.is_some_and(|(other, _)| other == client);
        if let Some(untold) = self.untold.iter_mut().find(is_its) {
            untold.attempts += 1;
            untold.from = Some((client, from));
        } else if self.untold.iter().filter(|untold| untold.from.is_some()).count() < UNTOLD {
            self.untold.push_back(Untold { attempts: 1, from: Some((client, from)) });
        } else if let Some(others) = self.untold.iter_mut().find(|untold| untold.from.is_none()) {
            others.attempts += 1;
        } else {
            self.untold.push_back(Untold { attempts: 1, from: None });
        }
    }
}

impl Turns {
    fn take(&mut self, source: Client, now: Instant) -> Duration {
        let own = self.sources.of(&source, now).take(PACE, now);
        own.max(self.all.take(PACE_OF_ALL, now))
    }
}

impl Turn {
    fn take(&mut self, pace: Duration, now: Instant) -> Duration {
        let after = self.0.map_or(now, |last| last.max(now)) + pace;
        let turn = after.min(now + LONGEST);
        self.0 = Some(turn);
        turn - now
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::testing::translators;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn turns_are_for_each_address_and_over_all() {
        let Guesses { translators, turns, .. } = Guesses::new(translators());
        let mut turns = turns.into_inner();
        let now = Instant::now();
        let source = |text: &str| Client::of(address(text), &translators);
        let mut take = |text: &str| turns.take(source(text), now).as_millis();
        assert_eq!(["192.0.2.1", "192.0.2.1", "192.0.2.2"].map(&mut take), [1_000, 2_000, 1_000]);
        // One network of IPv6 is one address.
        assert_eq!(["2001:db8::1", "2001:db8::2"].map(&mut take), [1_000, 2_000]);
        // Who comes through a translator has the address that it has there.
        let behind = ["2001:db8:64::192.0.2.3", "2001:db8:64::192.0.2.4", "192.0.2.3"];
        assert_eq!(behind.map(&mut take), [1_000, 1_000, 2_000]);
        for number in 0..200 {
            take(&format!("198.51.100.{number}"));
        }
        assert_eq!(take("203.0.113.1"), LONGEST.as_millis(), "a wait is bounded");
    }

    fn guess(guesses: &Guesses, text: &str) {
        guesses.note(SocketAddr::new(text.parse().unwrap(), 1_000));
    }

    /// The lines that the log gets at this moment: how many attempts from where.
    fn lines(guesses: &Guesses, now: Instant) -> Vec<(u64, Option<String>)> {
        let told = std::iter::from_fn(|| guesses.to_tell(now));
        told.map(|told| (told.attempts, told.from.map(|(_, from)| from.ip().to_string()))).collect()
    }

    #[test]
    fn audit_log_is_told_of_a_flood_by_few_lines() {
        let guesses = Guesses::new(Translators::default());
        let t0 = Instant::now();
        let mut attempts = 0;
        for _ in 0..10_000 {
            guess(&guesses, "192.0.2.1");
            attempts += lines(&guesses, t0).iter().map(|(attempts, _)| attempts).sum::<u64>();
        }
        assert_eq!(attempts, 10);
        assert_eq!(lines(&guesses, t0 + Duration::from_secs(59)), []);
        let rest = (9_990, Some("192.0.2.1".to_owned()));
        assert_eq!(lines(&guesses, t0 + Duration::from_secs(60)), [rest]);
        assert_eq!(lines(&guesses, t0 + Duration::from_secs(600)), [], "it knows all");
    }

    #[test]
    fn flood_of_guesses_was_put_down_to_whoever_guessed_next() {
        let guesses = Guesses::new(Translators::default());
        let t0 = Instant::now();
        for _ in 0..10 {
            guess(&guesses, "192.0.2.9");
            lines(&guesses, t0);
        }
        for _ in 0..500 {
            guess(&guesses, "192.0.2.1");
        }
        for address in ["2001:db8::1", "2001:db8::2", "192.0.2.2"] {
            guess(&guesses, address);
        }
        assert_eq!(lines(&guesses, t0), []);

        let minute = |number| t0 + number * Duration::from_secs(60);
        let told: Vec<_> = (1..5).map(|number| lines(&guesses, minute(number))).collect();
        let line = |attempts, from: &str| vec![(attempts, Some(from.to_owned()))];
        let expected =
            [line(500, "192.0.2.1"), line(2, "2001:db8::2"), line(1, "192.0.2.2"), vec![]];
        assert_eq!(told, expected);
    }

    #[test]
    fn addresses_that_are_counted_apart_are_bounded() {
        let guesses = Guesses::new(Translators::default());
        for number in 0..200 {
            guess(&guesses, &format!("198.51.100.{number}"));
            guess(&guesses, "198.51.100.0");
        }
        let told = guesses.told.lock().untold.clone();
        assert_eq!(told.len(), UNTOLD + 1);
        assert_eq!((told[0].attempts, told[1].attempts), (201, 1));
        let others = Untold { attempts: 200 - UNTOLD as u64, from: None };
        assert_eq!(told[UNTOLD], others);
    }

    #[tokio::test(start_paused = true)]
    async fn oldest_who_waits_gives_way() {
        let guesses = Arc::new(Guesses::new(Translators::default()));
        let waits = |text| {
            let guesses = Arc::clone(&guesses);
            let address = address(text);
            async move { guesses.turn(address).await }
        };
        let began = tokio::time::Instant::now();
        let oldest = tokio::spawn(waits("192.0.2.1"));
        tokio::task::yield_now().await;
        let next = tokio::spawn(waits("192.0.2.1"));
        tokio::task::yield_now().await;
        guesses.give_way();
        oldest.await.unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO);
        next.await.unwrap();
        assert!(began.elapsed() >= 2 * PACE - Duration::from_millis(10));
        guesses.give_way();
    }
}
