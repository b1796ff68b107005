//! What NetBird's or openZro's relay was told: its flags, and its environment below them.

use std::collections::BTreeMap;

use super::settings::{SWITCHES, is_known};

/// The variables of a process or a container.
pub(super) type Variables = BTreeMap<String, String>;

/// The prefixes of the variables: those of openZro's relay, then those of NetBird's.
const PREFIXES: [&str; 2] = ["OZ_", "NB_"];

/// What was said.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// By the names of the flags: the text, and who said it.
    settings: BTreeMap<String, (String, String)>,
    /// It is openZro's relay.
    pub(super) is_openzro: bool,
}

impl Said {
    /// The text of a setting; none where it is empty, which means nothing there.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(|(text, _)| &**text).filter(|text| !text.is_empty())
    }

    /// Whether a switch is on.
    pub(super) fn is_on(&self, name: &str) -> bool {
        self.text(name)
            .is_some_and(|text| matches!(text, "true" | "1" | "t" | "T" | "TRUE" | "True"))
    }

    /// The items of a list.
    pub(super) fn items(&self, name: &str) -> Vec<&str> {
        let items = self.text(name).into_iter().flat_map(|text| text.split(','));
        items.map(str::trim).filter(|item| !item.is_empty()).collect()
    }

    /// Who said it, as they spelt it.
    pub(super) fn place<'a>(&'a self, name: &'a str) -> &'a str {
        self.settings.get(name).map_or(name, |(_, place)| place)
    }

    /// The names of what was said.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.settings.keys().map(String::as_str)
    }
}

/// Puts the flags on top of the environment.
///
/// # Errors
/// A flag that is none.
pub(super) fn gather(environment: &Variables, flags: &[String]) -> Result<Said, String> {
    let mut said = Said::default();
    for prefix in PREFIXES {
        for (variable, text) in environment {
            let Some(name) = variable.strip_prefix(prefix) else { continue };
            said.is_openzro |= prefix == "OZ_";
            let name = name.to_ascii_lowercase().replace('_', "-");
            said.settings.insert(name, (text.clone(), variable.clone()));
        }
    }
    let mut rest = flags.iter();
    while let Some(flag) = rest.next() {
        let Some(body) = long(flag) else {
            return Err(format!(
                "{flag}: write the flags of the relay in full, as --listen-address"
            ));
        };
        let (name, text) = match body.split_once('=') {
            Some((name, text)) => (name, text.to_owned()),
            None if SWITCHES.contains(&body) => (body, "true".to_owned()),
            None => {
                let text = rest.next().ok_or_else(|| format!("{flag}: its value is missing"))?;
                (body, text.clone())
            }
        };
        if !is_known(name) {
            return Err(format!("--{name}: no flag of NetBird's or openZro's relay"));
        }
        said.settings.insert(name.to_owned(), (text, format!("--{name}")));
    }
    Ok(said)
}

/// The name of a flag, with what stands behind it.
fn long(flag: &str) -> Option<&str> {
    match flag {
        "-H" => Some("health-listen-address"),
        _ => flag.strip_prefix("--").filter(|name| !name.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Variables {
        pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    fn flags(flags: &[&str]) -> Vec<String> {
        flags.iter().map(|flag| (*flag).to_owned()).collect()
    }

    #[test]
    fn flags_beat_the_environment_and_say_where_they_stand() {
        let environment = variables(&[
            ("NB_LISTEN_ADDRESS", ":1"),
            ("NB_STUN_PORTS", "3478, 3479"),
            ("NB_AUTH_SECRET", ""),
            ("HOME", "/root"),
        ]);
        let given = flags(&["--listen-address=:2", "--enable-stun", "-H", ":9001"]);
        let said = gather(&environment, &given).unwrap();
        assert_eq!(
            (said.text("listen-address"), said.place("listen-address")),
            (Some(":2"), "--listen-address")
        );
        assert_eq!(said.items("stun-ports"), ["3478", "3479"]);
        assert!(said.is_on("enable-stun") && said.text("auth-secret").is_none());
        assert_eq!(said.text("health-listen-address"), Some(":9001"));
        assert!(!said.is_openzro && said.text("home").is_none());
        assert!(gather(&variables(&[("OZ_LISTEN_ADDRESS", ":1")]), &[]).unwrap().is_openzro);
    }

    #[test]
    fn what_is_no_flag_of_the_relay_is_refused() {
        for (given, reason) in [
            (&["-l", ":1"][..], "in full"),
            (&["--listen-adress", ":1"], "no flag"),
            (&["--listen-address"], "missing"),
            (&["relay"], "in full"),
        ] {
            let error = gather(&Variables::new(), &flags(given)).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
