//! Messages that move from the state folder to NATS and back, while peers go on trying.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Instant;

use super::Site;
use super::jetstream::Engine;
use super::kills;
use super::traffic::Ends;

fn move_to(target: &str, state: &Path, engine: &Engine) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
    command.args(["bus", "move", "--to", target, &engine.flag(), "--state-dir"]).arg(state);
    command.output().unwrap()
}

#[test]
fn messages_move_to_nats_and_back_under_traffic() {
    let engine = Engine::start();
    let nats = engine.flag();
    let mut site = Site::start(&[]);
    let refused = move_to("nats", site.state.path(), &engine);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && said.contains("stop it first"), "{said}");

    let state = site.state.path().to_owned();
    let [mut longest, mut moves] = [0.0_f64, 0.0];
    let receipts = kills::under_traffic(&mut site, 200..201, 0, |site, number| {
        let target = if number % 2 == 0 { "nats" } else { "embedded" };
        let began = Instant::now();
        site.relay.signal("TERM");
        site.relay.wait_until_gone();
        let moved = move_to(target, &state, &engine);
        assert!(moved.status.success(), "{moved:?}");
        println!("{}", String::from_utf8(moved.stdout).unwrap().trim());
        let flags: &[&str] = if target == "nats" { &[&nats] } else { &[] };
        site.start_again(flags);
        let pause = began.elapsed().as_secs_f64();
        println!("to {target}: nobody was served for {pause:.2} s");
        longest = longest.max(pause);
        moves += 1.0;
        if number < 3 { Ends::No } else { Ends::Now }
    });
    println!("{moves} moves under {receipts} receipts, {longest:.2} s at most");

    // What is there already is not written over.
    site.relay.signal("TERM");
    site.relay.wait_until_gone();
    let verified = Command::new(env!("CARGO_BIN_EXE_beacon-relay"))
        .args(["audit", "verify", "--state-dir", state.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(verified.status.success(), "{verified:?}");
    let empty = move_to("embedded", &state, &engine);
    let said = String::from_utf8(empty.stderr).unwrap();
    assert!(!empty.status.success() && said.contains("there are messages already"), "{said}");
}
