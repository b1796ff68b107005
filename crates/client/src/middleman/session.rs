//! Sessions of a client: log in, say again what was declared, move messages between the socket and
//! the queues, and notice when the broker is gone.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Message as Frame, Utf8Bytes};
use tracing::debug;

use super::Sender;
use super::error::{Interruption, Refused, RequestError};
use super::event::{Event, Publication, Request};
use super::message::{self, Content, RID};
use super::options::Options;
use super::outgoing::{Declaration, Outgoing, Waiting};
use crate::SessionError;
use crate::dial::{ConnectError, Dialer};
use crate::keep::{End, Sessions};
use crate::socket::{BUFFER, Socket};
use crate::wire::middleman::{Command, ERROR, Guid, Message, WELCOME};

/// Longest wait for the broker's close after ours.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// What a client's task owns.
pub(super) struct Keeper {
    pub(super) dialer: Dialer,
    pub(super) options: Options,
    pub(super) outgoing: mpsc::Receiver<Outgoing>,
    pub(super) events: mpsc::Sender<Event>,
    /// What requests are answered by. It keeps no client open.
    pub(super) sender: mpsc::WeakSender<Outgoing>,
    /// In the order in which they were made.
    pub(super) declared: Vec<Declaration>,
    /// Counts sessions.
    pub(super) session: u64,
}

impl Sessions for Keeper {
    type Socket = Socket;
    type Cause = Interruption;
    type Last = Result<(), Refused>;

    async fn connect(&mut self) -> Result<Socket, End<Interruption, Self::Last>> {
        let mut reached = None;
        let timeouts = self.options.timeouts;
        let logged_in = async {
            let dialled = self.dialer.dial(&mut reached, timeouts.connect).await;
            let mut socket = dialled.map_err(|error| End::Again(error.into()))?;
            let limit = timeouts.login;
            let late = |_| ConnectError::Timeout { step: "the login", limit };
            let login = timeout(limit, log_in(&mut socket, &self.options)).await;
            login.map_err(|elapsed| End::Again(late(elapsed).into()))??;
            Ok(socket)
        }
        .await;
        if logged_in.is_err() {
            self.dialer.demote(reached);
        }
        logged_in
    }

    async fn run(&mut self, socket: Socket) -> End<Interruption, Self::Last> {
        self.session += 1;
        let timeouts = self.options.timeouts;
        let mut session = Session {
            socket,
            keeper: self,
            asked: HashMap::new(),
            next_ping: Instant::now() + timeouts.ping_interval,
            silent_since: None,
        };
        let ended = session.go_on().await;
        for (_, waiting) in session.asked.drain() {
            // Whoever asked may have given up.
            let _ = waiting.send(Err(RequestError::Interrupted));
        }
        match ended {
            Ok(()) => {
                let close = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
                let leaving = async {
                    session.socket.close(Some(close)).await?;
                    while session.socket.next().await.transpose()?.is_some() {}
                    Ok::<(), tokio_tungstenite::tungstenite::Error>(())
                };
                // It is over, whatever the broker makes of it.
                let _ = timeout(CLOSE_GRACE, leaving).await;
                End::Final(Ok(()))
            }
            Err(error) => End::Again(error.into()),
        }
    }
}

/// Shows the key; the broker greets.
async fn log_in(
    socket: &mut Socket,
    options: &Options,
) -> Result<(), End<Interruption, Result<(), Refused>>> {
    let broken = |error: SessionError| End::Again(Interruption::from(error));
    let key = Frame::text(options.key.0.as_str());
    socket.send(key).await.map_err(|error| broken(error.into()))?;
    loop {
        match socket.next().await.transpose().map_err(|error| broken(error.into()))? {
            Some(Frame::Text(text)) if text.as_str() == WELCOME => return Ok(()),
            Some(Frame::Text(_) | Frame::Binary(_)) => {
                return Err(End::Again(Interruption::Unexpected));
            }
            Some(Frame::Close(frame)) => {
                // The library has queued the answer to the close.
                let _ = socket.flush().await;
                let is_refusal =
                    frame.as_ref().is_some_and(|frame| frame.code == CloseCode::Policy);
                return Err(if is_refusal {
                    End::Final(Err(Refused))
                } else {
                    broken(SessionError::closed(frame))
                });
            }
            None => return Err(broken(SessionError::closed(None))),
            // The library answers pings.
            Some(Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_)) => {}
        }
    }
}

struct Session<'a> {
    socket: Socket,
    keeper: &'a mut Keeper,
    /// Who waits for an answer, by the id of the request.
    asked: HashMap<String, Waiting>,
    next_ping: Instant,
    /// When the oldest ping was sent that nothing has followed.
    silent_since: Option<Instant>,
}

impl Session<'_> {
    /// `Ok` at the end of the client.
    async fn go_on(&mut self) -> Result<(), SessionError> {
        for Declaration { text } in self.keeper.declared.clone() {
            self.feed(text).await?;
        }
        self.flush().await?;
        let mut room = None;
        let mut can_take = true;
        loop {
            let deadline = self.deadline(room.is_some());
            tokio::select! {
                // What the broker sent comes first: it may be the sign of life that is waited for.
                biased;
                frame = self.socket.next(), if room.is_some() => match frame.transpose()? {
                    Some(Frame::Close(frame)) => return Err(SessionError::closed(frame)),
                    Some(frame) => {
                        if let Some(event) = self.received(&frame)
                            && let Some(room) = room.take()
                        {
                            mpsc::OwnedPermit::send(room, event);
                        }
                    }
                    None => return Err(SessionError::closed(None)),
                },
                permit = self.keeper.events.clone().reserve_owned(), if room.is_none() => {
                    match permit {
                        Ok(permit) => room = Some(permit),
                        Err(_nobody_receives) => return Ok(()),
                    }
                }
                next = self.keeper.outgoing.recv(), if can_take => {
                    can_take = next.is_some();
                    let mut next = next;
                    let mut bytes = 0;
                    while let Some(outgoing) = next {
                        let Some(length) = self.take(outgoing).await? else { return Ok(()) };
                        bytes += length;
                        let more = bytes < BUFFER;
                        next = if more { self.keeper.outgoing.try_recv().ok() } else { None };
                    }
                    self.flush().await?;
                }
                () = sleep_until(deadline) => self.passed(Instant::now(), room.is_some()).await?,
            }
        }
    }

    /// What a frame comes to for the application.
    fn received(&mut self, frame: &Frame) -> Option<Event> {
        self.silent_since = None;
        // The library answers pings; no messages of bytes are known.
        let Frame::Text(text) = frame else { return None };
        let message = match Message::parse(text.as_bytes()) {
            Ok(message) => message,
            Err(error) => {
                // The broker's first text is the name of the connection, which is no message.
                if text.as_str().parse::<Guid>().is_err() {
                    debug!(%error, "passed over a message of the broker");
                }
                return None;
            }
        };
        let topic = || message.target.to_owned();
        match message.command {
            Command::Pub if message.target == ERROR => {
                Some(Event::Complaint(message.body.text().into_owned()))
            }
            Command::Pub => {
                let content = Content::of(&message);
                Some(Event::Publication(Publication { topic: topic(), content }))
            }
            Command::Req => {
                let rid = message.headers.find(RID)?.value.to_owned();
                let sender = Sender::of(self.keeper.sender.upgrade()?, &self.keeper.options);
                let session = self.keeper.session;
                let content = Content::of(&message);
                Some(Event::Request(Request { topic: topic(), content, rid, session, sender }))
            }
            Command::Res => {
                let waiting = self.asked.remove(message.headers.find(RID)?.value)?;
                let content = Content::of(&message);
                let answer = match content.header(message::ERROR) {
                    Some(reason) => Err(RequestError::Failed { reason: reason.to_owned() }),
                    None => Ok(content),
                };
                // Whoever asked may have given up.
                let _ = waiting.send(answer);
                None
            }
            Command::Sub
            | Command::Epub
            | Command::Esub
            | Command::Ereq
            | Command::Int
            | Command::Other(_) => None,
        }
    }

    /// Feeds what the application hands over: its length, or `None` for the end.
    async fn take(&mut self, outgoing: Outgoing) -> Result<Option<usize>, SessionError> {
        let text = match outgoing {
            Outgoing::Declare(declaration) => {
                let text = declaration.text.clone();
                self.keeper.declared.push(declaration);
                text
            }
            Outgoing::Publish(text) => text,
            Outgoing::Request { rid, text, waiting } => {
                // The caller's time may be over.
                if waiting.is_closed() {
                    return Ok(Some(0));
                }
                self.asked.retain(|_, waiting| !waiting.is_closed());
                self.asked.insert(rid, waiting);
                text
            }
            Outgoing::Answer { text, session } => {
                if session != self.keeper.session {
                    return Ok(Some(0));
                }
                text
            }
            Outgoing::Close => return Ok(None),
        };
        let length = text.len();
        self.feed(text).await?;
        Ok(Some(length))
    }

    async fn feed(&mut self, text: Utf8Bytes) -> Result<(), SessionError> {
        let limit = self.keeper.options.timeouts.write;
        let feeding = timeout(limit, self.socket.feed(Frame::Text(text))).await;
        Ok(feeding.map_err(|_| SessionError::Stuck(limit))??)
    }

    async fn flush(&mut self) -> Result<(), SessionError> {
        let limit = self.keeper.options.timeouts.write;
        let flushing = timeout(limit, self.socket.flush()).await;
        Ok(flushing.map_err(|_| SessionError::Stuck(limit))??)
    }

    /// The next moment at which something is due; silence counts only while we listen.
    fn deadline(&self, is_reading: bool) -> Instant {
        let pong = self.keeper.options.timeouts.pong;
        let silent_by = self.silent_since.filter(|_| is_reading).map(|since| since + pong);
        silent_by.map_or(self.next_ping, |by| by.min(self.next_ping))
    }

    /// Does what is due at `now`.
    async fn passed(&mut self, now: Instant, is_reading: bool) -> Result<(), SessionError> {
        let timeouts = self.keeper.options.timeouts;
        if is_reading && self.silent_since.is_some_and(|since| now >= since + timeouts.pong) {
            return Err(SessionError::Silent(timeouts.pong));
        }
        if now >= self.next_ping {
            self.next_ping = now + timeouts.ping_interval;
            self.silent_since.get_or_insert(now);
            let ping = timeout(timeouts.write, self.socket.send(Frame::Ping(bytes::Bytes::new())));
            ping.await.map_err(|_| SessionError::Stuck(timeouts.write))??;
        }
        Ok(())
    }
}
