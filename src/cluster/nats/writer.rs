//! What goes to one member: our terms first, then words and packets, each lane on its own.
//!
//! The lanes wait until the member has told its terms: what they carry belongs to the
//! membership that those name, and should the member forget it, we get to know. While no
//! connection is up, batches stay in the outbox, which knows their age.

use std::sync::Arc;

use async_nats::{Client, Subject};
use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::sync::{Notify, watch};
use tokio::{join, select, time};

use super::members::{Members, Signals};
use super::message::{PACKETS, WORDS};
use crate::cluster::{Batch, Member};

/// One member, with what it takes to write to it.
struct Writer {
    members: Arc<Members>,
    member: Arc<Member>,
    subject: Subject,
    link: watch::Receiver<Option<Client>>,
    /// Why the membership ends with the task.
    end: &'static str,
}

/// Writes to a member for as long as it is one; ends the membership once the member is to go.
pub(super) async fn run(members: Arc<Members>, member: Arc<Member>, signals: Arc<Signals>) {
    let subject = members.subjects.to(member.relay);
    let link = members.client.subscribe();
    let mut writer = Writer { members, member, subject, link, end: "failed" };
    let ending = &writer.member.ending;
    // A lane ends by itself: a batch that it holds has to be accounted for.
    join!(ending.run_until_cancelled(writer.keep_telling(&signals.asked)), async {
        ending.run_until_cancelled(signals.paired.wait()).await;
        join!(writer.lane(WORDS), writer.lane(PACKETS));
    },);
    writer.end = "silent";
}

/// Ends the membership however the task ends: a member to which nobody writes would never
/// leave.
impl Drop for Writer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.members.cluster.counters().panics.increment();
            tracing::error!(relay = %self.member.relay, "the writer to a member has failed");
        }
        self.members.end(&self.member, self.end);
    }
}

impl Writer {
    /// Tells the member our terms: at once, whenever it asks, and until it knows them.
    async fn keep_telling(&self, asked: &Notify) {
        loop {
            let again = self.tell_terms().await;
            select! {
                () = asked.notified() => {}
                () = time::sleep(self.members.cluster.identity().keepalive), if again => {}
            }
        }
    }

    /// Tells the member our terms; true if it may not know them.
    async fn tell_terms(&self) -> bool {
        let mut link = self.link.clone();
        let Some(client) = connected(&mut link).await else { return false };
        let Some(beat) = self.members.beat_to(&self.member, &client) else { return false };
        // What is lost with its connection is said again.
        select! {
            told = client.publish(self.subject.clone(), beat.message()) => beat.asks || told.is_err(),
            _ = link.changed() => true,
        }
    }

    /// Moves the batches of one lane.
    async fn lane(&self, kind: u8) {
        let (ending, outbox) = (&self.member.ending, &self.member.outbox);
        let mut link = self.link.clone();
        let mut memory = BytesMut::new();
        loop {
            let client = ending.run_until_cancelled(connected(&mut link)).await;
            let Some(client) = client.flatten() else { return };
            let batch = select! {
                () = ending.cancelled() => return,
                _ = link.changed() => continue,
                batch = outbox.next_words(), if kind == WORDS => batch,
                batch = outbox.next_packets(), if kind == PACKETS => batch,
            };
            let Some(batch) = batch else { return };
            // A batch that the server does not take is an error here, too.
            let taken = select! {
                published = client.publish(self.subject.clone(), message(kind, &batch, &mut memory)) => {
                    published.is_ok()
                }
                () = ending.cancelled() => false,
                _ = link.changed() => false,
            };
            if taken {
                outbox.sent(batch);
            } else {
                outbox.lost(&batch);
            }
        }
    }
}

/// Waits for a connection; `None` when there will be none any more.
async fn connected(link: &mut watch::Receiver<Option<Client>>) -> Option<Client> {
    link.wait_for(Option::is_some).await.ok()?.clone()
}

/// The message of a batch, in the memory of the one before where the client has written that.
fn message(kind: u8, batch: &Batch, memory: &mut BytesMut) -> Bytes {
    memory.reserve(1 + batch.bytes.len());
    memory.put_u8(kind);
    memory.put_slice(&batch.bytes);
    memory.split().freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::nats::tests::{SHORT, cluster, id};
    use crate::wire::cluster::{MAX_BATCH, Run};
    use crate::wire::name::testing::name;

    #[tokio::test]
    async fn messages_of_full_batches_need_no_memory_of_their_own() {
        let member = cluster(1, SHORT).joined(id(2), String::new());
        let run = Run { dest: name(7), sender: name(1), epoch: 1 };
        let mut memory = BytesMut::new();
        let mut places = Vec::new();
        for _ in 0..3 {
            let payloads = [&[0; 1_200][..]; MAX_BATCH / 1_210];
            member.outbox.push(&run, payloads.into_iter(), std::time::Instant::now());
            let batch = member.outbox.next_packets().await.unwrap();
            let message = message(PACKETS, &batch, &mut memory);
            assert_eq!(message[0], PACKETS);
            assert_eq!(message[1..], batch.bytes);
            places.push(message.as_ptr());
            member.outbox.sent(batch);
        }
        assert_eq!(places, [places[0]; 3]);
    }
}
