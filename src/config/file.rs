//! The configuration file: TOML, whose keys are the flags with underscores.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::error::Mistakes;
use super::given::{Given, Scope};
use super::secret::shown;
use super::small_file::contents;
use super::table::Setting;
use super::value::Kind;
use super::{Error, Origin, Place, all_settings, listener_settings};

/// Least likeness, from 0 to 1, at which a known key is offered for an unknown one.
const LEAST_LIKENESS: f64 = 0.7;

/// A table of settings, which may stand outside of it as well.
struct Section {
    name: &'static str,
    /// Those of its settings whose keys do not begin with its name.
    others: &'static [&'static str],
}

/// The tables: the settings whose keys begin with the name, which they may stand in without it,
/// and some others.
static SECTIONS: [Section; 5] = [
    Section { name: "netbird", others: &[] },
    Section { name: "peerbus", others: &[] },
    Section { name: "middleman", others: &[] },
    Section { name: "keyop", others: &[] },
    Section {
        name: "bus",
        others: &["audit_checkpoint_file", "audit_max_bytes", "audit_retention"],
    },
];

impl Section {
    /// Whether a setting may stand in it.
    fn has(&self, key: &str) -> bool {
        key.strip_prefix(self.name).is_some_and(|rest| rest.starts_with('_'))
            || self.others.contains(&key)
    }
}

/// What a configuration file says.
#[derive(Debug)]
pub(super) struct Said {
    /// Of settings.
    pub(super) settings: Vec<(&'static str, Given)>,
    /// In each `[[listener]]` table.
    pub(super) listeners: Vec<Table>,
}

/// What one table says.
#[derive(Debug)]
pub(super) struct Table {
    /// Where it stands.
    pub(super) scope: Scope,
    /// Of its settings.
    pub(super) settings: Vec<(&'static str, Given)>,
}

/// What the file says; `named_by` is who named it. What is wrong in it is a mistake, and missing.
///
/// # Errors
/// There is nothing to read.
pub(super) fn read(path: &Path, named_by: Origin, mistakes: &mut Mistakes) -> Result<Said, Error> {
    let text = contents(path).map_err(|reason| Error::File {
        place: Place { key: "config".to_owned(), origin: named_by },
        path: path.to_owned(),
        reason,
    })?;
    parse(&text, path, mistakes)
}

fn parse(text: &str, path: &Path, mistakes: &mut Mistakes) -> Result<Said, Error> {
    let file = Text { text, path };
    let table = DeTable::parse(text).map_err(|error| Error::Syntax {
        path: path.to_owned(),
        line: file.line(error.span().map_or(0, |span| span.start)),
        reason: format!(
            "{}; write TOML, as in docs/CONFIGURE.md",
            error.message().replace('\n', ", ")
        ),
    })?;

    let mut said = Said { settings: Vec::new(), listeners: Vec::new() };
    for entry in in_order(table.get_ref()) {
        let name = entry.0.get_ref().as_ref();
        let section = SECTIONS.iter().find(|section| section.name == name);
        match (name, section, entry.1.get_ref()) {
            ("listener", ..) => {
                let tables = file.listeners(&entry, mistakes);
                said.listeners.extend(mistakes.take(tables).into_iter().flatten());
            }
            (_, Some(section), DeValue::Table(entries)) => {
                for entry in in_order(entries) {
                    let setting = file.setting_of_section(&entry, section);
                    let added = setting.and_then(|one| file.add(&mut said.settings, one, &entry));
                    mistakes.take(added);
                }
            }
            _ => {
                let setting = file.setting(&entry, "", all_settings());
                let added = setting.and_then(|one| file.add(&mut said.settings, one, &entry));
                mistakes.take(added);
            }
        }
    }
    Ok(said)
}

/// A key and its value, with their places in the text.
type Entry<'a> = (&'a Spanned<DeString<'a>>, &'a Spanned<DeValue<'a>>);

/// The entries of a table in the order of the text.
fn in_order<'a>(table: &'a DeTable<'a>) -> Vec<Entry<'a>> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

/// The text of a file.
#[derive(Clone, Copy)]
struct Text<'a> {
    text: &'a str,
    path: &'a Path,
}

impl Text<'_> {
    fn line(&self, offset: usize) -> usize {
        1 + self.text.bytes().take(offset).filter(|b| *b == b'\n').count()
    }

    fn origin(&self, offset: usize) -> Origin {
        Origin::File { path: self.path.to_owned(), line: self.line(offset) }
    }

    /// Refuses the value of a key; `prefix` is what stands before it, such as `listener[1].`.
    fn refuse(&self, (key, value): &Entry<'_>, prefix: &str, reason: String) -> Error {
        let name = key.get_ref().as_ref();
        let said = self.text.get(value.span()).unwrap_or_default().trim_matches('"');
        Error::Setting {
            place: Place { key: format!("{prefix}{name}"), origin: self.origin(key.span().start) },
            value: shown(name, said).into_owned(),
            reason,
        }
    }

    /// One setting of `known`, and what is said of it.
    fn setting(
        &self,
        entry: &Entry<'_>,
        prefix: &str,
        known: impl Iterator<Item = &'static Setting> + Clone,
    ) -> Result<(&'static str, Given), Error> {
        let (key, value) = entry;
        let name = key.get_ref().as_ref();
        let setting = known.clone().find(|setting| setting.key == name);
        let setting = setting.ok_or_else(|| self.refuse(entry, prefix, unknown(name, known)))?;
        let items = items(setting.kind, value.get_ref());
        let items = items.map_err(|reason| self.refuse(entry, prefix, reason))?;
        Ok((setting.key, Given { items, origin: self.origin(key.span().start) }))
    }

    /// Adds what is said of a setting, which stands in its section or outside of it.
    fn add(
        &self,
        settings: &mut Vec<(&'static str, Given)>,
        setting: (&'static str, Given),
        entry: &Entry<'_>,
    ) -> Result<(), Error> {
        let (key, _) = setting;
        if settings.iter().any(|(known, _)| *known == key) {
            let section = SECTIONS.iter().find(|section| section.has(key));
            let section = section.map_or("", |section| section.name);
            let reason = format!("{key} stands in [{section}] and outside; once is enough");
            return Err(self.refuse(entry, "", reason));
        }
        settings.push(setting);
        Ok(())
    }

    /// One setting of a section, and what is said of it.
    fn setting_of_section(
        &self,
        entry: &Entry<'_>,
        section: &Section,
    ) -> Result<(&'static str, Given), Error> {
        let (key, value) = entry;
        let prefix = format!("{}.", section.name);
        let name = key.get_ref().as_ref();
        let known = || all_settings().filter(|setting| section.has(setting.key));
        let full = format!("{}_{name}", section.name);
        let setting = known().find(|setting| setting.key == full || setting.key == name);
        let setting =
            setting.ok_or_else(|| self.refuse(entry, &prefix, unknown(&full, known())))?;
        let items = items(setting.kind, value.get_ref());
        let items = items.map_err(|reason| self.refuse(entry, &prefix, reason))?;
        Ok((setting.key, Given { items, origin: self.origin(key.span().start) }))
    }

    /// What each `[[listener]]` says.
    fn listeners(&self, entry: &Entry<'_>, mistakes: &mut Mistakes) -> Result<Vec<Table>, Error> {
        let (_, value) = entry;
        let no_tables =
            || self.refuse(entry, "", "not a list of tables; write [[listener]]".to_owned());
        let DeValue::Array(tables) = value.get_ref() else { return Err(no_tables()) };
        let mut listeners = Vec::new();
        for (index, table) in tables.iter().enumerate() {
            let DeValue::Table(entries) = table.get_ref() else { return Err(no_tables()) };
            let prefix = Scope::prefix_of_listener(index);
            let mut settings = Vec::new();
            for entry in in_order(entries) {
                settings.extend(mistakes.take(self.setting(&entry, &prefix, listener_settings())));
            }
            let scope = Scope { prefix, origin: self.origin(table.span().start) };
            listeners.push(Table { scope, settings });
        }
        Ok(listeners)
    }
}

/// The value as the texts that a command line would have.
fn items(kind: Kind, value: &DeValue<'_>) -> Result<Vec<String>, String> {
    match (kind, value) {
        // As `--flag=` has it.
        (Kind::List, DeValue::Array(values)) if values.is_empty() => Ok(vec![String::new()]),
        (Kind::Tables, DeValue::Array(tables)) => {
            let lines = |table: &Spanned<DeValue<'_>>| match table.get_ref() {
                DeValue::Table(table) => lines(table),
                other @ (DeValue::String(_)
                | DeValue::Integer(_)
                | DeValue::Float(_)
                | DeValue::Boolean(_)
                | DeValue::Datetime(_)
                | DeValue::Array(_)) => item(other),
            };
            tables.iter().map(lines).collect()
        }
        (_, DeValue::Array(values)) => values.iter().map(|value| item(value.get_ref())).collect(),
        (Kind::TextOrTable, DeValue::Table(table)) => in_order(table)
            .into_iter()
            .map(|(key, value)| Ok(format!("{}={}", key.get_ref(), item(value.get_ref())?)))
            .collect(),
        (Kind::Tables, DeValue::Table(table)) => Ok(vec![lines(table)?]),
        _ => Ok(vec![item(value)?]),
    }
}

/// The entries of a table, each on a line; of a list, with commas.
fn lines(table: &DeTable<'_>) -> Result<String, String> {
    let lines = in_order(table).into_iter().map(|(key, value)| {
        let text = match value.get_ref() {
            DeValue::Array(values) => {
                let items = values.iter().map(|value| item(value.get_ref()));
                items.collect::<Result<Vec<_>, _>>()?.join(",")
            }
            other @ (DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Table(_)) => item(other)?,
        };
        let is_one_line = !text.contains('\n');
        let line = format!("{}={text}", key.get_ref());
        is_one_line
            .then_some(line)
            .ok_or_else(|| "a text of several lines in it; write it on one".to_owned())
    });
    Ok(lines.collect::<Result<Vec<_>, _>>()?.join("\n"))
}

fn item(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.clone().into_owned()),
        DeValue::Boolean(truth) => Ok(truth.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(|number| number.to_string())
            .map_err(|error| format!("{error}; write a number of up to 64 bits")),
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            Err(format!(
                "a {} is the value of no setting; write a text, a whole number, true or a list",
                value.type_str()
            ))
        }
    }
}

fn unknown(key: &str, known: impl Iterator<Item = &'static Setting>) -> String {
    nearest(key, known).map_or_else(
        || "no setting has this key; `serve --help` lists them".to_owned(),
        |nearest| format!("no setting has this key; did you mean {nearest}?"),
    )
}

/// The key that somebody may have meant.
pub(super) fn nearest(
    key: &str,
    known: impl Iterator<Item = &'static Setting>,
) -> Option<&'static str> {
    let likeness = |known: &str| strsim::jaro_winkler(key, known);
    known
        .map(|setting| setting.key)
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
        .filter(|nearest| likeness(nearest) >= LEAST_LIKENESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Said, Error> {
        let mut mistakes = Mistakes::default();
        let said = parse(text, Path::new("x.toml"), &mut mistakes)?;
        mistakes.end().map(|()| said)
    }

    fn error(text: &str) -> String {
        read(text).unwrap_err().to_string()
    }

    #[test]
    fn values_become_the_texts_of_a_command_line() {
        let text = "# comment\nmax_nodes = 1_000\nopen_gossip = true\n\nlog_level = \"warn\"\n\
                    peers = [\n\"a:1\",\n\"b:2\",\n]\npunch_rate = 0x10";
        let said = read(text).unwrap();
        let given: Vec<_> = said
            .settings
            .iter()
            .map(|(key, Given { items, origin })| {
                let Origin::File { line, .. } = origin else { panic!("{origin:?}") };
                (*key, items.join("|"), *line)
            })
            .collect();
        let expected = [
            ("max_nodes", "1000", 2),
            ("open_gossip", "true", 3),
            ("log_level", "warn", 5),
            ("peers", "a:1|b:2", 6),
            ("punch_rate", "16", 10),
        ];
        assert_eq!(given, expected.map(|(key, text, line)| (key, text.to_owned(), line)));
    }

    #[test]
    fn unknown_key_is_refused_with_the_nearest_one() {
        assert_eq!(
            error("max_nodes = 1\nidle_timout = \"90s\""),
            "x.toml: line 2: idle_timout = \"90s\": no setting has this key; did you mean idle_timeout?"
        );
        assert!(error("udp-bind = \":1\"").ends_with("did you mean udp_bind?"));
        assert!(error("config = \"y\"").contains("no setting has this key"));
        assert!(error("zzz = 1").ends_with("`serve --help` lists them"));
        assert!(error("[limits]\nmax_nodes = 1").contains("limits"));
    }

    #[test]
    fn settings_of_netbird_can_stand_in_a_table_of_its_name() {
        let text = "netbird_bind = \":443\"\n[netbird]\nexposed_address = \"a:443\"\n\
                    netbird_tls_key = \"k\"\nacme = [\"a.test\", \"b.test\"]";
        let said = read(text).unwrap().settings;
        let said: Vec<_> = said.iter().map(|(key, given)| (*key, given.items.join("|"))).collect();
        let expected = [
            ("netbird_bind", ":443"),
            ("netbird_exposed_address", "a:443"),
            ("netbird_tls_key", "k"),
            ("netbird_acme", "a.test|b.test"),
        ];
        assert_eq!(said, expected.map(|(key, text)| (key, text.to_owned())));

        let unknown = error("[netbird]\nbint = \":443\"");
        assert!(unknown.starts_with("x.toml: line 2: netbird.bint = "), "{unknown}");
        assert!(unknown.ends_with("did you mean netbird_bind?"), "{unknown}");
        for twice in [
            "netbird_bind = \":1\"\n[netbird]\nbind = \":2\"",
            "netbird = { bind = \":1\" }\nnetbird_bind = \":2\"",
            "[netbird]\nbind = \":1\"\nnetbird_bind = \":2\"",
        ] {
            assert!(error(twice).contains("once is enough"), "{twice}");
        }
        assert!(error("[netbird]\nudp_bind = \":1\"").contains("no setting has this key"));
        assert!(error("netbird = 1").contains("no setting has this key"));
    }

    #[test]
    fn all_mistakes_of_a_file_are_told_at_once() {
        let text = "idle_timout = \"90s\"\n[netbird]\nbint = \":1\"\n[[listener]]\nbimd = \":2\"";
        let error = read(text).unwrap_err();
        let lines: Vec<_> = error.each().iter().map(ToString::to_string).collect();
        let [one, two, three] = &*lines else { panic!("{error}") };
        assert!(one.starts_with("x.toml: line 1: idle_timout = "), "{one}");
        assert!(two.starts_with("x.toml: line 3: netbird.bint = "), "{two}");
        assert!(three.starts_with("x.toml: line 5: listener[1].bimd = "), "{three}");
        assert!(error.to_string().starts_with("3 mistakes; (1) x.toml: line 1"), "{error}");
    }

    #[test]
    fn value_of_another_type_is_refused() {
        for text in ["max_nodes = 1.5", "peers = [[]]", "max_nodes = 1979-05-27", "log_level = {}"]
        {
            assert!(error(text).contains("is the value of no setting"), "{text}");
        }
    }

    #[test]
    fn what_is_no_toml_is_refused_with_its_line() {
        for text in ["\nmax_nodes = ", "\nmax_nodes", "\n=", "max_nodes = 1\nmax_nodes = 2"] {
            let error = error(text);
            assert!(error.starts_with("x.toml: line 2: "), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
