//! Connections: the memory of idle ones, and the cost of a login.

use std::time::{Duration, Instant};

use ed25519_dalek::{Signature, Signer as _, SigningKey};
use rustix::time::{ClockId, clock_gettime};

use crate::options::Way;
use crate::peer::Node;
use crate::subject::{Kind, Servers};
use crate::throughput::End;

/// Connections before the measurement, so that what is kept for all is not counted for each.
const WARM_UP: u32 = 50;

/// Lets all come at once, and asks nothing of those that answer nothing.
const PATIENT: &[&str] =
    &["--upgrade-burst", "1000000", "--ping-interval", "0s", "--idle-timeout", "1h"];

/// What an idle, authenticated connection costs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Idle {
    pub(super) connections: u32,
    /// Anonymous resident memory of the server for each, in bytes.
    pub(super) bytes_each: f64,
}

/// Connects `count` peers that then do nothing.
pub(super) fn idle(servers: &Servers, kind: Kind, count: u32) -> anyhow::Result<Idle> {
    let nodes: Vec<_> = (1..=count + WARM_UP).map(Node::new).collect();
    let server = servers.start(kind, &nodes, PATIENT)?;
    let mut streams = Vec::new();
    let mut before = 0;
    for (node, number) in nodes.iter().zip(0..) {
        if number == WARM_UP {
            before = server.usage()?.anonymous;
        }
        streams.push(End::open(Way::Wss, &server, node)?);
    }
    let after = server.usage()?.anonymous;
    let bytes_each = (after.saturating_sub(before)) as f64 / f64::from(count);
    Ok(Idle { connections: count, bytes_each })
}

/// What a connection with its login costs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Login {
    pub(super) logins: u32,
    /// CPU time of the server for each, in microseconds.
    pub(super) cpu_us_each: f64,
    pub(super) per_second: f64,
}

/// Logs `count` nodes in, one after the other; each leaves before the next comes.
pub(super) fn logins(servers: &Servers, kind: Kind, count: u32) -> anyhow::Result<Login> {
    let nodes: Vec<_> = (1..=count + WARM_UP).map(Node::new).collect();
    let server = servers.start(kind, &nodes, &["--upgrade-burst", "1000000"])?;
    let mut before = server.usage()?.cpu;
    let mut began = Instant::now();
    for (node, number) in nodes.iter().zip(0..) {
        if number == WARM_UP {
            before = server.usage()?.cpu;
            began = Instant::now();
        }
        drop(End::open(Way::Wss, &server, node)?);
    }
    let per_second = f64::from(count) / began.elapsed().as_secs_f64();
    let cpu = server.usage()?.cpu - before;
    let cpu_us_each = cpu.as_secs_f64() * 1e6 / f64::from(count);
    Ok(Login { logins: count, cpu_us_each, per_second })
}

/// What one strict verification costs on this machine at this moment, in microseconds of CPU time.
pub(super) fn verification_us() -> f64 {
    const ROUNDS: u32 = 500;
    let signed = Signed::new();
    let began = thread_time();
    (0..ROUNDS).for_each(|_| signed.verify());
    (thread_time() - began).as_secs_f64() * 1e6 / f64::from(ROUNDS)
}

/// CPU time of this thread so far: the machine may have other work.
fn thread_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// A text with its signature.
pub(super) struct Signed {
    signature: Signature,
    public: [u8; 32],
}

impl Signed {
    const TEXT: &[u8] = b"compat_auth:4242:1767225600:nonce";

    pub(super) fn new() -> Self {
        let key = SigningKey::from_bytes(&[7; 32]);
        Self { signature: key.sign(Self::TEXT), public: key.verifying_key().to_bytes() }
    }

    /// Verifies it as a login does: from the bytes of the directory.
    pub(super) fn verify(&self) {
        let key = ed25519_dalek::VerifyingKey::from_bytes(&self.public);
        let holds = key.is_ok_and(|key| key.verify_strict(Self::TEXT, &self.signature).is_ok());
        assert!(std::hint::black_box(holds), "a signature that was just made holds");
    }
}
