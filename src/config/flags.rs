//! The settings as flags of the command line, made from the table.

use std::fmt;

use clap::builder::{PossibleValue, TypedValueParser};
use clap::error::Error;
use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches, ValueHint};

use super::all_settings;
use super::table::Setting;
use super::value::Kind;

/// What holds for all flags.
const AFTER_HELP: &str = "\
Each flag is also an environment variable, such as BEACON_RELAY_UDP_BIND for --udp-bind.
Flags beat the environment, which beats the file. Write times as 500ms, 10s, 2m or 1h,
and lists with commas or by repeating the flag. The file can have [[listener]] tables,
for more listeners than that of --wss-bind: see docs/CONFIGURE.md.";

/// What the command line says about settings, as text. Debugged, it has only the keys,
/// since texts can be secret.
#[derive(Clone, Default)]
pub struct Flags {
    /// The configuration file.
    pub(super) config: Option<String>,
    /// The keys that were given, each with its texts.
    pub(super) given: Vec<(&'static str, Vec<String>)>,
}

impl Flags {
    /// Only `--state-dir`, for commands that need no other setting.
    #[must_use]
    pub fn state_dir(folder: Option<String>) -> Self {
        let given = folder.map(|folder| ("state_dir", vec![folder]));
        Self { config: None, given: given.into_iter().collect() }
    }

    /// Whether the flag of the setting `key` was given.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.given.iter().any(|(given, _)| *given == key)
    }

    /// The text of the flag of the setting `key`, the first where it is a list.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        let (_, texts) = self.given.iter().find(|(given, _)| *given == key)?;
        texts.first().map(String::as_str)
    }

    /// The configuration file that was named.
    #[must_use]
    pub fn config(&self) -> Option<&str> {
        self.config.as_deref()
    }

    /// Adds the flag of the setting `key`.
    pub fn add(&mut self, key: &'static str, text: String) {
        self.given.push((key, vec![text]));
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.given.iter().map(|(key, _)| key)).finish()
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.config = matches.get_one("config").cloned();
        self.given = all_settings()
            .filter(|setting| setting.kind != Kind::Tables)
            .filter_map(|setting| {
                let texts = matches.get_many::<String>(setting.key)?;
                Some((setting.key, texts.cloned().collect()))
            })
            .collect();
        Ok(())
    }
}

impl clap::Args for Flags {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_hint(ValueHint::FilePath)
            .help("TOML file with these settings, with underscores for dashes")
            .help_heading("Files");
        // Tables have more than a flag can say.
        let flags = all_settings().filter(|setting| setting.kind != Kind::Tables).map(flag);
        command.arg(config).args(flags).after_help(AFTER_HELP)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// The settings that take one of a few words, and these.
const WORDS: [(&str, &[&str]); 6] = [
    ("audit", &["best-effort", "required"]),
    ("udp_sender_check", &["off", "observed"]),
    ("log_level", &["error", "warn", "info", "debug", "trace"]),
    ("log_format", &["text", "json"]),
    ("netbird_takeover", &["always", "same-address"]),
    ("bus_durability", &["always", "interval", "none"]),
];

/// Words that shells offer. Any other text is taken as well: the setting's type says what is wrong
/// with it, and which place it is from.
#[derive(Clone, Copy)]
struct Suggested(&'static [&'static str]);

impl TypedValueParser for Suggested {
    type Value = String;

    fn parse_ref(
        &self,
        _: &Command,
        _: Option<&Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<String, Error> {
        let text = value.to_str().map(str::to_owned);
        text.ok_or_else(|| Error::new(clap::error::ErrorKind::InvalidUtf8))
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.0.iter().map(PossibleValue::new)))
    }
}

fn flag(setting: &'static Setting) -> Arg {
    let help = match (setting.kind, setting.default) {
        (
            Kind::Text | Kind::Number | Kind::List | Kind::TextOrTable | Kind::Tables,
            Some(default),
        ) => {
            format!("{} [default: {default}]", setting.help)
        }
        (Kind::Switch, _) | (_, None) => setting.help.to_owned(),
    };
    let arg = Arg::new(setting.key)
        .long(setting.key.replace('_', "-"))
        .value_name(setting.value_name)
        .help(help)
        .help_heading(setting.heading)
        // So that the type of the setting explains what is wrong with -1.
        .allow_negative_numbers(true);
    let arg = match setting.value_name {
        "FILE" => arg.value_hint(ValueHint::FilePath),
        "DIR" => arg.value_hint(ValueHint::DirPath),
        _ => arg,
    };
    let words = WORDS.iter().find(|(key, _)| *key == setting.key);
    let arg = match words {
        Some((_, words)) => arg.value_parser(Suggested(words)).hide_possible_values(true),
        None => arg,
    };
    match setting.kind {
        Kind::Text | Kind::Number | Kind::TextOrTable | Kind::Tables => arg.action(ArgAction::Set),
        Kind::List => arg.action(ArgAction::Append),
        Kind::Switch => arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Layers, Surroundings};

    #[test]
    fn words_that_shells_offer_are_taken_by_their_settings() {
        for (key, words) in WORDS {
            for word in words {
                let mut flags = Flags::state_dir(Some("/nonexistent".to_owned()));
                flags.add(key, (*word).to_owned());
                let surroundings = Surroundings {
                    variables: std::collections::HashMap::new(),
                    is_root: false,
                    descriptors: 1_024,
                };
                let layers = Layers::collect(flags, &surroundings).unwrap();
                let refused = Config::new(&layers).err().map(|error| error.to_string());
                let flag = format!("--{}", key.replace('_', "-"));
                assert!(refused.is_none_or(|text| !text.contains(&flag)), "{key} {word}");
            }
        }
    }
}
