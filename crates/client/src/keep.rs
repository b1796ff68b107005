//! Keeps a session alive, whatever the protocol: dials again whenever one ends, with a back-off.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// Where a client stands that is kept alive; `C` is what ends its sessions.
#[derive(Debug)]
pub enum State<C> {
    /// Dialling and logging in.
    Connecting,
    /// Logged in.
    Connected,
    /// Waiting to dial again.
    Waiting {
        /// For how long.
        delay: Duration,
        /// What ended the session or prevented it.
        cause: Arc<C>,
    },
}

impl<C> Clone for State<C> {
    fn clone(&self) -> Self {
        match self {
            Self::Connecting => Self::Connecting,
            Self::Connected => Self::Connected,
            Self::Waiting { delay, cause } => {
                Self::Waiting { delay: *delay, cause: Arc::clone(cause) }
            }
        }
    }
}

/// When to dial again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    /// The wait before a redial, by how many there were in a row and by what is random.
    pub(crate) delay: fn(u32, u32) -> Duration,
    /// A session that lived this long was a good one: the next redial is the first in a row.
    pub(crate) settled: Duration,
}

/// How a session, or the way to one, ended.
#[derive(Debug)]
pub(crate) enum End<C, T> {
    /// There will be another.
    Again(C),
    /// There will be none.
    Final(T),
}

/// What makes sessions, and runs them.
pub(crate) trait Sessions: Send {
    /// A connection after its login.
    type Socket: Send;
    /// What ended a session that others follow.
    type Cause: Send + Sync;
    /// How the last one ended.
    type Last;

    /// Dials and logs in.
    fn connect(
        &mut self,
    ) -> impl Future<Output = Result<Self::Socket, End<Self::Cause, Self::Last>>> + Send;

    /// Runs a session to its end.
    fn run(
        &mut self,
        socket: Self::Socket,
    ) -> impl Future<Output = End<Self::Cause, Self::Last>> + Send;

    /// Waits for the next dial.
    fn pause(&mut self, delay: Duration) -> impl Future<Output = ()> + Send {
        sleep(delay)
    }
}

/// Has one session follow the other until the last.
pub(crate) async fn keep<S: Sessions>(
    mut sessions: S,
    schedule: Schedule,
    publish: watch::Sender<State<S::Cause>>,
) -> S::Last {
    let mut attempt = 0_u32;
    loop {
        publish.send_replace(State::Connecting);
        let end = match sessions.connect().await {
            Ok(socket) => {
                publish.send_replace(State::Connected);
                let since = Instant::now();
                let end = sessions.run(socket).await;
                if since.elapsed() >= schedule.settled {
                    attempt = 0;
                }
                end
            }
            Err(end) => end,
        };
        let cause = match end {
            End::Again(cause) => cause,
            End::Final(last) => return last,
        };
        // Without randomness there is no jitter, but still a wait that grows.
        let delay = (schedule.delay)(attempt, getrandom::u32().unwrap_or(u32::MAX));
        attempt = attempt.saturating_add(1);
        publish.send_replace(State::Waiting { delay, cause: Arc::new(cause) });
        sessions.pause(delay).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEDULE: Schedule = Schedule {
        delay: |attempt, _| Duration::from_secs(u64::from(attempt) + 1),
        settled: Duration::from_secs(60),
    };

    /// Sessions that live so long, in seconds; a negative one is no session.
    struct Lives(Vec<i32>, Vec<Duration>);

    impl Sessions for Lives {
        type Socket = i32;
        type Cause = &'static str;
        type Last = Vec<Duration>;

        async fn connect(&mut self) -> Result<i32, End<Self::Cause, Self::Last>> {
            match self.0.pop() {
                Some(life) if life < 0 => Err(End::Again("nobody there")),
                Some(life) => Ok(life),
                None => Err(End::Final(std::mem::take(&mut self.1))),
            }
        }

        async fn run(&mut self, life: i32) -> End<Self::Cause, Self::Last> {
            sleep(Duration::from_secs(life.unsigned_abs().into())).await;
            End::Again("over")
        }

        async fn pause(&mut self, delay: Duration) {
            self.1.push(delay);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn waits_grow_until_a_session_has_lived() {
        let (publish, mut state) = watch::channel(State::Connecting);
        let delays = keep(Lives(vec![1, 60, -1, 59], Vec::new()), SCHEDULE, publish).await;
        assert_eq!(delays.iter().map(Duration::as_secs).collect::<Vec<_>>(), [1, 2, 1, 2]);
        assert!(matches!(&*state.borrow_and_update(), State::Connecting));
    }
}
