//! What commits and waiting messages cost: run by hand, in release.

use std::io::Write as _;

use rustix::time::{ClockId, clock_gettime};

use super::*;

fn cpu() -> f64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}

fn memory_kb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn say(text: &str) {
    writeln!(std::io::stdout(), "{text}").unwrap();
}

/// A send, a delivery and an acknowledgement of each of so many messages.
fn life(first: u64, batch: u64) -> [Commit; 2] {
    let messages: Vec<_> = (first..first + batch).map(|seq| message("alice", seq, 256)).collect();
    let mut sent: Vec<_> =
        (first..).zip(&messages).map(|(seq, message)| append(1, seq, message)).collect();
    sent.push(level(1, first, first + batch));
    let origins = messages.iter().map(|message| message.origin).collect();
    sent.push(Change::Accepted { number: first, at: Millis(first), origins });
    let mut gone: Vec<_> =
        (first..).zip(&messages).map(|(seq, message)| remove(1, seq, message)).collect();
    gone.push(level(1, first + batch, first + batch));
    gone.push(Change::ForgetAccepted { before: first.saturating_sub(1_000) });
    let of = |from: u64, count: u64| (from..from + count).map(entry).collect();
    [
        Commit { changes: sent, audit: of(3 * first, 2 * batch) },
        Commit { changes: gone, audit: of(3 * first + 2 * batch, batch) },
    ]
}

#[test]
#[ignore = "takes long, and prints figures"]
fn commits_of_messages() {
    for (name, handover, syncs) in [
        ("on the disk", Handover::Kernel, true),
        ("with the kernel", Handover::Kernel, false),
        ("in the process", Handover::Process, false),
    ] {
        for batch in [1, 16] {
            let folder = tempfile::tempdir_in(".").unwrap();
            let store = Embedded::open(folder.path(), handover).unwrap();
            let began = Instant::now();
            let began_cpu = cpu();
            let mut commits = 0;
            let mut first = 1;
            while began.elapsed() < Duration::from_secs(4) {
                for commit in life(first, batch) {
                    store.commit(&commit).unwrap();
                    if syncs && commit.is_awaited() {
                        store.sync().unwrap();
                    }
                    commits += 1;
                }
                first += batch;
            }
            let seconds = began.elapsed().as_secs_f64();
            let rate = f64::from(commits) / seconds;
            let each = (cpu() - began_cpu) / f64::from(commits) * 1e6;
            say(&format!("{name}, batch {batch}: {rate:.0} commits/s, {each:.1} us CPU each"));
        }
    }
}

#[test]
#[ignore = "takes long, and prints figures"]
fn million_messages_that_wait() {
    const MAILBOXES: u64 = 1_000;
    let folder = tempfile::tempdir_in(".").unwrap();
    let store = Embedded::open(folder.path(), Handover::Kernel).unwrap();
    say(&format!("open: {} kB", memory_kb()));
    let mut most = 0;
    let began = Instant::now();
    for mailbox in 1..=MAILBOXES {
        commit(&store, vec![Change::Name(named(mailbox, &format!("agent-{mailbox}")))]);
    }
    let mut logged = 0;
    for seq in 1..=1_000 {
        for first in (1..=MAILBOXES).step_by(50) {
            let mailboxes = first..first + 50;
            let changes: Vec<_> = mailboxes
                .flat_map(|to| {
                    [append(to, seq, &message("alice", seq, 256)), level(to, 1, seq + 1)]
                })
                .collect();
            let audit = (logged..logged + 50).map(entry).collect();
            logged += 50;
            store.commit(&Commit { changes, audit }).unwrap();
        }
        most = most.max(memory_kb());
    }
    say(&format!("written in {:?}: at most {most} kB, now {} kB", began.elapsed(), memory_kb()));
    say(&format!("{:?}", store.space().unwrap()));
    let before = cpu();
    drop(store);
    let began = Instant::now();
    let store = Embedded::open(folder.path(), Handover::Kernel).unwrap();
    let recovered = store.recover().unwrap();
    assert_eq!(recovered.names.len() as u64, MAILBOXES);
    say(&format!("opened in {:?}, {} kB, cpu {:.2}", began.elapsed(), memory_kb(), cpu() - before));
    let mut slowest = Duration::ZERO;
    for mailbox in (1..=MAILBOXES).step_by(7) {
        let began = Instant::now();
        let read = store.read(MailboxId(mailbox), Seq(1), Most { messages: 256, bytes: 1 << 20 });
        assert_eq!(read.unwrap().stored.len(), 256);
        slowest = slowest.max(began.elapsed());
    }
    say(&format!("first 256 of a mailbox in at most {slowest:?}, {} kB", memory_kb()));
    let began = Instant::now();
    for number in 0..100_000_u64 {
        let key = Digest::of_key(&format!("missing {number}"));
        assert_eq!(store.find(MailboxId(1 + number % MAILBOXES), key).unwrap(), None);
    }
    say(&format!("find of what is not there: {:?} each", began.elapsed() / 100_000));
}
