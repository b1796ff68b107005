//! Keeps a link to whatever relay answers at one address: dials whenever no link to that
//! relay is up, with back-off and jitter, and never stops trying.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::close::Failure;
use super::hub::{Counted, Hub};
use super::link;
use crate::proto::backoff::{between, doubled};

/// Shortest pause between two attempts, before its jitter.
const FLOOR: Duration = Duration::from_millis(250);

/// Longest pause between two attempts, before its jitter.
const CEILING: Duration = Duration::from_secs(5);

/// After a link that was up so long, the next pause is the shortest again.
const SETTLED: Duration = Duration::from_secs(10);

/// An address that was out of reach for so long is worth a warning.
const WORRYING: Duration = Duration::from_secs(30);

/// After so long an address is asked again who is there, though it led to this relay itself
/// or to one whose link is up: addresses change hands.
const RECHECK: Duration = Duration::from_secs(600);

/// Dials `address` until `given_up`; a link that was made here is left to its own end.
pub(super) async fn keep(hub: Arc<Hub>, address: SocketAddr, given_up: CancellationToken) {
    let mut attempt = 0;
    let mut behind = None;
    let mut trouble = Trouble::new(address);
    loop {
        if let Some(over) = behind.and_then(|relay| hub.links.over(relay)) {
            let since = Instant::now();
            tokio::select! {
                () = given_up.cancelled() => return,
                _ = timeout(RECHECK, over.cancelled()) => {}
            }
            attempt = after(since.elapsed(), attempt);
        }
        let called = async {
            let _dialling = Counted::new(&hub.cluster.counters().dialling);
            sleep(pause(attempt, getrandom::u32().unwrap_or(u32::MAX))).await;
            hub.call(address, &mut behind).await
        };
        let called = tokio::select! {
            () = given_up.cancelled() => return,
            called = called => called,
        };
        match called {
            Ok(link) => {
                trouble.is_over();
                let since = Instant::now();
                link::run(Arc::clone(&hub), link).await;
                attempt = after(since.elapsed(), attempt);
            }
            Err(Failure::Itself) => {
                trouble.is_over();
                tokio::select! {
                    () = given_up.cancelled() => return,
                    () = sleep(RECHECK) => {}
                }
            }
            // Another link was faster; the top of the loop waits for its end.
            Err(_) if behind.is_some_and(|relay| hub.links.over(relay).is_some()) => {
                trouble.is_over();
            }
            Err(failure) => {
                attempt = attempt.saturating_add(1);
                trouble.goes_on(&failure, Instant::now());
                hub.unreached.notify_one();
            }
        }
    }
}

/// The number of the next attempt after a link that was up so long. It is never 0: both sides
/// see a link end at once, and their redials should not meet.
fn after(up_for: Duration, attempt: u32) -> u32 {
    if up_for >= SETTLED { 1 } else { attempt.saturating_add(1) }
}

/// The wait before an attempt: none before the first, then 250 ms doubling to 5 s, and
/// `random` moves it by up to half of itself either way.
fn pause(attempt: u32, random: u32) -> Duration {
    let Some(failures) = attempt.checked_sub(1) else { return Duration::ZERO };
    let pause = doubled(FLOOR, failures, CEILING);
    between(pause / 2, pause * 3 / 2, random)
}

/// For how long an address has been out of reach, and whether anybody was told.
#[derive(Debug)]
struct Trouble {
    address: SocketAddr,
    since: Option<Instant>,
    told: bool,
}

impl Trouble {
    const fn new(address: SocketAddr) -> Self {
        Self { address, since: None, told: false }
    }

    fn goes_on(&mut self, failure: &Failure, now: Instant) {
        let since = *self.since.get_or_insert(now);
        if !self.told && now.saturating_duration_since(since) > WORRYING {
            self.told = true;
            tracing::warn!(remote_addr = %self.address, error = %failure,
                "an address of the cluster cannot be reached");
        }
    }

    fn is_over(&mut self) {
        if self.told {
            tracing::info!(remote_addr = %self.address,
                "an address of the cluster can be reached again");
        }
        *self = Self::new(self.address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_a_quarter_of_a_second_to_five() {
        let pauses = |random| [0, 1, 2, 5, 6, 9, u32::MAX].map(|n| pause(n, random).as_millis());
        assert_eq!(pauses(0), [0, 125, 250, 2_000, 2_500, 2_500, 2_500]);
        assert_eq!(pauses(u32::MAX), [0, 375, 750, 6_000, 7_500, 7_500, 7_500]);
    }

    #[test]
    fn only_a_link_that_stood_resets_the_pause() {
        assert_eq!(after(SETTLED - Duration::from_millis(1), 6), 7);
        assert_eq!(after(SETTLED, 6), 1);
    }

    #[test]
    fn trouble_is_told_once_until_it_is_over() {
        let (t0, mut trouble) = (Instant::now(), Trouble::new(([192, 0, 2, 1], 9).into()));
        let mut told = |after| {
            trouble.goes_on(&Failure::NoAnswer, t0 + after);
            trouble.told
        };
        assert!(!told(Duration::ZERO));
        assert!(!told(WORRYING));
        assert!(told(WORRYING + Duration::from_millis(1)));
        trouble.is_over();
        assert!(!trouble.told && trouble.since.is_none());
    }
}
