//! The bounded queue of log lines, and the thread that writes them.
//!
//! Whoever logs appends its line and goes on: a log that nobody reads, or a disk that takes
//! nothing, stops nobody. A line that finds no room is lost and counted; how many were is said
//! in the log as soon as lines can be written again.

use std::io::{self, ErrorKind, Write};
use std::mem;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use prometheus::proto::MetricFamily;
use tokio::sync::watch;
use tracing::warn;
use tracing_subscriber::fmt::MakeWriter;

use crate::metrics::{Labelled, family};
use crate::words;

/// Most that waits to be written, in bytes: about 25,000 lines.
pub const MAX_QUEUED: usize = 4 << 20;

/// Memory that is kept for further lines once the queue is empty, in bytes.
const KEPT: usize = 64 << 10;

/// Pause before a stream that is set not to block is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(10);

words! {
    /// Why a line was lost.
    enum Loss {
        /// It found no room: what came before had not been written.
        Full => "queue_full",
        /// The stream refused it.
        Failed => "write_failed",
    }
}

/// A queue of log lines with its thread. A clone is another handle of the same queue.
#[derive(Clone, Debug)]
pub struct LogWriter(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    max_queued: usize,
    queue: Mutex<Queue>,
    /// There is something to write.
    filled: Condvar,
    /// Everything was written.
    emptied: Condvar,
    lost: Labelled<Loss>,
    /// Closed once the thread has ended.
    running: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Queue {
    pending: Vec<u8>,
    /// Bytes that the thread has taken and not yet written.
    in_flight: usize,
    /// Lines that were lost, and of which nothing was said yet.
    unsaid: u64,
}

impl LogWriter {
    /// A queue of at most `max_queued` bytes, written to `stream` by a thread of its own that
    /// lives as long as the process.
    ///
    /// # Errors
    /// The system has no room for a thread.
    pub fn start(stream: impl Write + Send + 'static, max_queued: usize) -> io::Result<Self> {
        Self::start_saying(stream, max_queued, |lines| {
            warn!(lines, "log lines were lost: they were not taken in time");
        })
    }

    /// The same; `say_lost` hears how many lines were lost, once lines are written again.
    fn start_saying(
        mut stream: impl Write + Send + 'static,
        max_queued: usize,
        say_lost: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Self> {
        let (running, watched) = watch::channel(());
        let shared = Arc::new(Shared {
            max_queued,
            queue: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            lost: Labelled::default(),
            running,
        });
        let writing = Arc::clone(&shared);
        thread::Builder::new().name("log".to_owned()).spawn(move || {
            let _until_the_end = watched;
            writing.write_to(&mut stream, say_lost);
        })?;
        Ok(Self(shared))
    }

    /// Waits until everything was written, for `limit` at most; whether it was.
    pub fn flush(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        let mut queue = self.0.queue.lock();
        while queue.queued() > 0 {
            if self.0.emptied.wait_until(&mut queue, end).timed_out() {
                return queue.queued() == 0;
            }
        }
        true
    }

    /// Waits until the thread has ended, which only a bug of ours makes it do.
    pub async fn failed(&self) {
        self.0.running.closed().await;
    }

    /// Appends the family of lost lines to a scrape.
    pub fn families(&self, families: &mut Vec<MetricFamily>) {
        families.push(family::labelled(
            "pilot_beacon_log_lines_lost_total",
            "Lines of the log that were not written, by reason.",
            "reason",
            &self.0.lost,
        ));
    }
}

/// One event is one call of `write`, which takes or loses all of it.
impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for LogWriter {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Queue {
    const fn queued(&self) -> usize {
        self.pending.len() + self.in_flight
    }
}

impl Shared {
    fn push(&self, line: &[u8]) {
        let mut queue = self.queue.lock();
        if queue.queued() + line.len() > self.max_queued {
            queue.unsaid += 1;
            drop(queue);
            self.lost.of(Loss::Full).increment();
            return;
        }
        let was_empty = queue.pending.is_empty();
        queue.pending.extend_from_slice(line);
        drop(queue);
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// Writes whatever comes, for ever.
    fn write_to(&self, stream: &mut impl Write, say_lost: impl Fn(u64)) {
        let mut batch = Vec::new();
        loop {
            self.take(&mut batch);
            let written = write_whole(stream, &batch);
            let mut queue = self.queue.lock();
            queue.in_flight = 0;
            match written {
                Ok(()) => {
                    let unsaid = mem::take(&mut queue.unsaid);
                    drop(queue);
                    if unsaid > 0 {
                        say_lost(unsaid);
                    }
                }
                Err(rest) => {
                    let lines = batch[rest..].iter().filter(|byte| **byte == b'\n').count() as u64;
                    queue.unsaid += lines;
                    drop(queue);
                    self.lost.of(Loss::Failed).add(lines);
                }
            }
            self.emptied.notify_all();
            batch.clear();
            batch.shrink_to(KEPT);
        }
    }

    /// Waits for lines and takes all that there are.
    fn take(&self, batch: &mut Vec<u8>) {
        let mut queue = self.queue.lock();
        while queue.pending.is_empty() {
            self.filled.wait(&mut queue);
        }
        mem::swap(&mut queue.pending, batch);
        queue.in_flight = batch.len();
    }
}

/// Writes all of `bytes`, however long that takes; else the position from which on nothing was.
fn write_whole(stream: &mut impl Write, bytes: &[u8]) -> Result<(), usize> {
    let mut written = 0;
    while written < bytes.len() {
        match stream.write(&bytes[written..]) {
            Ok(0) => return Err(written),
            Ok(length) => written += length,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Whoever shares the stream has set it so.
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(ASK_AGAIN),
            Err(_) => return Err(written),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A stream that takes a write when it is told to, or refuses it, and hands it on.
    struct Gate {
        open: mpsc::Receiver<bool>,
        written: mpsc::Sender<String>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if !self.open.recv().unwrap_or(true) {
                return Err(ErrorKind::StorageFull.into());
            }
            let _unread = self.written.send(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Gated {
        log: LogWriter,
        open: mpsc::Sender<bool>,
        written: mpsc::Receiver<String>,
        said: mpsc::Receiver<u64>,
    }

    fn gated(max_queued: usize) -> Gated {
        let (open, opened) = mpsc::channel();
        let (sender, written) = mpsc::channel();
        let (say, said) = mpsc::channel();
        let gate = Gate { open: opened, written: sender };
        let log = LogWriter::start_saying(gate, max_queued, move |lines| say.send(lines).unwrap());
        Gated { log: log.unwrap(), open, written, said }
    }

    fn lost(log: &LogWriter, loss: Loss) -> u64 {
        log.0.lost.of(loss).value()
    }

    /// Waits until the thread has taken what was pushed.
    fn wait_until_taken(log: &LogWriter) {
        let end = Instant::now() + PATIENCE;
        while !log.0.queue.lock().pending.is_empty() {
            assert!(Instant::now() < end, "the thread takes nothing");
            thread::yield_now();
        }
    }

    #[test]
    fn queue_takes_no_more_than_its_bound_and_counts_what_is_lost() {
        let Gated { log, open, written, said } = gated(10);
        log.0.push(b"1234\n");
        wait_until_taken(&log);
        // What is in flight counts as well.
        for line in ["abcd\n", "lost\n", "lost\n"] {
            log.0.push(line.as_bytes());
        }
        assert_eq!(lost(&log, Loss::Full), 2);
        assert!(!log.flush(Duration::from_millis(1)), "nothing can be written");

        for _ in 0..2 {
            open.send(true).unwrap();
        }
        assert!(log.flush(PATIENCE));
        assert_eq!(written.try_iter().collect::<String>(), "1234\nabcd\n");
        assert_eq!(said.recv_timeout(PATIENCE), Ok(2));
    }

    #[test]
    fn refused_lines_are_said_only_once_a_line_is_taken_again() {
        let Gated { log, open, written, said } = gated(100);
        log.0.push(b"refused\n");
        open.send(false).unwrap();
        assert!(log.flush(PATIENCE));
        log.0.push(b"refused\nas well\n");
        open.send(false).unwrap();
        assert!(log.flush(PATIENCE));
        assert_eq!(lost(&log, Loss::Failed), 3);
        assert!(said.try_recv().is_err(), "a line about it would fail as well, and so on");

        log.0.push(b"after\n");
        open.send(true).unwrap();
        assert_eq!(written.recv_timeout(PATIENCE).unwrap(), "after\n");
        assert_eq!(said.recv_timeout(PATIENCE), Ok(3));
    }

    #[test]
    fn stream_that_does_not_block_is_asked_again() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let log = LogWriter::start(ours, 1 << 20).unwrap();
        let line = [b'x'; 1_000];
        for _ in 0..1_000 {
            log.0.push(&line);
        }
        let mut read = vec![0; 1_000_000];
        io::Read::read_exact(&mut theirs, &mut read).unwrap();
        assert!(log.flush(PATIENCE));
        assert_eq!(lost(&log, Loss::Full) + lost(&log, Loss::Failed), 0);
    }
}
