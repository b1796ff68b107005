//! Backup and restore of messages, as docs/PEERBUS.md says.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use super::{Site, envelope, start};
use crate::harness::{PATIENCE, look_until};

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
}

/// Whether the audit log of a state folder is whole, and what is said of it.
fn verify(state: &Path, checkpoints: &Path) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
    command.args(["audit", "verify", "--state-dir"]).arg(state).arg("--checkpoint");
    let output = command.arg(checkpoints).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said.into_owned())
}

/// Has a peer send messages, each of which is stored.
fn send(site: &Site, numbers: std::ops::Range<u32>) {
    let mut bob = site.register_for_receipts("bob");
    for number in numbers {
        bob.say(&envelope(&format!("m{number}"), "bob", "alice", number));
        assert_eq!(bob.message()["result"], "stored");
    }
}

/// Has their recipient get these, and nothing else, and acknowledge so many of them.
fn receive(site: &Site, numbers: std::ops::Range<u32>, acknowledged: usize) {
    let (mut alice, _) = site.register("alice");
    let mut left = acknowledged;
    for number in numbers {
        let (key, body) = alice.delivery();
        assert_eq!((&*key, body), (&*format!("m{number}"), number.into()));
        if left > 0 {
            alice.acknowledge(&key);
            left -= 1;
        }
    }
    alice.settle();
    assert!(alice.is_silent());
    alice.leave();
}

#[test]
fn backup_is_restored_in_place_and_elsewhere_and_checkpoints_say_what_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = folder.path().join("checkpoints.jsonl");
    let flags = ["--audit-checkpoint-file", checkpoints.to_str().unwrap()];
    let mut site = Site::start(&flags);
    let state = site.state.path().to_owned();
    let backup = folder.path().join("bus.tar.gz");
    let tar = |folder: &Path, order: &str, more: &[&str]| {
        let of = ["-C", folder.to_str().unwrap(), order, backup.to_str().unwrap()];
        run("tar", &[&of[..], more].concat());
    };
    drop(site.register("alice"));
    send(&site, 0..10);

    // Back up.
    site.relay.signal("TERM");
    site.relay.wait_until_gone();
    tar(&state, "-czf", &["bus", "cluster.key"]);
    let then = folder.path().join("checkpoints of the backup");
    fs::copy(&checkpoints, &then).unwrap();
    site.start_again(&flags);
    send(&site, 10..15);
    receive(&site, 0..15, 3);

    // Restore.
    site.relay.signal("TERM");
    site.relay.wait_until_gone();
    assert!(verify(&state, &checkpoints).0);
    fs::remove_dir_all(state.join("bus")).unwrap();
    tar(&state, "-xzf", &[]);
    let (is_whole, said) = verify(&state, &checkpoints);
    assert!(!is_whole && said.contains("its end was cut off"), "{said}");
    assert!(verify(&state, &then).0, "it is that of the backup");
    let before = folder.path().join("checkpoints before the restore");
    fs::rename(&checkpoints, &before).unwrap();
    site.start_again(&flags);

    // What came after it is gone, and what was acknowledged after it comes again.
    receive(&site, 0..10, 10);
    send(&site, 10..15);
    receive(&site, 10..15, 5);
    site.relay.signal("TERM");
    site.relay.wait_until_gone();
    let (is_whole, said) = verify(&state, &checkpoints);
    assert!(is_whole && said.contains("tail proven"), "{said}");
    let (is_whole, said) = verify(&state, &before);
    assert!(!is_whole, "another log has taken the place of what is lost: {said}");

    // Onto another machine.
    let elsewhere = Arc::new(tempfile::tempdir().unwrap());
    tar(elsewhere.path(), "-xzf", &[]);
    let relay = start(&elsewhere, site.folder.path(), &[]);
    let address = relay.wss;
    let folder = tempfile::tempdir().unwrap();
    let other = Site { relay, address, state: elsewhere, folder };
    let whole = look_until(std::time::Instant::now() + PATIENCE, || {
        verify(other.state.path(), &then).0.then_some(())
    });
    assert!(whole.is_some(), "{:?}", verify(other.state.path(), &then));
    receive(&other, 0..10, 10);
}
