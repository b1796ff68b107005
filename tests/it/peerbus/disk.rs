//! Messages on a disk that is full, and on one that hangs.
//!
//! The folder of messages is a file system of its own in a mount namespace of its own, in which the
//! relay runs: for that the tests must run as root. A process in that namespace holds it; at the
//! end of its input it thaws the file system, and all is gone with the relay.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Adapter, Site, TOKENS, envelope, register, start_by, write_secret};
use crate::cells::assert_balance;
use crate::control::fail;
use crate::harness::{PATIENCE, http_get, look_until};
use crate::peer::UdpNode;

/// Time within which who asks is told that the disk cannot be used: 3 s, on a busy machine.
const TOLD: Duration = Duration::from_secs(8);

/// A file system of its own for the folder of messages, `bus` below another.
pub(super) struct Disk {
    /// Thaws at the end of its input, and ends.
    holder: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    folder: PathBuf,
}

impl Disk {
    /// One in memory, of so many bytes.
    pub(super) fn in_memory(state: &Path, bytes: u64) -> Self {
        Self::mount(state, &format!("mount -t tmpfs -o size={bytes} none \"$1\""))
    }

    /// One in a file, which can be frozen.
    fn in_file(state: &Path) -> Self {
        let image = state.join("image");
        fs::File::create(&image).unwrap().set_len(256 << 20).unwrap();
        let made = Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image).output();
        let made = made.expect("this test needs `mkfs.ext4` (e2fsprogs); `make setup` installs it");
        assert!(made.status.success(), "{made:?}");
        Self::mount(state, &format!("mount -o loop '{}' \"$1\"", image.display()))
    }

    fn mount(state: &Path, mount: &str) -> Self {
        let folder = state.join("bus");
        fs::create_dir(&folder).unwrap();
        // `lost+found` is none of the relay's.
        let script = format!(
            "set -e
            {mount}
            rm -rf \"$1/lost+found\"
            echo mounted
            while read -r order; do
                case $order in
                    freeze) fsfreeze --freeze \"$1\" ;;
                    thaw) fsfreeze --unfreeze \"$1\" ;;
                esac
                echo done
            done
            fsfreeze --unfreeze \"$1\" 2>/dev/null || true"
        );
        let mut holder = Command::new("unshare")
            .args(["--mount", "sh", "-c", &script, "sh"])
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = holder.stdin.take();
        let answers = BufReader::new(holder.stdout.take().unwrap());
        let mut disk = Self { holder, orders, answers, folder };
        assert_eq!(disk.answer(), "mounted\n", "this test mounts, for which it must run as root");
        disk
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line
    }

    fn order(&mut self, order: &str) {
        writeln!(self.orders.as_ref().unwrap(), "{order}").unwrap();
        assert_eq!(self.answer(), "done\n");
    }

    /// Lets the disk take nothing more, until it is thawed.
    fn freeze(&mut self) {
        self.order("freeze");
    }

    fn thaw(&mut self) {
        self.order("thaw");
    }

    /// The relay's program, where the disk is.
    fn command(&self) -> Command {
        self.command_of(env!("CARGO_BIN_EXE_beacon-relay"))
    }

    /// A program, where the disk is.
    pub(super) fn command_of(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id()));
        command.arg(program);
        command
    }

    /// A file of the disk, as it is seen from here.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.folder.strip_prefix("/").unwrap()).join(name)
    }

    /// Bytes that are free.
    fn free(&self) -> u64 {
        let of = rustix::fs::statvfs(self.file(".")).unwrap();
        of.f_bavail * of.f_frsize
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.orders.take());
        // It ends when it has thawed what was frozen.
        let _ = self.holder.wait();
    }
}

impl Site {
    /// A relay whose messages are on this disk.
    fn on(disk: impl FnOnce(&Path) -> Disk, more: &[&str]) -> (Self, Disk) {
        let (state, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let state = Arc::new(state);
        write_secret(&folder.path().join("tokens"), TOKENS);
        let disk = disk(state.path());
        let relay = start_by(disk.command(), &state, folder.path(), more);
        (Self { address: relay.wss, relay, state, folder }, disk)
    }

    fn start_again_on(&mut self, disk: &Disk, more: &[&str]) {
        self.relay.wait_until_gone();
        self.relay = start_by(disk.command(), &self.state, self.folder.path(), more);
        self.address = self.relay.wss;
    }

    /// What `/readyz` says of the bus, once it says this.
    pub(super) fn wait_for_bus(&self, expected: &str) -> String {
        let mut last = String::new();
        let found = look_until(Instant::now() + PATIENCE, || {
            last = http_get(self.relay.admin, "/readyz?verbose").1;
            last.lines().find(|line| line.contains(expected)).map(str::to_owned)
        });
        found.unwrap_or_else(|| panic!("no {expected:?} in {last}\n{}", self.relay.log()))
    }

    /// Whether all who ask are told within seconds that the disk is full.
    fn is_full(&self, disk: &Disk) -> bool {
        let said = "the disk is full: new messages wait or are refused";
        let end = Instant::now() + Duration::from_secs(3);
        let is_ready = || http_get(self.relay.admin, "/readyz?verbose").1.contains(said);
        if look_until(end, || is_ready().then_some(())).is_none() {
            return false;
        }
        let counted = self.relay.metric("beacon_relay_bus_store_full");
        let mut doctor = disk.command();
        doctor.args(["doctor", "--state-dir"]).arg(self.state.path());
        doctor.args(["--peerbus-bind", "127.0.0.1:0", "--peerbus-tokens-file"]);
        let doctor = doctor.arg(self.folder.path().join("tokens")).output().unwrap();
        counted > 0.0 && String::from_utf8_lossy(&doctor.stdout).contains("make room")
    }

    /// The disk cannot be used: all who ask are told so in time.
    fn assert_told(&self) {
        let began = Instant::now();
        let (_, said) = fail(self.state.path(), &["queues"]);
        assert!(said.contains("messages cannot be stored") && said.contains(" s"), "{said}");
        let refused = self.refused("tok", "newcomer");
        assert_eq!(refused, (1011, "peer persistence failed".to_owned()));
        assert!(began.elapsed() < 2 * TOLD, "{:?}", began.elapsed());
        let unavailable = "beacon_relay_bus_store_unavailable";
        self.relay.wait_for_metric(unavailable, 1.0);
        assert_eq!(http_get(self.relay.admin, "/healthz").0, 200);
    }
}

pub(super) fn receipt(sender: &mut Adapter, id: &str) -> (String, String) {
    let receipt = sender.message();
    assert_eq!((&receipt["type"], &receipt["id"]), (&"receipt".into(), &id.into()), "{receipt}");
    let word = |member: &str| receipt[member].as_str().unwrap().to_owned();
    (word("result"), word("reason"))
}

fn verify(disk: &Disk, state: &Path) -> Output {
    disk.command().args(["audit", "verify", "--state-dir"]).arg(state).output().unwrap()
}

/// Leaves so many bytes of the disk to others than this file.
pub(super) fn fill_but(disk: &Disk, bytes: u64) {
    let file = fs::File::options().create(true).append(true).open(disk.file("ballast")).unwrap();
    while disk.free() > bytes {
        let more = vec![1; usize::try_from((disk.free() - bytes).min(1 << 20)).unwrap()];
        if (&file).write_all(&more).is_err() {
            break;
        }
    }
}

#[test]
fn full_disk_refuses_what_is_new_and_all_goes_on_when_there_is_room() {
    let (mut site, disk) = Site::on(|state| Disk::in_memory(state, 96 << 20), &[]);
    drop(site.register("recipient"));
    let mut sender = site.register_for_receipts("sender");
    let (mut patient, _) = site.register("patient");
    fill_but(&disk, 40 << 20);
    // The relay looks once a second what others have left of the disk.
    let seen = look_until(Instant::now() + PATIENCE, || {
        let free = site.relay.metric("beacon_relay_bus_store_free_bytes");
        (free < f64::from(41 << 20)).then_some(())
    });
    assert!(seen.is_some(), "{}", site.relay.log());

    // New messages are refused, with the reason, and all say so.
    let body = "x".repeat(16_000);
    let mut stored = 0;
    loop {
        let id = format!("m{stored}");
        sender.say(&envelope(&id, "sender", "recipient", &*body));
        let outcome = receipt(&mut sender, &id);
        if outcome == ("refused".to_owned(), "store_full".to_owned()) {
            // There may be room again, when what was in memory has become files.
            if site.is_full(&disk) {
                break;
            }
            continue;
        }
        assert_eq!(outcome.0, "stored", "{outcome:?}");
        stored += 1;
        assert!(stored < 4_000, "more than the disk holds");
    }
    assert!(stored > 100, "{stored}");

    // Logins and acknowledgements go on.
    let (mut recipient, _) = site.register("recipient");
    site.register("newcomer of a full disk");
    let acknowledged = 50;
    for number in 0..acknowledged {
        let (key, _) = recipient.delivery();
        assert_eq!(key, format!("m{number}"));
        recipient.acknowledge(&key);
    }
    let removed = "beacon_relay_bus_removed_total{reason=\"acknowledged\"}";
    site.relay.wait_for_metric(removed, f64::from(acknowledged));
    drop(recipient);

    // Nothing at all is free: all wait, and nobody is told that something is safe.
    fill_but(&disk, 0);
    patient.say(&envelope("p0", "patient", "recipient", "no receipt"));
    sender.say(&envelope("last", "sender", "recipient", &*body));
    let mut logins = Vec::new();
    let broken = look_until(Instant::now() + PATIENCE, || {
        // There is a little room in what the disk has begun.
        fill_but(&disk, 0);
        let mut login = Adapter::connect(site.address);
        login.say(&register("tok", &format!("{} {}", logins.len(), &body[..1_000])));
        logins.push(login);
        (site.relay.metric("beacon_relay_bus_store_unavailable") > 0.0).then_some(())
    });
    assert!(broken.is_some(), "the disk has room:\n{}", site.relay.log());
    site.wait_for_bus("messages cannot be stored");
    site.assert_told();

    // Room is made: all goes on.
    fs::remove_file(disk.file("ballast")).unwrap();
    site.wait_for_bus("takes messages");
    let mut outcome = receipt(&mut sender, "last");
    if outcome.0 == "refused" {
        sender.say(&envelope("last", "sender", "recipient", &*body));
        outcome = receipt(&mut sender, "last");
    }
    assert_eq!(outcome.0, "stored");
    let (mut recipient, _) = site.register("recipient");
    let mut keys = Vec::new();
    while !keys.contains(&"last".to_owned()) || !keys.contains(&"p0".to_owned()) {
        let (key, _) = recipient.delivery();
        recipient.acknowledge(&key);
        keys.push(key);
    }
    keys.retain(|key| key != "p0");
    let expected = (acknowledged..stored).map(|number| format!("m{number}"));
    assert!(keys.iter().cloned().eq(expected.chain(["last".to_owned()])), "{keys:?}");
    site.relay.wait_for_metric("beacon_relay_bus_messages", 0.0);

    site.relay.signal("TERM");
    site.relay.wait_until_gone();
    let verified = verify(&disk, site.state.path());
    assert!(verified.status.success(), "{verified:?}");
}

#[test]
fn hung_disk_holds_messages_and_nothing_else_and_they_go_on_when_it_answers() {
    let (mut site, mut disk) = Site::on(Disk::in_file, &[]);
    let mut alice = site.register_for_receipts("alice");
    let mut bob = site.register_for_receipts("bob");
    let (here, there) =
        (UdpNode::register(site.relay.udp, 21), UdpNode::register(site.relay.udp, 22));
    let say = |bob: &mut Adapter, number: u32| {
        bob.say(&envelope(&format!("m{number}"), "bob", "alice", number));
    };
    for number in 0..5 {
        say(&mut bob, number);
        assert_eq!(receipt(&mut bob, &format!("m{number}")).0, "stored");
        assert_eq!(alice.delivery().1, Value::from(number));
    }
    // So many that it may be the thread of sessions whose commit hangs.
    for number in 0..400 {
        let id = format!("brisk{number}");
        bob.say(&envelope(&id, "bob", "alice", number));
        assert_eq!(receipt(&mut bob, &id).0, "stored");
        let (key, _) = alice.delivery();
        alice.acknowledge(&key);
    }

    disk.freeze();
    for number in 5..15 {
        say(&mut bob, number);
    }
    // Nobody is told what is not so, and the others are served.
    let began = Instant::now();
    let mut told = false;
    while !told || began.elapsed() < Duration::from_secs(4) {
        here.relay(22, b"packet");
        assert_eq!(there.delivery(), (21, b"packet".to_vec()));
        alice.peer.send(9, b"ping");
        assert_eq!(alice.peer.read(), Some((10, b"ping".to_vec())));
        assert!(bob.peer.is_silent(Duration::from_millis(100)), "a receipt of what is not safe");
        let asked = Instant::now();
        assert_eq!(http_get(site.relay.admin, "/healthz").0, 200);
        told = site.relay.metric("beacon_relay_bus_store_unavailable") > 0.0;
        assert!(asked.elapsed() < TOLD, "{:?}", asked.elapsed());
        assert!(began.elapsed() < PATIENCE, "nobody says that the disk hangs");
    }
    let said = site.wait_for_bus("the disk does not answer");
    assert!(said.contains("messages cannot be stored"), "{said}");
    site.assert_told();

    disk.thaw();
    for number in 5..15 {
        assert_eq!(receipt(&mut bob, &format!("m{number}")).0, "stored");
        let (key, body) = alice.delivery();
        assert_eq!(body, Value::from(number));
        alice.acknowledge(&key);
    }
    site.wait_for_bus("takes messages");
    alice.settle();
    assert_balance(&site.relay);

    // A relay that is to end does not wait for the disk for ever.
    disk.freeze();
    for number in 15..20 {
        say(&mut bob, number);
    }
    site.relay.wait_for_metric("beacon_relay_bus_store_unavailable", 1.0);
    let began = Instant::now();
    site.relay.signal("TERM");
    site.relay.wait_for_line("its disk takes nothing");
    site.relay.wait_for_line("stopped");
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    disk.thaw();

    // What had a receipt is there; what had none is there or not, and comes once.
    site.start_again_on(&disk, &[]);
    let mut bob = site.register_for_receipts("bob");
    for number in 15..20 {
        say(&mut bob, number);
        let (result, _) = receipt(&mut bob, &format!("m{number}"));
        assert!(["stored", "duplicate"].contains(&&*result), "{result}");
    }
    let (mut alice, _) = site.register("alice");
    for number in (0..5).chain(15..20) {
        let (key, body) = alice.delivery();
        assert_eq!(body, Value::from(number));
        alice.acknowledge(&key);
    }
    alice.settle();
    site.relay.wait_for_metric("beacon_relay_bus_messages", 0.0);
    site.relay.signal("TERM");
    site.relay.wait_until_gone();
    let verified = verify(&disk, site.state.path());
    assert!(verified.status.success(), "{verified:?}");
}
