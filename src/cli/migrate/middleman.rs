//! What each flag of middleman's broker, `mmd`, is here.

use std::collections::BTreeMap;
use std::path::Path;

use super::lines::Lines;
use crate::config::WssBind;

/// Where the keys are if nobody says.
const SERVICE_KEYS_FILE: &str = "/etc/beacon-relay/middleman-services";
const CLIENT_KEYS_FILE: &str = "/etc/beacon-relay/middleman-clients";

/// The flags of the broker, and what they are if nobody says.
const FLAGS: [(&str, &str); 6] = [
    ("addr", "0.0.0.0:8765"),
    ("internal", "127.0.0.1:8764"),
    ("trustedkey", "xyzzy"),
    ("superkey", "jabberwocky"),
    ("publickey", "plugh"),
    ("metrics", "y"),
];

/// What came of the flags.
#[derive(Debug)]
pub(super) struct Migrated {
    /// The configuration, without a key.
    pub(super) toml: String,
    /// The keys of services and of clients, a line each.
    pub(super) service_key: String,
    pub(super) client_key: String,
}

/// Files that keys are written to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Files<'a> {
    pub(super) service_keys: Option<&'a Path>,
    pub(super) client_keys: Option<&'a Path>,
}

/// Translates the flags of the broker.
///
/// # Errors
/// A flag that is none, or means nothing here; a key that everybody knows.
pub(super) fn migrate(flags: &[String], files: Files<'_>) -> Result<Migrated, String> {
    let given = read(flags)?;
    let said = |name: &str| given.get(name).map(String::as_str);
    let value = |name: &str| {
        let (_, usual) = FLAGS.iter().find(|(flag, _)| *flag == name).expect("a flag of the table");
        said(name).unwrap_or(usual)
    };
    let place = |name: &str| match said(name) {
        Some(_) => format!("-{name}"),
        None => format!("the default of -{name}"),
    };
    let mut lines =
        Lines("# The flags of middleman's broker, for `beacon-relay serve`.\n\n".to_owned());
    let bind = value("internal");
    let address: WssBind =
        bind.parse().map_err(|error| format!("{} = {bind:?}: {error}", place("internal")))?;
    lines.add("middleman_bind", bind, &place("internal"));
    if !address.is_local() {
        lines.add("public_plaintext", true, "there is no TLS: behind a proxy that ends it");
    }
    let service_key = key("trustedkey", value("trustedkey"))?;
    let client_key = key("publickey", value("publickey"))?;
    if service_key == client_key {
        return Err("-trustedkey and -publickey are the same: clients would be services".to_owned());
    }
    let of_file = |file: Option<&Path>, usual: &str| {
        file.map_or_else(|| usual.to_owned(), |file| file.display().to_string())
    };
    let how = |file: Option<&Path>, name: &str, flag: &str| match file {
        Some(_) => format!("the key of -{name} is in it"),
        None => format!("write the key of -{name} to a line of it, chmod 600; {flag} does that"),
    };
    lines.add(
        "middleman_service_keys_file",
        of_file(files.service_keys, SERVICE_KEYS_FILE),
        &how(files.service_keys, "trustedkey", "--service-keys-file"),
    );
    lines.add(
        "middleman_client_keys_file",
        of_file(files.client_keys, CLIENT_KEYS_FILE),
        &how(files.client_keys, "publickey", "--client-keys-file"),
    );

    let mut toml = lines.0;
    toml.push_str(&format!(
        "\n# -addr: the same door with TLS. Give it a certificate and take the # away:\n\
         # [[listener]]\n# name = \"middleman-tls\"\n# bind = {:?}\n# doors = [\"middleman\"]\n\
         # tls = [{{ cert = \"server.crt\", key = \"server.key\" }}]\n\
         \n# Without a counterpart:\n\
         # -superkey: the original has no use for it\n\
         # -metrics: they are at /metrics of the operators' port (admin_bind), for Prometheus\n",
        value("addr")
    ));
    Ok(Migrated { toml, service_key, client_key })
}

/// The flags by their names, as Go reads them: with one dash or two.
fn read(flags: &[String]) -> Result<BTreeMap<&'static str, String>, String> {
    let mut given = BTreeMap::new();
    let mut rest = flags.iter().map(String::as_str);
    while let Some(flag) = rest.next() {
        let (name, text) = match flag.split_once('=') {
            Some((name, text)) => (name, Some(text)),
            None => (flag, None),
        };
        let bare = name.strip_prefix("--").or_else(|| name.strip_prefix('-')).unwrap_or_default();
        let known = FLAGS.iter().find(|(known, _)| *known == bare);
        let (known, _) = known.ok_or_else(|| format!("{name}: no flag of middleman's broker"))?;
        let text = text.or_else(|| rest.next());
        let text = text.ok_or_else(|| format!("{name}: its value is missing"))?;
        given.insert(*known, text.to_owned());
    }
    Ok(given)
}

/// A line of a keys file.
fn key(name: &str, key: &str) -> Result<String, String> {
    if key.is_empty() || key.trim() != key || key.contains(['\r', '\n']) || key.starts_with('#') {
        return Err(format!(
            "-{name}: the key is empty, has spaces around it or begins with #, which no line of a \
             keys file can; choose another"
        ));
    }
    Ok(format!("{key}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn migrated(flags: &[&str]) -> Result<Migrated, String> {
        let flags: Vec<_> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let files = Files { service_keys: Some(Path::new("/services")), client_keys: None };
        migrate(&flags, files)
    }

    #[test]
    fn flags_of_a_broker_become_a_configuration_without_its_keys() {
        let flags = ["-trustedkey", "hunter2", "--publickey=hunter3", "-internal=0.0.0.0:8764"];
        let Migrated { toml, service_key, client_key } = migrated(&flags).unwrap();
        let settings: Vec<_> = toml.lines().filter(|line| line.contains(" = ")).collect();
        assert!(settings[0].starts_with("middleman_bind = \"0.0.0.0:8764\" "), "{toml}");
        assert!(settings[1].starts_with("public_plaintext = true "), "{toml}");
        assert!(settings[2].starts_with("middleman_service_keys_file = \"/services\" "), "{toml}");
        assert!(settings[3].starts_with("middleman_client_keys_file = "), "{toml}");
        assert!(toml.contains("0.0.0.0:8765") && !toml.contains("hunter"), "{toml}");
        assert_eq!((&*service_key, &*client_key), ("hunter2\n", "hunter3\n"));
    }

    #[test]
    fn defaults_are_those_of_the_broker() {
        let Migrated { toml, service_key, client_key } = migrated(&[]).unwrap();
        assert!(toml.contains("middleman_bind = \"127.0.0.1:8764\" # the default of -internal"));
        assert_eq!((&*service_key, &*client_key), ("xyzzy\n", "plugh\n"));
    }

    #[test]
    fn what_cannot_be_translated_is_named_without_the_keys() {
        for (flags, reason) in [
            (&["-port", "1"][..], "-port: no flag"),
            (&["-addr"], "missing"),
            (&["-internal", "localhost"], "-internal = "),
            (&["-trustedkey", " hunter2"], "spaces"),
            (&["-trustedkey", "hunter2", "-publickey=hunter2"], "the same"),
        ] {
            let error = migrated(flags).unwrap_err();
            assert!(error.contains(reason) && !error.contains("hunter"), "{error}");
        }
    }
}
