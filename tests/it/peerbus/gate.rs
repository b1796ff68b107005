//! A route between two programs that a test cuts and heals: what is on it meanwhile comes late, as
//! over a network that is slow to recover.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{self, Runtime};
use tokio::sync::watch;

/// A port that leads to another, as long as this lives.
pub(super) struct Gate {
    pub(super) address: SocketAddr,
    is_open: watch::Sender<bool>,
    _runtime: Runtime,
}

impl Gate {
    pub(super) fn to(target: SocketAddr) -> Self {
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (is_open, state) = watch::channel(true);
        runtime.spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let Ok(far) = TcpStream::connect(target).await else { continue };
                let (from_near, to_near) = near.into_split();
                let (from_far, to_far) = far.into_split();
                tokio::spawn(carry(from_near, to_far, state.clone()));
                tokio::spawn(carry(from_far, to_near, state.clone()));
            }
        });
        Self { address, is_open, _runtime: runtime }
    }

    /// Holds back all that comes, in both directions.
    pub(super) fn cut(&self) {
        self.is_open.send_replace(false);
    }

    pub(super) fn heal(&self) {
        self.is_open.send_replace(true);
    }
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut is_open: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let has_healed = is_open.wait_for(|is_open| *is_open).await.is_ok();
        if !has_healed || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
