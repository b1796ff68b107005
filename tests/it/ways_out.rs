//! What a command says that cannot do what it was asked: the reason, and what to do. Each command is
//! refused here for several reasons; settings have a test of their own, in `config`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::wording::{assert_names_a_way_out, assert_plain};

/// Arguments with which a command fails, and its exit code; `@` stands for a folder in which there
/// are `empty`, `garbage` and `token`, addresses that are free in `free.toml`, and the state folder
/// `broken` with files that are none.
const REFUSED: &[(&[&str], i32)] = &[
    (&["serve", "--keys", "@/garbage"], 78),
    (&["serve", "--state-dir", "@/garbage"], 78),
    (&["serve", "--state-dir", "@/broken"], 78),
    (&["serve", "--config", "@/garbage"], 78),
    (&["serve", "--config", "@"], 78),
    (&["demo", "--log-level", "error", "--config", "@/free.toml", "--file", "@/none"], 1),
    (&["demo", "--log-level", "error", "--config", "@/free.toml", "--file", "@/empty"], 1),
    (&["connect", "ws://127.0.0.1:1", "--node-id", "7", "--key", "@/none"], 1),
    (&["connect", "ws://127.0.0.1:1", "--node-id", "7", "--key", "@/garbage"], 1),
    (&["connect", "gopher://a", "--node-id", "7", "--key", "@/node.key"], 1),
    (&["connect", "wss://a", "--ca", "@/none", "--node-id", "7", "--key", "@/node.key"], 1),
    (&["mcp"], 64),
    (&["mcp", "--url", "ws://127.0.0.1:1"], 64),
    (&["mcp", "--url", "ws://127.0.0.1:1", "--token-file", "@/none"], 78),
    (&["mcp", "--url", "http://a", "--name", "a", "--token-file", "@/token"], 64),
    (&["doctor", "--node-id", "7"], 64),
    (&["doctor", "wss://a", "--node-id", "7", "--key", "@/none"], 64),
    (&["doctor", "rels://a", "--secret-file", "@/none"], 64),
    (&["doctor", "rels://a", "--secret-file", "@/empty"], 64),
    (&["check-config", "--registry", "a"], 64),
    (&["migrate"], 64),
    (&["migrate", "netbird"], 1),
    (&["migrate", "netbird", "--", "--no-such-flag", "1"], 64),
    (&["migrate", "netbird", "--compose", "@/none"], 1),
    (&["migrate", "netbird", "--compose", "@/garbage"], 1),
    (&["migrate", "peerbus"], 1),
    (&["migrate", "peerbus", "--messages", "@/none"], 1),
    (&["migrate", "peerbus", "--messages", "@/garbage", "--state-dir", "@/imported"], 1),
    (&["migrate", "middleman", "--", "-x"], 1),
    (&["migrate", "keyop", "@/none"], 1),
    (&["migrate", "keyop", "@/garbage"], 1),
    (&["keygen", "--out", "@/none/node.key"], 1),
    (&["keygen", "--out", "@/garbage"], 1),
    (&["certs", "ca", "--out-cert", "@/none/ca.crt"], 1),
    (&["certs", "ca", "--out-cert", "@/garbage"], 1),
    (&["certs", "instance", "--name", "a", "--ca", "@/none", "--ca-key", "@/none"], 1),
    (&["certs", "instance", "--name", "a", "--ca", "@/none", "--ca-key", "@/garbage"], 1),
    (&["certs", "inspect", "@/none"], 1),
    (&["certs", "inspect", "@/garbage"], 1),
    (&["enroll"], 64),
    (&["enroll", "7", "AAAA"], 64),
    (&["enroll", "0", "AAAA"], 64),
    (&["enroll", "7", "@KEY", "--state-dir", "@/broken"], 1),
    (&["enroll", "7", "@KEY", "--state-dir", "@/garbage"], 78),
    (&["enroll", "7", "@KEY", "--wait", "--state-dir", "@/waited"], 69),
    (&["unenroll", "7", "--state-dir", "@/fresh"], 1),
    (&["enrolled", "--state-dir", "@/broken"], 1),
    (&["cluster-id", "--state-dir", "@/broken"], 78),
    (&["cluster-id", "--state-dir", "@/garbage"], 78),
    (&["bus", "move", "--to", "nats"], 64),
    (&["bus", "move", "--to", "tape"], 64),
    (&["audit", "verify", "--state-dir", "@/fresh"], 2),
    (&["audit", "verify", "--from", "@/none"], 2),
    (&["audit", "verify", "--from", "@/garbage"], 1),
    (&["audit", "export", "--state-dir", "@/fresh"], 2),
    (&["completions", "cmd"], 64),
    (&["status", "--state-dir", "@/fresh"], 69),
    (&["peers", "--state-dir", "@/fresh"], 69),
    (&["peer", "7", "--state-dir", "@/fresh"], 69),
    (&["top", "--state-dir", "@/fresh"], 69),
    (&["kick", "7", "--for", "soon"], 64),
    (&["kick", "7", "--state-dir", "@/fresh"], 69),
    (&["notify", "7", "--state-dir", "@/fresh"], 69),
    (&["switch", "relay", "perhaps"], 64),
    (&["switch", "relay", "off", "--state-dir", "@/fresh"], 69),
    (&["drain", "--state-dir", "@/fresh"], 69),
    (&["reload", "--state-dir", "@/fresh"], 69),
    (&["log-level", "inof", "--state-dir", "@/fresh"], 64),
    (&["log-level", "info", "--state-dir", "@/fresh"], 69),
    (&["explain", "7", "--state-dir", "@/fresh"], 69),
    (&["record", "--state-dir", "@/fresh"], 69),
    (&["topics", "--state-dir", "@/fresh"], 69),
    (&["names", "--state-dir", "@/fresh"], 69),
    (&["queues", "--state-dir", "@/fresh"], 69),
    (&["queue", "a", "--state-dir", "@/fresh"], 69),
    (&["channels", "--state-dir", "@/fresh"], 69),
    (&["channel", "a", "--state-dir", "@/fresh"], 69),
    (&["names", "release", "a", "--state-dir", "@/fresh"], 69),
    (&["names", "bind", "a", "b", "--state-dir", "@/fresh"], 69),
    (&["sreve"], 64),
    (&[], 64),
];

/// A folder with what the table names.
fn files() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("empty", "");
    write("garbage", "\u{1}{ no: [such thing\n");
    write("token", "a-token-of-a-peer\n");
    let free = ["wss", "udp", "admin"].map(|of| format!("{of}_bind = \"127.0.0.1:0\"\n"));
    write("free.toml", &free.concat());
    write("broken/keys.json", "{\"7\": 7}");
    write("broken/cluster.key", "no key\n");
    folder
}

/// What a run of the program prints to stderr, which ends with this code.
fn stderr(folder: &Path, arguments: &[String], code: i32) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
    command.env_clear().env("HOME", folder.join("home")).current_dir(folder);
    let output = command.args(arguments).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    said
}

#[test]
fn refusal_of_each_command_says_what_to_do() {
    let folder = files();
    let place = folder.path().to_str().unwrap();
    let keygen = ["keygen", "--out", "node.key"].map(str::to_owned);
    stderr(folder.path(), &keygen, 0);
    let public = "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=";

    for (arguments, code) in REFUSED {
        let put = |argument: &&str| argument.replace("@KEY", public).replace('@', place);
        let arguments: Vec<_> = arguments.iter().map(put).collect();
        let said = stderr(folder.path(), &arguments, *code);
        // Behind warnings, if there are any.
        let line = said.lines().last().and_then(|line| line.strip_prefix("beacon-relay: "));
        let line = line.unwrap_or_else(|| panic!("{arguments:?}: {said:?}"));
        println!("{}: {line}", arguments.join(" "));
        assert_plain(&arguments.join(" "), line);
        assert_names_a_way_out(line);
    }
}

#[test]
fn each_command_of_the_help_is_refused_here() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
    let help = String::from_utf8(command.arg("--help").output().unwrap().stdout).unwrap();
    let (_, commands) = help.split_once("Commands:\n").unwrap();
    let commands = commands.lines().take_while(|line| !line.is_empty());
    let commands = commands.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let commands: BTreeSet<_> = commands.filter(|name| !["", "help"].contains(name)).collect();

    let refused = REFUSED.iter().filter_map(|(arguments, _)| arguments.first().copied());
    let refused: BTreeSet<_> = refused.collect();

    let missing: Vec<_> = commands.difference(&refused).collect();
    assert!(commands.len() > 25 && missing.is_empty(), "{missing:?}");
}
