//! `migrate`: the settings of another program's relay as a configuration of ours.
//!
//! What NetBird's was told is gathered by `sources` as text, by the names of its flags; `netbird`
//! says what each of them is here, `peerbus` what those of peerbus's broker are, `middleman` what the
//! flags of middleman's, and `keyop` what the file of a keyop-messenger hub says. A secret is never
//! printed.

mod channels;
mod compose;
mod import;
mod keyop;
mod lines;
mod middleman;
mod netbird;
mod offline;
mod peerbus;
mod settings;
mod sources;

use std::fs::{self, OpenOptions};
use std::io::{self, BufReader, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};

use self::sources::{Said, Variables};
use super::way_out::completed;
use super::{Exit, output};
use crate::config::{Layers, Surroundings, remedy};

/// Longest compose file, in bytes.
const MAX_FILE: u64 = 1_048_576;

/// What `migrate` is asked.
#[derive(clap::Args, Debug)]
pub(super) struct Migrate {
    #[command(subcommand)]
    from: From,
}

#[derive(Debug, clap::Subcommand)]
enum From {
    /// Of NetBird's or openZro's relay: by its flags, its environment or its compose file
    Netbird(Netbird),
    /// Of peerbus's broker: by its environment and its flags
    Peerbus(Peerbus),
    /// Of middleman's broker: by its flags
    Middleman(Middleman),
    /// Of a hub of keyop-messenger: by its YAML file
    Keyop(Keyop),
}

/// Where the settings of a keyop-messenger hub are.
#[derive(clap::Args, Debug)]
struct Keyop {
    /// The hub's file; - is stdin
    #[arg(value_name = "CONFIG")]
    file: PathBuf,
    /// Take over records and places of peers instead, from the folder of what the hub keeps. Neither
    /// the hub nor the relay may run
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    data: Option<PathBuf>,
    /// Folder of what the relay keeps, for --data [default: that of `serve`]
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath, requires = "data")]
    state_dir: Option<String>,
}

/// Where the keys of middleman's broker go.
#[derive(clap::Args, Debug)]
struct Middleman {
    /// New file for the key of services, which is never printed; one that holds the same stays
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    service_keys_file: Option<PathBuf>,
    /// New file for the key of clients
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    client_keys_file: Option<PathBuf>,
    /// Flags that it was started with, behind --
    #[arg(last = true, value_name = "FLAGS")]
    flags: Vec<String>,
}

/// Where the settings of NetBird's relay are.
#[derive(clap::Args, Debug)]
struct Netbird {
    /// Compose file (YAML or JSON) with its service, instead of this process's environment; - is stdin
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    compose: Option<PathBuf>,
    /// The service, where the file has several that may be it
    #[arg(long, value_name = "NAME", requires = "compose")]
    service: Option<String>,
    /// New file for the secret, which is never printed; one that holds the same stays
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    secret_file: Option<PathBuf>,
    /// Flags that it was started with, behind --
    #[arg(last = true, value_name = "FLAGS")]
    flags: Vec<String>,
}

/// Where the secrets of peerbus's broker go.
#[derive(clap::Args, Debug)]
struct Peerbus {
    /// New file for the tokens, which are never printed; one that holds the same stays
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    tokens_file: Option<PathBuf>,
    /// New file for the secret that peers sign by: the relay then drops what is not signed by it
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    hmac_secret_file: Option<PathBuf>,
    /// Take over names and messages instead, from its database as the line in docs/PEERBUS.md prints
    /// it; - is stdin. The relay must not run
    #[arg(long, value_name = "FILE", conflicts_with_all = ["tokens_file", "hmac_secret_file", "flags"])]
    messages: Option<PathBuf>,
    /// Folder of what the relay keeps, for --messages [default: that of `serve`]
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath, requires = "messages")]
    state_dir: Option<String>,
    /// Flags that it was started with, behind --
    #[arg(last = true, value_name = "FLAGS")]
    flags: Vec<String>,
}

impl Migrate {
    /// Prints the configuration.
    pub(super) fn run(self) -> Result<(), Exit> {
        match self.from {
            From::Netbird(netbird) => netbird.run(),
            From::Peerbus(peerbus) => peerbus.run(),
            From::Middleman(middleman) => middleman.run(),
            From::Keyop(keyop) => keyop.run(),
        }
    }
}

impl Keyop {
    fn run(self) -> Result<(), Exit> {
        let file = &self.file;
        let text = read(file).with_context(|| file.display().to_string())?;
        let migrated = keyop::migrate(&text);
        let toml = migrated.map_err(|reason| refused(&format!("{}: {reason}", file.display())))?;
        let Some(data) = self.data else { return output::print(&toml) };
        let folder = Layers::state_dir_of(self.state_dir, &Surroundings::of_this_process())?;
        let imported = channels::import(&data, &folder)?;
        output::print(&imported.to_string())
    }
}

impl Middleman {
    fn run(&self) -> Result<(), Exit> {
        let files = middleman::Files {
            service_keys: self.service_keys_file.as_deref(),
            client_keys: self.client_keys_file.as_deref(),
        };
        let migrated = middleman::migrate(&self.flags, files);
        let migrated = migrated.map_err(|reason| refused(&reason))?;
        if let Some(file) = &self.service_keys_file {
            keep_secret("--service-keys-file", file, &migrated.service_key)?;
        }
        if let Some(file) = &self.client_keys_file {
            keep_secret("--client-keys-file", file, &migrated.client_key)?;
        }
        output::print(&migrated.toml)
    }
}

impl Peerbus {
    fn run(self) -> Result<(), Exit> {
        if let Some(file) = &self.messages {
            let surroundings = Surroundings::of_this_process();
            let state_dir = Layers::state_dir_of(self.state_dir, &surroundings)?;
            let imported = if file == Path::new("-") {
                import::import(io::stdin().lock(), &state_dir)
            } else {
                let opened = fs::File::open(file);
                let opened = opened.with_context(|| format!("--messages = {file:?}"))?;
                import::import(BufReader::new(opened), &state_dir)
            };
            return output::print(&imported?.to_string());
        }
        let files = peerbus::Files {
            tokens: self.tokens_file.as_deref(),
            hmac_secret: self.hmac_secret_file.as_deref(),
        };
        let environment = std::env::vars().collect();
        let migrated = peerbus::migrate(&environment, &self.flags, files);
        let migrated = migrated.map_err(|reason| refused(&reason))?;
        if let Some(file) = &self.tokens_file {
            keep_secret("--tokens-file", file, &migrated.tokens)?;
        }
        if let (Some(file), Some(secret)) = (&self.hmac_secret_file, &migrated.hmac_secret) {
            keep_secret("--hmac-secret-file", file, &format!("{secret}\n"))?;
        }
        output::print(&migrated.toml)
    }
}

impl Netbird {
    fn run(&self) -> Result<(), Exit> {
        let said = self.said()?;
        let migrated = netbird::migrate(&said, self.secret_file.as_deref());
        let migrated = migrated.map_err(|reason| refused(&reason))?;
        if let (Some(file), Some(secret)) = (&self.secret_file, &migrated.secret) {
            keep_secret("--secret-file", file, &format!("{secret}\n"))?;
        }
        output::print(&migrated.toml)
    }

    fn said(&self) -> Result<Said, Exit> {
        let own: Variables = std::env::vars().collect();
        let Some(file) = &self.compose else {
            return sources::gather(&own, &self.flags)
                .map_err(|reason| Exit::Usage(completed(&reason, CORRECT)));
        };
        let text = read(file).with_context(|| format!("--compose = {file:?}"))?;
        let folder = file.parent().unwrap_or_else(|| Path::new("."));
        let found = compose::service(&text, self.service.as_deref(), folder, &own);
        let service =
            found.map_err(|reason| refused(&format!("--compose = {file:?}: {reason}")))?;
        let flags = [&service.command[..], &self.flags].concat();
        sources::gather(&service.environment, &flags)
            .map_err(|reason| Exit::Usage(completed(&reason, CORRECT)))
    }
}

/// What to do about settings that are not those of the program that is replaced.
const CORRECT: &str = "correct it as that program has it, or write the relay's settings by hand";

fn refused(reason: &str) -> anyhow::Error {
    anyhow!("{}", completed(reason, CORRECT))
}

/// Reads a file, or stdin, of a bounded size.
fn read(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        io::stdin().take(MAX_FILE + 1).read_to_string(&mut text)?
    } else {
        fs::File::open(file)?.take(MAX_FILE + 1).read_to_string(&mut text)?
    };
    if read as u64 > MAX_FILE {
        return Err(io::Error::other(format!("it has more than {MAX_FILE} bytes")));
    }
    Ok(text)
}

/// Writes a secret to a new file that nobody else can read.
fn keep_secret(flag: &str, file: &Path, text: &str) -> Result<(), Exit> {
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let written = created.and_then(|mut created| created.write_all(text.as_bytes()));
    let error = match written {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    // A container is started again with what it has written before.
    if error.kind() == ErrorKind::AlreadyExists && fs::read_to_string(file).is_ok_and(|t| t == text)
    {
        return Ok(());
    }
    let reason = if error.kind() == ErrorKind::AlreadyExists {
        "it exists already and holds something else; name another file, or remove it".to_owned()
    } else {
        format!("cannot be written: {error}; {}", remedy(&error))
    };
    Err(Exit::Failed(anyhow!("{flag} = {file:?}: {reason}")))
}
