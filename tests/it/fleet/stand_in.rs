//! A registry as daemons and relays use it (SPEC §8): JSON for daemons, the binary form for
//! relays, over plain TCP and over TLS. It believes everybody and forgets nothing.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::{Condvar, Mutex};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::harness::PATIENCE;

/// The longest message that anybody sends here, in bytes.
const MAX_MESSAGE: usize = 65_536;

/// A registry that runs until the test's process ends.
pub(super) struct StandIn {
    /// Where it speaks in clear text.
    pub(super) plain: SocketAddr,
    /// Where it speaks TLS.
    pub(super) tls: SocketAddr,
    /// SHA-256 of its certificate, in hex.
    pub(super) fingerprint: String,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    beacon: SocketAddr,
}

#[derive(Default)]
struct State {
    nodes: BTreeMap<u32, Entry>,
    /// Every request of a daemon, with its type and its node.
    requests: Vec<(String, u32)>,
}

#[derive(Clone, Default)]
struct Entry {
    key: String,
    hostname: String,
    public: bool,
    real_address: String,
    lan_addresses: Value,
    version: Value,
}

impl StandIn {
    /// Starts it on these addresses of this thread's network namespace; daemons hear of this
    /// beacon.
    pub(super) fn start(address: Ipv4Addr, beacon: SocketAddr) -> Self {
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), beacon });
        let plain = Self::listen(address, {
            let shared = Arc::clone(&shared);
            move |stream, from| shared.serve(stream, from)
        });
        let made = rcgen::generate_simple_self_signed([address.to_string()]).unwrap();
        let certificate = CertificateDer::from(made.cert.der().to_vec());
        let fingerprint = Sha256::digest(&certificate)
            .iter()
            .fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let config = Arc::new(config);
        let tls = Self::listen(address, {
            let shared = Arc::clone(&shared);
            move |stream, from| {
                let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
                shared.serve(StreamOwned::new(connection, stream), from)
            }
        });
        Self { plain, tls, fingerprint, shared }
    }

    fn listen(
        address: Ipv4Addr,
        serve: impl Fn(TcpStream, IpAddr) -> io::Result<()> + Send + Sync + 'static,
    ) -> SocketAddr {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let local = listener.local_addr().unwrap();
        let serve = Arc::new(serve);
        thread::spawn(move || {
            while let Ok((stream, from)) = listener.accept() {
                let serve = Arc::clone(&serve);
                // A connection that breaks is a daemon that has ended.
                thread::spawn(move || serve(stream, from.ip()));
            }
        });
        local
    }

    /// Waits until a node of this host name has registered; its id.
    pub(super) fn id_of(&self, hostname: &str) -> u32 {
        self.wait(&format!("a node {hostname}"), |state| state.named(hostname))
    }

    /// The address that a node has registered.
    pub(super) fn real_address(&self, id: u32) -> String {
        self.shared.state.lock().nodes[&id].real_address.clone()
    }

    /// How often a node has asked this.
    pub(super) fn requests(&self, kind: &str, id: u32) -> usize {
        self.shared.state.lock().count(kind, id)
    }

    /// Waits until a node has asked this more than so many times.
    pub(super) fn wait_for_more(&self, kind: &str, id: u32, than: usize) {
        let what = format!("more than {than} of {kind}");
        self.wait(&what, |state| (state.count(kind, id) > than).then_some(()));
    }

    fn wait<T>(&self, what: &str, find: impl Fn(&State) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        let mut state = self.shared.state.lock();
        loop {
            if let Some(found) = find(&state) {
                return found;
            }
            let late = self.shared.changed.wait_until(&mut state, end).timed_out();
            assert!(!late, "the registry saw no {what}; it saw {:?}", state.requests);
        }
    }
}

impl State {
    fn named(&self, hostname: &str) -> Option<u32> {
        self.nodes.iter().find_map(|(id, node)| (node.hostname == hostname).then_some(*id))
    }

    fn count(&self, kind: &str, id: u32) -> usize {
        self.requests.iter().filter(|(asked, by)| asked == kind && *by == id).count()
    }
}

impl Shared {
    /// Answers one connection until it ends, in the form that it begins in.
    fn serve(&self, mut stream: impl Read + Write, from: IpAddr) -> io::Result<()> {
        let mut head = [0; 4];
        stream.read_exact(&mut head)?;
        if head == *b"PILT" {
            stream.read_exact(&mut [0])?;
            loop {
                stream.read_exact(&mut head)?;
                let message = body(&mut stream, head)?;
                stream.write_all(&framed(&self.binary(&message, from)))?;
                stream.flush()?;
            }
        }
        loop {
            let message = body(&mut stream, head)?;
            stream.write_all(&framed(&self.answer(&message, from)))?;
            stream.flush()?;
            stream.read_exact(&mut head)?;
        }
    }

    fn binary(&self, message: &[u8], from: IpAddr) -> Vec<u8> {
        match message {
            [0x00, json @ ..] => [&[0x00][..], &self.answer(json, from)].concat(),
            [0x02, a, b, c, d] => {
                let id = u32::from_be_bytes([*a, *b, *c, *d]);
                let found = self.state.lock().nodes.get(&id).cloned();
                let Some(node) = found else {
                    return refusal(&format!("node {id}: node not found"));
                };
                let key = STANDARD.decode(&node.key).unwrap();
                let real = node.real_address.as_bytes();
                let mut answer = vec![0x82];
                answer.extend(id.to_be_bytes());
                answer.push(u8::from(node.public));
                // Score 0, one network: 0, and a key of 32 bytes.
                answer.extend([0, 0, 0, 0, 0, 1, 0, 0, 32]);
                answer.extend(key);
                answer.push(u8::try_from(node.hostname.len()).unwrap());
                answer.extend(node.hostname.as_bytes());
                answer.push(0);
                answer.extend(u16::try_from(real.len()).unwrap().to_be_bytes());
                answer.extend(real);
                answer.push(0);
                answer
            }
            other => refusal(&format!("unknown message type {:#04x}", other[0])),
        }
    }

    fn answer(&self, json: &[u8], from: IpAddr) -> Vec<u8> {
        let request: Value = serde_json::from_slice(json).unwrap();
        let kind = request["type"].as_str().unwrap_or_default().to_owned();
        let mut answer = self
            .decide(&kind, &request, from)
            .unwrap_or_else(|error| json!({ "type": "error", "error": error }));
        if answer["type"].is_null() {
            answer["type"] = format!("{kind}_ok").into();
        }
        let mut state = self.state.lock();
        let by = request["node_id"].as_u64().and_then(|id| u32::try_from(id).ok());
        state.requests.push((kind, by.unwrap_or(0)));
        self.changed.notify_all();
        serde_json::to_vec(&answer).unwrap()
    }

    fn decide(&self, kind: &str, request: &Value, from: IpAddr) -> Result<Value, String> {
        let mut state = self.state.lock();
        let id = request["node_id"].as_u64().and_then(|id| u32::try_from(id).ok()).unwrap_or(0);
        let not_found = || format!("node {id}: node not found");
        match kind {
            "register" => Ok(state.register(request, from)),
            "set_visibility" => {
                let node = state.nodes.get_mut(&id).ok_or_else(not_found)?;
                node.public = request["public"] == true;
                let visibility = if node.public { "public" } else { "private" };
                Ok(json!({ "node_id": id, "visibility": visibility }))
            }
            "set_hostname" => {
                let node = state.nodes.get_mut(&id).ok_or_else(not_found)?;
                node.hostname = request["hostname"].as_str().unwrap_or_default().to_owned();
                Ok(json!({ "node_id": id, "hostname": node.hostname }))
            }
            "lookup" => {
                let node = state.nodes.get(&id).ok_or_else(not_found)?;
                Ok(json!({
                    "node_id": id, "address": address(id), "hostname": node.hostname,
                    "public": node.public, "public_key": node.key, "networks": [0],
                    "polo_score": 0, "version": node.version, "real_addr": node.real_address,
                }))
            }
            "resolve" => {
                let node = state.nodes.get(&id).ok_or_else(not_found)?;
                Ok(json!({
                    "node_id": id, "public_key": node.key, "real_addr": node.real_address,
                    "lan_addrs": node.lan_addresses, "key_age_days": 0,
                }))
            }
            "resolve_hostname" => {
                let name = request["hostname"].as_str().unwrap_or_default();
                let id = state.named(name).ok_or_else(|| format!("hostname {name:?} not found"))?;
                let public = state.nodes[&id].public;
                Ok(json!({
                    "node_id": id, "address": address(id), "hostname": name, "public": public,
                }))
            }
            "heartbeat" => {
                state.nodes.get(&id).ok_or_else(not_found)?;
                Ok(json!({ "time": 1_795_882_369 }))
            }
            "poll_handshakes" => Ok(json!({ "requests": [], "responses": [] })),
            // Daemons ask for these at their start, and again after 0.6 s where they are refused.
            "get_network_policy" => Ok(json!({
                "network_id": 0, "allowed_ports": [], "description": "", "max_members": 0,
            })),
            "list_networks" => Ok(json!({ "networks": [{
                "id": 0, "name": "backbone", "join_rule": "open", "members": state.nodes.len(),
                "created": 0, "enterprise": false,
            }] })),
            "beacon_list" => {
                Ok(json!({ "beacons": [{ "id": 1, "addr": self.beacon.to_string() }] }))
            }
            "beacon_register" => Ok(json!({ "beacon_id": request["beacon_id"] })),
            "report_trust" | "revoke_trust" => Ok(json!({})),
            _ => Err("request failed".to_owned()),
        }
    }
}

impl State {
    /// The same key has the same id, for ever.
    fn register(&mut self, request: &Value, from: IpAddr) -> Value {
        let key = request["public_key"].as_str().unwrap_or_default().to_owned();
        let known = self.nodes.iter().find_map(|(id, node)| (node.key == key).then_some(*id));
        let next = self.nodes.keys().next_back().map_or(1, |last| last + 1);
        let id = known.unwrap_or(next);
        let node = self.nodes.entry(id).or_default();
        let listen = request["listen_addr"].as_str().unwrap_or_default();
        let listen: Option<SocketAddr> = listen.parse().ok();
        let usable = |ip: IpAddr| !ip.is_unspecified() && !ip.is_loopback();
        let host = listen.map(|listen| listen.ip()).filter(|ip| usable(*ip)).unwrap_or(from);
        let port = listen.map_or(0, |listen| listen.port());
        node.key = key;
        node.real_address = SocketAddr::from((host, port)).to_string();
        node.lan_addresses = request["lan_addrs"].clone();
        node.version = request["version"].clone();
        json!({
            "node_id": id, "address": address(id), "network_id": 0, "public_key": node.key,
            "observed_addr": node.real_address, "protocol_version": 1,
        })
    }
}

/// A node's address in the overlay: network 0, and the two halves of the id.
fn address(id: u32) -> String {
    format!("0:0000.{:04X}.{:04X}", id >> 16, id & 0xffff)
}

fn refusal(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap().to_be_bytes();
    [&[0xff][..], &length, text.as_bytes()].concat()
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&u32::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
}

fn body(stream: &mut impl Read, head: [u8; 4]) -> io::Result<Vec<u8>> {
    let length = usize::try_from(u32::from_be_bytes(head)).unwrap();
    assert!((1..=MAX_MESSAGE).contains(&length), "a message of {length} bytes");
    let mut message = vec![0; length];
    stream.read_exact(&mut message)?;
    Ok(message)
}
