//! What each setting of peerbus's broker is here.

use std::path::Path;

use super::lines::Lines;
use super::sources::Variables;
use crate::config::WssBind;

/// Where the tokens are if nobody says.
const TOKENS_FILE: &str = "/etc/beacon-relay/peerbus-tokens";

/// Where the broker listens if nobody says.
const LISTEN: &str = "127.0.0.1:47821";

/// Where it has its database if nobody says.
const DATABASE: &str = "peerbus.db";

/// What came of the settings.
#[derive(Debug)]
pub(super) struct Migrated {
    /// The configuration, without a secret.
    pub(super) toml: String,
    /// The tokens, one on each line.
    pub(super) tokens: String,
    /// The secret by which peers sign.
    pub(super) hmac_secret: Option<String>,
}

/// Files that secrets are written to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Files<'a> {
    pub(super) tokens: Option<&'a Path>,
    pub(super) hmac_secret: Option<&'a Path>,
}

/// Translates the environment of the broker and its flags, below it as there.
///
/// # Errors
/// What is missing, or means nothing here.
pub(super) fn migrate(
    environment: &Variables,
    flags: &[String],
    files: Files<'_>,
) -> Result<Migrated, String> {
    let of_flags = database(flags)?;
    let set =
        |name: &str| environment.get(name).map(|text| text.trim()).filter(|text| !text.is_empty());
    let mut lines =
        Lines("# The settings of peerbus's broker, for `beacon-relay serve`.\n\n".to_owned());
    let bind = set("PEERBUS_LISTEN").unwrap_or(LISTEN);
    let place = set("PEERBUS_LISTEN").map_or("its default", |_| "PEERBUS_LISTEN");
    let address: WssBind = bind.parse().map_err(|error| format!("{place} = {bind:?}: {error}"))?;
    lines.add("peerbus_bind", bind, place);
    if !address.is_local() {
        lines.add("public_plaintext", true, "there is no TLS: behind a proxy that ends it");
    }

    let tokens = tokens(set("PEERBUS_TOKENS").ok_or("PEERBUS_TOKENS is missing")?)?;
    let file = files.tokens.map_or_else(|| TOKENS_FILE.into(), |file| file.display().to_string());
    let place = if files.tokens.is_some() {
        "the tokens of PEERBUS_TOKENS are in it"
    } else {
        "write each token of PEERBUS_TOKENS to a line of it, chmod 600; --tokens-file does that"
    };
    lines.add("peerbus_tokens_file", file, place);

    let hmac_secret = set("PEERBUS_HMAC_SECRET");
    if let (Some(file), Some(_)) = (files.hmac_secret, hmac_secret) {
        let place = "PEERBUS_HMAC_SECRET is in it: what is not signed by it is dropped";
        lines.add("peerbus_hmac_secret_file", file.display().to_string(), place);
    }

    let database = set("PEERBUS_DB").map(str::to_owned).or(of_flags);
    let database = database.as_deref().unwrap_or(DATABASE);
    let mut toml = lines.0;
    toml.push_str("\n# Without a counterpart:\n");
    if files.hmac_secret.is_none() && hmac_secret.is_some() {
        toml.push_str(
            "# PEERBUS_HMAC_SECRET: the broker asks for it and does not use it; --hmac-secret-file writes it,\n\
             # and has the relay drop what is not signed by it\n",
        );
    }
    toml.push_str(&format!(
        "# PEERBUS_DB: messages are kept in the state folder. What waits in {database:?} is taken over, while\n\
         # neither of the two runs, by the line in docs/PEERBUS.md, \"Replace your broker\"\n"
    ));
    Ok(Migrated { toml, tokens, hmac_secret: hmac_secret.map(str::to_owned) })
}

/// The database that the flags name.
fn database(flags: &[String]) -> Result<Option<String>, String> {
    let mut database = None;
    let mut rest = flags.iter().map(String::as_str);
    while let Some(flag) = rest.next() {
        let (name, text) = match flag.split_once('=') {
            Some((name, text)) => (name, Some(text)),
            None => (flag, None),
        };
        match name {
            "serve" => {}
            "--db" | "-db" => {
                let text = text.or_else(|| rest.next());
                database =
                    Some(text.ok_or_else(|| format!("{flag}: its value is missing"))?.to_owned());
            }
            _ => return Err(format!("{name}: no flag of peerbus's broker")),
        }
    }
    Ok(database)
}

/// A line for each token.
fn tokens(list: &str) -> Result<String, String> {
    let tokens = list.split(',').map(str::trim).filter(|token| !token.is_empty());
    let mut lines = String::new();
    for (token, number) in tokens.zip(1..) {
        if token.contains(char::is_whitespace) || token.starts_with('#') {
            return Err(format!(
                "PEERBUS_TOKENS: the token at place {number} has a space in it or begins with #, \
                 which no line of a tokens file can; give its peers another"
            ));
        }
        lines.push_str(token);
        lines.push('\n');
    }
    if lines.is_empty() {
        return Err("PEERBUS_TOKENS has no token in it".to_owned());
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn migrated(pairs: &[(&str, &str)], flags: &[&str]) -> Result<Migrated, String> {
        let pairs = pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        let flags: Vec<_> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let files = Files { tokens: None, hmac_secret: Some(Path::new("/secret")) };
        migrate(&pairs.collect(), &flags, files)
    }

    #[test]
    fn environment_of_a_broker_becomes_a_configuration_without_its_secrets() {
        let secret = "0123456789abcdef0123456789abcdef";
        let said = [
            ("PEERBUS_LISTEN", "0.0.0.0:47821"),
            ("PEERBUS_TOKENS", " one, two,,"),
            ("PEERBUS_HMAC_SECRET", secret),
            ("HOME", "/root"),
        ];
        let Migrated { toml, tokens, hmac_secret } =
            migrated(&said, &["serve", "--db", "x.db"]).unwrap();
        let settings: Vec<_> = toml.lines().filter(|line| line.contains(" = ")).collect();
        assert!(settings[0].starts_with("peerbus_bind = \"0.0.0.0:47821\" "), "{toml}");
        assert!(settings[1].starts_with("public_plaintext = true "), "{toml}");
        assert!(settings[2].starts_with("peerbus_tokens_file = "), "{toml}");
        assert!(settings[3].starts_with("peerbus_hmac_secret_file = \"/secret\" "), "{toml}");
        assert!(toml.contains("\"x.db\"") && !toml.contains(secret), "{toml}");
        assert_eq!((&*tokens, hmac_secret.as_deref()), ("one\ntwo\n", Some(secret)));
    }

    #[test]
    fn what_cannot_be_translated_is_named_without_the_tokens() {
        let tokens = ("PEERBUS_TOKENS", "hunter2");
        for (said, flags, reason) in [
            (&[][..], &[][..], "PEERBUS_TOKENS is missing"),
            (&[("PEERBUS_TOKENS", ",")], &[], "no token"),
            (&[("PEERBUS_TOKENS", "a,hunter2 x")], &[], "place 2"),
            (&[tokens, ("PEERBUS_LISTEN", "localhost:1")], &[], "not IP"),
            (&[tokens], &["--port", "1"], "--port: no flag"),
            (&[tokens], &["--db"], "missing"),
        ] {
            let error = migrated(said, flags).unwrap_err();
            assert!(error.contains(reason) && !error.contains("hunter2"), "{error}");
        }
    }
}
