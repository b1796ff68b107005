//! `beacon-relay connect`: a node at the terminal. Lines or a file go out, deliveries come in.

use std::fmt::Write as _;
use std::fs::File;
use std::future::pending;
use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{interval, timeout};

use crate::client::receiver::Receiver;
use crate::client::{
    ConnectError, Delivery, Interruption, LoginError, MAX_PAYLOAD, Options, Proxy, ProxyError,
    Reconnecting, Sender, State, Target, read_key,
};
use crate::config::{parse_duration, remedy};
use crate::ids::{NodeId, PublicKey};
use crate::net::tls::Trust;

/// Bytes of a file in one packet.
const CHUNK: usize = 1_200;

/// Packets of a file each millisecond: 3,000 a second, below the relay's default of 4,000.
const CHUNKS_PER_TICK: u32 = 3;

/// Packets read ahead of the session.
const READ_AHEAD: usize = 16;

/// Longest wait for the session to end after a signal.
const GRACE: Duration = Duration::from_secs(2);

/// What `connect` is told.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// `wss://host[:port][/path]` or `ws://…`; the path is /v1/compat if there is none
    pub url: String,
    /// This node's id
    #[arg(long, value_name = "N")]
    pub node_id: NodeId,
    /// File with this node's key, as `beacon-relay keygen --out FILE` writes it
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub key: PathBuf,
    /// Node to which the lines of stdin go, one packet each; without it, only receive
    #[arg(long, value_name = "M")]
    pub to: Option<NodeId>,
    /// Sends this file in packets of 1,200 bytes instead of stdin
    #[arg(long, value_name = "PATH", requires = "to", value_hint = clap::ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// PEM file of the certificate authorities to trust instead of the system's
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub ca: Option<PathBuf>,
    /// Another public name than the host of the URL that the relay may have; it must have one
    #[arg(long, value_name = "NAME")]
    pub relay_name: Option<String>,
    /// HTTP proxy to go through, `http://[user:password@]host:port`, or `none`; without it, that of
    /// https_proxy or all_proxy, but for no_proxy
    #[arg(long, value_name = "URL")]
    pub proxy: Option<Proxy>,
    /// Writes the payloads' bytes only, without sender, escapes or line ends
    #[arg(long)]
    pub raw: bool,
    /// End after the first delivery; with --to, after the first of that node once the input is sent
    #[arg(long)]
    pub once: bool,
    /// Fail if --once gets nothing within this time, such as 5s
    #[arg(long, value_name = "TIME", requires = "once", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
}

/// Runs until the input is sent, or without `--to` until a signal; with `--once`, until the first
/// delivery.
///
/// # Errors
/// A key, CA or input file that is of no use; a relay that refuses this node; nothing came in time.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let options = options(&args)?;
    let public_key = PublicKey(options.key.verifying_key().to_bytes());
    let explain = |error: &ConnectError| anyhow!("{}", advice(error, &args, public_key));
    let input = args.to.map(|dest| open(&args).map(|input| (dest, input))).transpose()?;
    let reconnecting = Reconnecting::start(options).map_err(|error| explain(&error))?;
    let (sender, mut receiver, state) = reconnecting.split();

    let sending = async {
        match input {
            Some((dest, input)) => {
                feed(&sender, dest, input).await?;
                // Who waits for an answer stays for it.
                if !args.once {
                    sender.bye().await;
                }
            }
            None => pending().await,
        }
        // The session goes on until the bye has left: its end is the receiver's.
        pending::<anyhow::Result<()>>().await
    };
    let printing = async {
        if args.once {
            first(&mut receiver, &args).await
        } else {
            print(&mut receiver, args.raw).await
        }
    };
    tokio::select! {
        printed = printing => {
            if !args.once || printed.is_err() {
                return printed;
            }
        }
        sent = sending => return sent,
        refused = report(state, &args, &explain) => return Err(refused),
        stopped = stop() => stopped?,
    }
    let leaving = async {
        sender.bye().await;
        if args.once {
            while receiver.recv().await?.is_some() {}
            return Ok(());
        }
        print(&mut receiver, args.raw).await
    };
    let left = timeout(GRACE, leaving).await.unwrap_or(Ok(()));
    // What came after the first is nobody's concern.
    if args.once { Ok(()) } else { left }
}

fn options(args: &Args) -> anyhow::Result<Options> {
    let file = read_key(&args.key)?;
    if file.exposed {
        let path = args.key.display();
        eprintln!("warning: others can read the key: chmod 600 {path}");
    }
    let mut options = Options::new(&args.url, args.node_id, file.key);
    if let Some(path) = &args.ca {
        options.trust = Trust::CaFile(path.clone());
    }
    options.proxy = args.proxy.clone().unwrap_or_default();
    let target = Target::parse(&args.url).ok();
    if let Some(variable) = target.and_then(|target| options.proxy.passed_over(&target)) {
        eprintln!("warning: {variable} is passed over: it names no HTTP proxy");
    }
    // Who says which name to expect does not want a relay without one.
    options.require_relay_name = args.relay_name.is_some();
    options.relay_name.clone_from(&args.relay_name);
    Ok(options)
}

/// Packets as they are read, by a thread of their own: a terminal can block for ever.
type Input = mpsc::Receiver<io::Result<Vec<u8>>>;

fn open(args: &Args) -> anyhow::Result<Input> {
    let (packets, input) = mpsc::channel(READ_AHEAD);
    match &args.file {
        Some(path) => {
            let context = |error| cannot_read(path, &error);
            let mut file = File::open(path).map_err(context)?;
            thread::spawn(move || read(&packets, || chunk(&mut file)));
        }
        None => {
            thread::spawn(move || read(&packets, || line(&mut io::stdin().lock())));
        }
    }
    Ok(input)
}

fn cannot_read(path: &Path, error: &io::Error) -> anyhow::Error {
    anyhow!("cannot read --file {}: {error}; {}", path.display(), remedy(error))
}

/// Hands on what `next` reads until its end, an error, or nobody wants more.
fn read(
    packets: &mpsc::Sender<io::Result<Vec<u8>>>,
    mut next: impl FnMut() -> io::Result<Option<Vec<u8>>>,
) {
    while let Some(packet) = next().transpose() {
        let failed = packet.is_err();
        if packets.blocking_send(packet).is_err() || failed {
            return;
        }
    }
}

fn chunk(file: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut chunk = Vec::with_capacity(CHUNK);
    file.take(CHUNK as u64).read_to_end(&mut chunk)?;
    Ok(Some(chunk).filter(|chunk| !chunk.is_empty()))
}

fn line(input: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    // One byte more for the line end.
    if input.take(MAX_PAYLOAD as u64 + 1).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    if line.len() > MAX_PAYLOAD {
        let text = format!("a line is longer than the {MAX_PAYLOAD} bytes that a packet holds");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(Some(line))
}

/// Sends packets at a pace that the relay's default limit allows.
async fn feed(sender: &Sender, dest: NodeId, mut input: Input) -> anyhow::Result<()> {
    let mut tick = interval(Duration::from_millis(1));
    loop {
        tick.tick().await;
        for _ in 0..CHUNKS_PER_TICK {
            let Some(packet) = input.recv().await else { return Ok(()) };
            let packet = packet.context("cannot read the input")?;
            sender.send_to(dest, &packet).await?;
        }
    }
}

/// Prints deliveries until the session is over for good.
async fn print(receiver: &mut Receiver<Delivery, Interruption>, raw: bool) -> anyhow::Result<()> {
    while let Some(delivery) = receiver.recv().await? {
        write(&delivery, raw)?;
    }
    Ok(())
}

fn write(delivery: &Delivery, raw: bool) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    if raw {
        out.write_all(&delivery.payload).and_then(|()| out.flush())
    } else {
        writeln!(out, "{}", text(delivery))
    }
    .context("cannot write to stdout")
}

/// Prints the first delivery, of `--to` where that is given.
async fn first(receiver: &mut Receiver<Delivery, Interruption>, args: &Args) -> anyhow::Result<()> {
    let waiting = async {
        while let Some(delivery) = receiver.recv().await? {
            if args.to.is_none_or(|node| node == delivery.sender) {
                return write(&delivery, args.raw);
            }
        }
        Err(anyhow!("the session has ended before anything came; the relay's log says why"))
    };
    let Some(time) = args.timeout else { return waiting.await };
    timeout(time, waiting).await.unwrap_or_else(|_| Err(anyhow!("{}", silence(args, time))))
}

/// Why nothing may have come.
fn silence(args: &Args, time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match args.to {
        Some(node) => format!(
            "no answer of node {node} within {seconds} s: nobody has taken the packet, or who took it \
             does not answer; at the relay, `beacon-relay explain {node}` says whether the node is \
             there and why packets were dropped"
        ),
        None => format!(
            "nothing came within {seconds} s: `beacon-relay explain {}` at the relay says what was \
             dropped on the way",
            args.node_id
        ),
    }
}

/// One line, whatever the payload holds: `<sender>\t<payload>`.
fn text(delivery: &Delivery) -> String {
    let mut text = format!("{}\t", delivery.sender);
    for chunk in delivery.payload.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' | '\'' => text.push(character),
                other => text.extend(other.escape_debug()),
            }
        }
        for byte in chunk.invalid() {
            write!(text, "\\x{byte:02x}").expect("a String takes everything");
        }
    }
    text
}

/// Tells on stderr how the session is; ends when the first login needs a person's attention.
async fn report(
    mut state: watch::Receiver<State>,
    args: &Args,
    explain: &impl Fn(&ConnectError) -> anyhow::Error,
) -> anyhow::Error {
    let mut first = true;
    loop {
        match &*state.borrow_and_update() {
            State::Connecting => {}
            State::Connected => {
                first = false;
                eprintln!("connected to {} as node {}", args.url, args.node_id);
            }
            State::Waiting { delay, cause } => {
                if let Interruption::Connect(error) = &**cause
                    && first
                    && error.needs_attention()
                {
                    return explain(error);
                }
                eprintln!("not connected: {cause}; dialling again in {:.1} s", delay.as_secs_f64());
            }
        }
        if state.changed().await.is_err() {
            // A bye ends the session for good; what follows is the receiver's to say.
            return pending().await;
        }
    }
}

/// An error with what to do about it, in one line.
fn advice(error: &ConnectError, args: &Args, public_key: PublicKey) -> String {
    let node = args.node_id;
    match error {
        ConnectError::Login(LoginError::Refused { .. }) => {
            let key = args.key.display();
            format!(
                "{error}; is {key} the key of node {node}? Then, at the relay: \
                 beacon-relay enroll {node} {public_key}"
            )
        }
        ConnectError::Login(LoginError::OtherRelay { relay, .. }) => {
            format!("{error}; if that is the relay you mean: --relay-name {relay:?}")
        }
        ConnectError::Login(LoginError::NoRelayName) => {
            format!("{error}; give the relay a name, or leave out --relay-name")
        }
        ConnectError::Handshake { .. } => {
            format!("{error}; for a certificate of your own: --ca FILE")
        }
        ConnectError::Proxy(ProxyError::Variable { .. }) => {
            format!("{error}; name another one, or do without: --proxy URL, --proxy none")
        }
        ConnectError::Status { status: 404 } => {
            format!("{error}; the path of a relay is /v1/compat")
        }
        ConnectError::Login(LoginError::Unexpected { .. } | LoginError::Nonce)
        | ConnectError::Url(_)
        | ConnectError::Status { .. } => {
            format!("{error}; write another URL than {:?}", args.url)
        }
        ConnectError::Trust(_)
        | ConnectError::Proxy(_)
        | ConnectError::Login(LoginError::Closed { .. } | LoginError::Transport(_))
        | ConnectError::Unreachable { .. }
        | ConnectError::Upgrade { .. }
        | ConnectError::Timeout { .. }
        | _ => format!("{error}; `beacon-relay doctor {}` looks at each step of the way", args.url),
    }
}

/// Waits for Ctrl-C or SIGTERM.
async fn stop() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot take SIGTERM")?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot take Ctrl-C"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line_of(payload: &[u8]) -> String {
        let payload = bytes::Bytes::copy_from_slice(payload);
        text(&Delivery::new(NodeId::new(7).unwrap(), payload))
    }

    #[test]
    fn delivery_is_one_line_of_printable_text() {
        assert_eq!(line_of("it's \"grün\"".as_bytes()), "7\tit's \"grün\"");
        assert_eq!(line_of(b"a\nb\t\x1b[31m\\"), "7\ta\\nb\\t\\u{1b}[31m\\\\");
        assert_eq!(line_of(b"\xff\x00z"), "7\t\\xff\\0z");
        assert_eq!(line_of("\u{202e}x".as_bytes()), "7\t\\u{202e}x");
        assert_eq!(line_of(b""), "7\t");
    }

    #[test]
    fn each_line_is_a_packet_and_the_last_needs_no_end() {
        let mut input = &b"one\n\ntwo words\r\nlast"[..];
        let lines: Vec<_> = std::iter::from_fn(|| line(&mut input).unwrap()).collect();
        assert_eq!(lines, [&b"one"[..], b"", b"two words\r", b"last"]);
    }

    #[test]
    fn longest_line_fits_and_a_longer_one_is_an_error() {
        let longest = vec![b'x'; MAX_PAYLOAD];
        let whole = [&longest[..], b"\n"].concat();
        assert_eq!(line(&mut &whole[..]).unwrap().unwrap(), longest);
        let longer = [&longest[..], b"x\n"].concat();
        assert!(line(&mut &longer[..]).unwrap_err().to_string().contains("65527"));
    }

    #[test]
    fn file_goes_out_in_chunks() {
        let file = vec![7; 2 * CHUNK + 1];
        let mut rest = &file[..];
        let chunks: Vec<_> = std::iter::from_fn(|| chunk(&mut rest).unwrap()).collect();
        assert_eq!(chunks.iter().map(Vec::len).collect::<Vec<_>>(), [CHUNK, CHUNK, 1]);
    }
}
