//! What the programs of a failed test have to say: CI shows nothing else of them.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use crate::harness::Relay;

/// Lines of a program's log that are shown.
const LINES: usize = 40;

/// Longest wait for a relay's metrics: it may be frozen, or be what has failed.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Families of metrics that say what became of packets and of the cluster.
const TELLING: [&str; 2] = ["pilot_beacon_packets_", "pilot_beacon_cluster_"];

/// Shows the end of a program's log if the test has failed.
pub(crate) fn show_log(name: &str, id: u32, log: &str) {
    if thread::panicking() {
        let skipped = log.lines().count().saturating_sub(LINES);
        let last: Vec<_> = log.lines().skip(skipped).collect();
        eprintln!("-- {name} ({id}), after {skipped} lines:\n{}", last.join("\n"));
    }
}

/// Its log follows, as that of any program.
impl Drop for Relay {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("-- relay {} ({}), what it has counted:", self.wss, self.id());
            let counted = |line: &&str| {
                let told = TELLING.iter().any(|family| line.starts_with(family));
                told && !line.contains("_bucket{") && !line.ends_with(" 0")
            };
            match scrape(self.admin) {
                Ok(text) => text.lines().filter(counted).for_each(|line| eprintln!("{line}")),
                Err(error) => eprintln!("no answer: {error}"),
            }
        }
    }
}

/// As the harness does it, but without a panic, which would end the whole run here.
fn scrape(admin: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&admin, ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {admin}\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}
