//! The examples of nodes: they talk to each other as their heads say, in Rust and in Python, through
//! `beacon-relay serve` and through a program that embeds its listener.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use beacon_relay::ids::{NodeId, PublicKey};
use beacon_relay::wire::auth::{Challenge, Generation, Reply};
use beacon_relay::wire::beacon::{self, Packet};
use ed25519_dalek::{Signature, Verifier as _};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::deploy::{root, tools};
use crate::harness::{Node, PATIENCE, Relay};
use crate::ports::free_port;

#[path = "../../examples/embed.rs"]
#[allow(dead_code)]
mod embed;
#[path = "../../crates/client/examples/client.rs"]
#[allow(dead_code)]
mod node;

/// What Python needs to find the packages of scripts/tools.txt, and to leave nothing behind.
fn python(script: &str) -> Command {
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", tools()).env("PYTHONDONTWRITEBYTECODE", "1").arg(root(script));
    command
}

/// The nodes of the heads, and a folder with their keys.
fn nodes() -> (Vec<Node>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let nodes = [4242, 4243].map(Node::new);
    for (node, name) in nodes.iter().zip(["alice.key", "bob.key"]) {
        fs::rename(node.write_key(folder.path()), folder.path().join(name)).unwrap();
    }
    (nodes.into(), folder)
}

/// The arguments of the commands in the head of a file that run it, for this relay and the keys of
/// this folder.
fn commands(file: &str, program: &str, relay: SocketAddr, folder: &Path) -> Vec<Vec<String>> {
    let text = fs::read_to_string(root(file)).unwrap();
    let lines = text.lines().map(|line| line.trim_start_matches("//!").trim());
    let commands = lines.filter_map(|line| line.strip_prefix(program));
    let argument = |word: &str| match word.strip_suffix(".key") {
        Some(_) => folder.join(word).to_str().unwrap().to_owned(),
        None => word.replace("127.0.0.1:8443", &relay.to_string()),
    };
    commands.map(|words| words.split_whitespace().map(argument).collect()).collect()
}

const IN_RUST: (&str, &str) =
    ("crates/client/examples/client.rs", "cargo run -p beacon-client --example client --");

const IN_PYTHON: (&str, &str) = ("examples/python/pilot.py", "python3 examples/python/pilot.py");

/// Has both nodes in Rust greet each other.
async fn meet_in_rust(commands: &[Vec<String>]) {
    let [alice, bob] = commands else { panic!("not two nodes: {commands:?}") };
    let meeting = async { tokio::join!(node::greet(alice), node::greet(bob)) };
    let (heard, said) = timeout(PATIENCE, meeting).await.unwrap();
    assert_eq!((&*heard.unwrap(), &*said.unwrap()), ("hello", "hello"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_greet_each_other_as_their_heads_say() {
    let (nodes, folder) = nodes();
    let relay = Relay::with_nodes(&nodes.iter().collect::<Vec<_>>(), &[]);
    let of = |(file, program)| commands(file, program, relay.wss, folder.path());
    meet_in_rust(&of(IN_RUST)).await;

    // And one in Rust another in Python.
    let alice = of(IN_RUST).swap_remove(0);
    let bob = of(IN_PYTHON).swap_remove(1);
    let python = thread::spawn(move || python(IN_PYTHON.0).args(bob).output().unwrap());
    let heard = timeout(PATIENCE, node::greet(&alice)).await.unwrap().unwrap();
    assert_eq!(heard, "hello");
    let output = python.join().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{}", relay.log());
    assert!(said.ends_with("node 4242 said 'hello'\n"), "{said}");
}

#[test]
fn node_in_python_that_the_relay_does_not_know_says_so() {
    let (nodes, folder) = nodes();
    let relay = Relay::with_nodes(&[&nodes[1]], &[]);
    let alice = commands(IN_PYTHON.0, IN_PYTHON.1, relay.wss, folder.path()).swap_remove(0);
    let output = python(IN_PYTHON.0).args(alice).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("the relay refused the login") && said.contains("auth failed"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded_listener_delivers_what_nodes_say_to_each_other() {
    let (nodes, folder) = nodes();
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let commands = commands(IN_RUST.0, IN_RUST.1, address, folder.path());
    let mut arguments = vec![address.to_string()];
    arguments.extend(nodes.iter().map(|node| {
        let key = STANDARD.encode(node.key.verifying_key().to_bytes());
        format!("{}={key}", node.id)
    }));
    let (stop, stopped) = oneshot::channel::<()>();
    let meeting = async {
        meet_in_rust(&commands).await;
        stop.send(()).unwrap();
    };
    let serving = embed::serve(&arguments, async {
        let _ = stopped.await;
    });
    let (served, ()) = tokio::join!(serving, meeting);
    served.unwrap();
}

fn vectors() -> Value {
    let text = fs::read_to_string(root("examples/python/vectors.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn hex(text: &Value) -> Vec<u8> {
    let text = text.as_str().unwrap();
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn id(number: &Value) -> NodeId {
    NodeId::new(number.as_u64().unwrap().try_into().unwrap()).unwrap()
}

#[test]
fn node_in_python_holds_the_vectors() {
    let output = python("examples/python/test_pilot.py").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn vectors_are_those_of_the_relay() {
    let vectors = vectors();
    let key: PublicKey = vectors["public_key"].as_str().unwrap().parse().unwrap();
    assert_eq!(key.0, Node::of_the_vectors().key.verifying_key().to_bytes());
    let mut generations = Vec::new();
    for login in
        vectors["logins"].as_array().unwrap().iter().filter(|login| !login["reply"].is_null())
    {
        let text = login["challenge"].as_str().unwrap();
        let challenge = Challenge::decode(text).unwrap();
        let reply = Reply::decode(login["reply"].to_string().as_bytes()).unwrap();
        assert_eq!((reply.node, reply.public_key), (id(&vectors["node"]), key), "{login}");
        let generation = match (&challenge.relay, text.contains("\"ts\"")) {
            (Some(_), _) => Generation::Third,
            (None, true) => Generation::Second,
            (None, false) => Generation::First,
        };
        let signed = challenge.signed_text(reply.node, generation);
        let signature = Signature::from_bytes(&reply.signature);
        Node::of_the_vectors().key.verifying_key().verify(signed.as_bytes(), &signature).unwrap();
        assert_eq!(reply.generation, (generation == Generation::Third).then_some(3), "{login}");
        generations.push(generation.number());
    }
    assert_eq!(generations, [1, 2, 3, 3, 3, 2]);

    for relay in vectors["relays"].as_array().unwrap() {
        let mut packet = Vec::new();
        beacon::encode_relay(
            id(&relay["sender"]),
            id(&relay["dest"]),
            &hex(&relay["payload"]),
            &mut packet,
        );
        assert_eq!(packet, hex(&relay["packet"]), "{relay}");
    }
    for delivery in vectors["deliveries"].as_array().unwrap() {
        let packet = hex(&delivery["packet"]);
        match beacon::decode(&packet) {
            Ok(Packet::Deliver(found)) => {
                let expected = (id(&delivery["sender"]), hex(&delivery["payload"]));
                assert_eq!((found.sender, found.payload.to_vec()), expected, "{delivery}");
            }
            _ => assert!(delivery["sender"].is_null(), "{delivery}"),
        }
    }
}
