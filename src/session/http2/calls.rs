//! The calls of one connection: what comes in each, and what waits to be sent.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};

use super::super::{CallEnd, CallId, Status};
use super::outgoing::Outgoing;

/// What requests and answers of gRPC say that they contain.
const GRPC: &str = "application/grpc";

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Frames that are read of one connection before others of its thread have their turn.
const FRAMES: usize = 64;

/// A request that has come, and has no answer.
pub(super) struct Begun {
    pub(super) id: CallId,
    path: String,
    body: RecvStream,
    respond: SendResponse<Bytes>,
}

/// A call that is taken.
struct Call {
    id: CallId,
    /// What still comes.
    body: Option<RecvStream>,
    answer: Answer,
    /// What waits for the peer to take it: the length of each piece, and what is left of it.
    waiting: VecDeque<(usize, Bytes)>,
    /// How it ends behind those.
    end: Option<Status>,
    is_over: bool,
}

enum Answer {
    /// Its head has not been sent.
    Unsent(SendResponse<Bytes>),
    Begun(SendStream<Bytes>),
}

/// What came in a call.
pub(super) enum Came {
    Data(Bytes),
    End(CallEnd),
}

impl Begun {
    /// A request; one that is none of gRPC is answered at once.
    pub(super) fn new(
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
    ) -> Option<Self> {
        let (head, body) = request.into_parts();
        let is_grpc = |value: &HeaderValue| value.as_bytes().starts_with(GRPC.as_bytes());
        if head.method != Method::POST || !head.headers.get(CONTENT_TYPE).is_some_and(is_grpc) {
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            // A client that is gone needs no answer.
            let _ = respond.send_response(response, true);
            return None;
        }
        let id = CallId(respond.stream_id().as_u32());
        Some(Self { id, path: head.uri.path().to_owned(), body, respond })
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Answers it with nothing but a status.
    pub(super) fn refuse(mut self, status: &Status) {
        end_unanswered(&mut self.respond, status);
    }
}

/// The calls that are taken. There are no more than a connection may have streams.
#[derive(Default)]
pub(super) struct Calls(Vec<Call>);

impl Calls {
    pub(super) fn add(&mut self, begun: Begun) {
        let Begun { id, body, respond, .. } = begun;
        self.0.push(Call {
            id,
            body: Some(body),
            answer: Answer::Unsent(respond),
            waiting: VecDeque::new(),
            end: None,
            is_over: false,
        });
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads what is there, a frame after the other; true where there may be more.
    pub(super) fn read(
        &mut self,
        cx: &mut Context<'_>,
        mut came: impl FnMut(CallId, Came),
    ) -> bool {
        let mut left = FRAMES;
        for call in &mut self.0 {
            let mut end = None;
            while let Some(body) = &mut call.body {
                if left == 0 {
                    return true;
                }
                left -= 1;
                match body.poll_data(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Some(Ok(data))) => {
                        // It is looked at here, or copied: the peer may send as much again.
                        let released = body.flow_control().release_capacity(data.len());
                        debug_assert!(released.is_ok(), "no more is released than came");
                        came(call.id, Came::Data(data));
                        continue;
                    }
                    Poll::Ready(None) => end = Some(CallEnd::Finished),
                    Poll::Ready(Some(Err(_))) => end = Some(CallEnd::Cancelled),
                }
                call.body = None;
            }
            if end.is_none() && call.body.is_none() && call.poll_reset(cx) {
                end = Some(CallEnd::Cancelled);
            }
            if let Some(how) = end {
                call.is_over |= how == CallEnd::Cancelled;
                came(call.id, Came::End(how));
            }
        }
        false
    }

    /// Puts bytes behind those that wait in a call; false where it is over.
    pub(super) fn push(&mut self, id: CallId, data: Bytes) -> bool {
        let call = self.0.iter_mut().find(|call| call.id == id && call.end.is_none());
        let Some(call) = call.filter(|call| !call.is_over) else { return false };
        call.waiting.push_back((data.len(), data));
        true
    }

    /// Has a call end behind what waits.
    pub(super) fn end(&mut self, id: CallId, status: Status) {
        if let Some(call) = self.0.iter_mut().find(|call| call.id == id) {
            call.end.get_or_insert(status);
        }
    }

    /// Has all of them end so.
    pub(super) fn end_all(&mut self, status: &Status) {
        for call in &mut self.0 {
            call.end.get_or_insert_with(|| status.clone());
        }
    }

    /// Hands over what the peer takes at this moment; true where that was something.
    pub(super) fn write(&mut self, cx: &mut Context<'_>, outgoing: &Outgoing) -> bool {
        let mut progress = false;
        for call in &mut self.0 {
            progress |= call.write(cx, outgoing);
        }
        self.0.retain(|call| {
            if call.is_over {
                call.waiting.iter().for_each(|(length, _)| outgoing.left(*length));
            }
            !call.is_over
        });
        progress
    }
}

impl Call {
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> bool {
        match &mut self.answer {
            Answer::Unsent(respond) => respond.poll_reset(cx).is_ready(),
            Answer::Begun(stream) => stream.poll_reset(cx).is_ready(),
        }
    }

    fn write(&mut self, cx: &mut Context<'_>, outgoing: &Outgoing) -> bool {
        let mut progress = false;
        while !self.is_over {
            let Some((length, data)) = self.waiting.front_mut() else { break };
            let stream = match &mut self.answer {
                Answer::Begun(stream) => stream,
                Answer::Unsent(respond) => match respond.send_response(head(), false) {
                    Ok(stream) => {
                        self.answer = Answer::Begun(stream);
                        continue;
                    }
                    Err(_) => {
                        self.is_over = true;
                        break;
                    }
                },
            };
            stream.reserve_capacity(data.len());
            let room = stream.capacity().min(data.len());
            if room == 0 && data.has_remaining() {
                match stream.poll_capacity(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Some(Ok(_))) => continue,
                    Poll::Ready(None | Some(Err(_))) => {
                        self.is_over = true;
                        break;
                    }
                }
            }
            self.is_over = stream.send_data(data.split_to(room), false).is_err();
            if !data.has_remaining() {
                outgoing.left(*length);
                self.waiting.pop_front();
            }
            progress = true;
        }
        if self.waiting.is_empty()
            && let Some(status) = self.end.take()
        {
            match &mut self.answer {
                Answer::Unsent(respond) => end_unanswered(respond, &status),
                // A client that is gone needs no end.
                Answer::Begun(stream) => drop(stream.send_trailers(trailers(&status))),
            }
            self.is_over = true;
            progress = true;
        }
        progress
    }
}

/// The head of an answer.
fn head() -> Response<()> {
    let mut response = Response::new(());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
    response
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert(GRPC_STATUS, HeaderValue::from(status.code));
    // One that is no header is left out: the code says enough. An empty one stays, as some servers
    // have it.
    if let Ok(message) = HeaderValue::from_str(&status.message) {
        trailers.insert(GRPC_MESSAGE, message);
    }
    trailers
}

/// Answers with nothing but a status.
fn end_unanswered(respond: &mut SendResponse<Bytes>, status: &Status) {
    let mut response = head();
    response.headers_mut().extend(trailers(status));
    // A client that is gone needs no answer.
    let _ = respond.send_response(response, true);
}
