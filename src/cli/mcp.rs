//! `beacon-relay mcp`: puts a host of the Model Context Protocol on the message bus.
//!
//! Where it connects, and as whom, is said by flags or, as to the original's adapters, by the
//! environment; flags come first. stdout is the protocol's, so all that is logged goes to stderr.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use beacon_mcp::{Adapter, Separator, ServeError, Settings};
use clap::ValueEnum;
use clap::builder::PossibleValue;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::serve::{Signals, run_to_end};
use super::way_out::completed;
use super::{Exit, logging};
use crate::client::peerbus::{self, Options};
use crate::client::{ConnectError, Proxy};
use crate::config::{Error, LogFilter, LogFormat, Place, Secret, is_readable, shown};
use crate::net::tls::Trust;

/// The variables that the original's adapters read.
const URL: &str = "PEERBUS_URL";
const NAME: &str = "PEERBUS_NAME";
const TOKEN: &str = "PEERBUS_TOKEN";
const HMAC_SECRET: &str = "PEERBUS_HMAC_SECRET";

/// What `mcp` is told.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Args {
    /// `ws://host[:port]` or `wss://…` of the relay's listener for peerbus [env: PEERBUS_URL]
    #[arg(long)]
    url: Option<String>,
    /// The name of this peer on the bus, one for each host [env: PEERBUS_NAME]
    #[arg(long)]
    name: Option<String>,
    /// File with the token that lets it in; without it, the token is in PEERBUS_TOKEN
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    token_file: Option<PathBuf>,
    /// File with the secret that peers sign with, 32 bytes or more; without it, the secret is in
    /// PEERBUS_HMAC_SECRET, and where there is none, messages are not signed
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    hmac_secret_file: Option<PathBuf>,
    /// Whether the host asks for messages, or is told of each as Claude Code's channels are
    #[arg(long, value_enum, default_value = "generic")]
    adapter: AdapterName,
    /// What stands between `bus` and the rest of a tool's name, for hosts that refuse dots
    #[arg(long, value_enum, default_value = ".", value_name = "CHARACTER")]
    tool_separator: SeparatorName,
    /// PEM file of the certificate authorities to trust instead of the system's
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    ca: Option<PathBuf>,
    /// HTTP proxy to go through, `http://[user:password@]host:port`, or `none`; without it, that of
    /// https_proxy or all_proxy, but for no_proxy
    #[arg(long, value_name = "URL")]
    proxy: Option<Proxy>,
    /// What is logged to stderr
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log_level: LogFilter,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum AdapterName {
    Generic,
    Cc,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct SeparatorName(Separator);

impl ValueEnum for SeparatorName {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self(Separator::Dot), Self(Separator::Underscore), Self(Separator::Dash)]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self.0 {
            Separator::Dot => ".",
            Separator::Underscore => "_",
            Separator::Dash => "-",
        }))
    }
}

/// Serves the host on stdin and stdout until it is gone.
///
/// # Errors
/// Settings that are missing or of no use. A relay that is away, or refuses, is told to the host.
pub(super) fn run(args: Args) -> Result<(), Exit> {
    let _logs = logging::start(&args.log_level, LogFormat::Text)?;
    let settings = settings(args, |name| std::env::var(name).ok())?;
    let url = settings.options.url.clone();
    let served = run_to_end(async {
        let mut signals = Signals::new()?;
        let stop = CancellationToken::new();
        let serving =
            beacon_mcp::serve(settings, tokio::io::stdin(), tokio::io::stdout(), stop.clone());
        tokio::pin!(serving);
        tokio::select! {
            served = &mut serving => return Ok::<_, anyhow::Error>(served),
            () = signals.stop() => stop.cancel(),
        }
        Ok(serving.await)
    })??;
    served.map_err(|error| explain(&error, &url))
}

/// What a host has configured wrongly, in one line of its log.
fn explain(error: &ServeError, url: &str) -> Exit {
    if let ServeError::Client(ConnectError::Url(reason)) = error {
        let url = shown("", url);
        return Exit::Usage(format!(
            "--url = {url:?}: {reason}; write ws://HOST:PORT or wss://HOST"
        ));
    }
    let doctor = "`beacon-relay doctor --config FILE`, where the relay runs, looks at its door";
    Exit::Failed(anyhow::anyhow!("{}", completed(&error.to_string(), doctor)))
}

fn settings(
    args: Args,
    variable: impl Fn(&'static str) -> Option<String>,
) -> Result<Settings, Exit> {
    // An empty variable is one that a host was not told.
    let variable = |name| variable(name).filter(|value| !value.is_empty());
    let missing = |flag: &str, name: &str, what: &str| {
        Exit::Usage(format!("{flag} or {name} is missing: {what}; set one of them"))
    };
    let url = args.url.or_else(|| variable(URL));
    let url = url.ok_or_else(|| {
        missing("--url", URL, "the relay's listener for peerbus, such as ws://127.0.0.1:47821")
    })?;
    let token = match &args.token_file {
        Some(path) => read("token_file", path)?,
        None => variable(TOKEN)
            .ok_or_else(|| missing("--token-file", TOKEN, "what lets this peer in"))?,
    };
    let name = match (args.name.or_else(|| variable(NAME)), args.adapter) {
        (Some(name), _) => name,
        (None, AdapterName::Cc) => beacon_mcp::friendly().context("cannot make a name")?,
        (None, AdapterName::Generic) => {
            return Err(missing("--name", NAME, "what other peers call this one"));
        }
    };
    let mut options = Options::new(url, name, token);
    options.secret = match &args.hmac_secret_file {
        Some(path) => {
            let secret = read("hmac_secret_file", path)?;
            Some(secret_of(&secret, "--hmac-secret-file")?)
        }
        None => variable(HMAC_SECRET).map(|secret| secret_of(&secret, HMAC_SECRET)).transpose()?,
    };
    if options.secret.is_none() {
        info!("messages are not signed: peers that have a secret drop them");
    }
    if let Some(path) = args.ca {
        options.trust = Trust::CaFile(path);
    }
    options.proxy = args.proxy.unwrap_or_default();
    let adapter = match args.adapter {
        AdapterName::Generic => Adapter::Generic,
        AdapterName::Cc => Adapter::Channel,
    };
    Ok(Settings { options, adapter, separator: args.tool_separator.0 })
}

/// Reads a file that holds one secret.
fn read(key: &str, path: &Path) -> Result<String, Exit> {
    let secret = Secret::read(path).map_err(|reason| {
        Exit::Config(Error::File { place: Place::flag(key), path: path.to_owned(), reason })
    })?;
    if is_readable(path) {
        let path = path.display();
        warn!(file = %path, "others can read a secret: chmod 600 {path}");
    }
    Ok(secret.expose().to_owned())
}

fn secret_of(text: &str, place: &str) -> Result<peerbus::Secret, Exit> {
    peerbus::Secret::new(text)
        .map_err(|error| Exit::Usage(format!("{place}: {error}; give it the relay's own")))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn args(flags: &[&str]) -> Args {
        Cli::parse_from(["mcp"].iter().chain(flags)).args
    }

    /// The original's variables, as its adapters have them.
    fn environment(name: &'static str) -> Option<String> {
        match name {
            URL => Some("ws://127.0.0.1:47821".to_owned()),
            NAME => Some("alice".to_owned()),
            TOKEN => Some("hunter2-token".to_owned()),
            HMAC_SECRET => Some("hunter2-secret-of-32-bytes-or-more".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn environment_of_the_original_is_enough_and_flags_come_first() {
        let all = settings(args(&[]), environment).unwrap();
        assert_eq!((&*all.options.url, &*all.options.name), ("ws://127.0.0.1:47821", "alice"));
        assert!(all.options.secret.is_some());
        assert_eq!((all.adapter, all.separator), (Adapter::Generic, Separator::Dot));
        let flags = ["--name=bob", "--adapter=cc", "--tool-separator=_"];
        let some = settings(args(&flags), environment).unwrap();
        assert_eq!((&*some.options.name, some.adapter), ("bob", Adapter::Channel));
        assert_eq!(some.separator, Separator::Underscore);
    }

    #[test]
    fn what_is_missing_is_named_with_both_of_its_names() {
        for (absent, part) in [
            (URL, "--url or PEERBUS_URL is missing"),
            (NAME, "--name or PEERBUS_NAME is missing"),
            (TOKEN, "--token-file or PEERBUS_TOKEN is missing"),
        ] {
            for value in [None, Some(String::new())] {
                let without = |name| if name == absent { value.clone() } else { environment(name) };
                let error = settings(args(&[]), without).unwrap_err();
                assert_eq!(error.code(), 64);
                assert!(error.to_string().starts_with(part), "{error}");
            }
        }
        let nameless = |name| environment(name).filter(|_| name != NAME);
        let named = settings(args(&["--adapter=cc"]), nameless).unwrap();
        assert_eq!(named.options.name.split('-').count(), 3);
    }

    #[test]
    fn secrets_are_in_no_error_and_in_no_debug_form() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        fs::write(&file, "hunter2-short\n").unwrap();
        let flag = format!("--hmac-secret-file={}", file.display());
        let short = settings(args(&[&flag]), environment).unwrap_err();
        assert!(short.to_string().contains("shorter than 32"), "{short}");
        let absent = settings(args(&["--token-file=/nonexistent/token"]), environment).unwrap_err();
        assert_eq!(absent.code(), 78);
        let all = settings(args(&[]), environment).unwrap();
        for text in [short.to_string(), absent.to_string(), format!("{all:?}")] {
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
}
