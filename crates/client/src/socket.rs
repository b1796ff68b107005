//! The WebSocket of a session, over whatever leads to the relay.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;

/// Bytes that the socket buffers in each direction before it goes to the kernel.
pub(super) const BUFFER: usize = 32 * 1_024;

/// The byte stream below the WebSocket: TCP or TLS.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub(super) type Socket = WebSocketStream<Box<dyn Stream>>;
