//! The configuration file: TOML, whose keys are the flags with underscores.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::given::Given;
use super::secret::shown;
use super::small_file::contents;
use super::{Error, Origin, Place, all_settings};

/// Least likeness, from 0 to 1, at which a known key is offered for an unknown one.
const LEAST_LIKENESS: f64 = 0.7;

/// What the file says; `named_by` is who named it.
pub(super) fn read(path: &Path, named_by: Origin) -> Result<Vec<(&'static str, Given)>, Error> {
    let text = contents(path).map_err(|error| Error::File {
        place: Place { key: "config".to_owned(), origin: named_by },
        path: path.to_owned(),
        reason: format!("cannot be read: {error}"),
    })?;
    parse(&text, path)
}

fn parse(text: &str, path: &Path) -> Result<Vec<(&'static str, Given)>, Error> {
    let line = |offset: usize| 1 + text.bytes().take(offset).filter(|b| *b == b'\n').count();
    let table = DeTable::parse(text).map_err(|error| Error::Syntax {
        path: path.to_owned(),
        line: line(error.span().map_or(0, |span| span.start)),
        reason: error.message().replace('\n', ", "),
    })?;

    let mut entries: Vec<_> = table.get_ref().iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
        .into_iter()
        .map(|(key, value)| {
            let origin = Origin::File { path: path.to_owned(), line: line(key.span().start) };
            let key = key.get_ref().as_ref();
            let refuse = |reason| Error::Setting {
                place: Place { key: key.to_owned(), origin: origin.clone() },
                value: shown(key, text.get(value.span()).unwrap_or_default().trim_matches('"'))
                    .into_owned(),
                reason,
            };
            let setting = all_settings().find(|setting| setting.key == key);
            let setting = setting.ok_or_else(|| refuse(unknown(key)))?;
            let items = items(value.get_ref()).map_err(refuse)?;
            Ok((setting.key, Given { items, origin }))
        })
        .collect()
}

/// The value as the texts that a command line would have.
fn items(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    if let DeValue::Array(values) = value {
        return values.iter().map(|value| item(value.get_ref())).collect();
    }
    Ok(vec![item(value)?])
}

fn item(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.clone().into_owned()),
        DeValue::Boolean(truth) => Ok(truth.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(|number| number.to_string())
            .map_err(|error| error.to_string()),
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            Err(format!(
                "a {} is the value of no setting; write a text, a whole number, true or a list",
                value.type_str()
            ))
        }
    }
}

fn unknown(key: &str) -> String {
    let likeness = |known: &str| strsim::jaro_winkler(key, known);
    all_settings()
        .map(|setting| setting.key)
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
        .filter(|nearest| likeness(nearest) >= LEAST_LIKENESS)
        .map_or_else(
            || "no setting has this key; `serve --help` lists them".to_owned(),
            |nearest| format!("no setting has this key; did you mean {nearest}?"),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text, Path::new("x.toml")).unwrap_err().to_string()
    }

    #[test]
    fn values_become_the_texts_of_a_command_line() {
        let text = "# comment\nmax_nodes = 1_000\nopen_gossip = true\n\nlog_level = \"warn\"\n\
                    peers = [\n\"a:1\",\n\"b:2\",\n]\npunch_rate = 0x10";
        let given = parse(text, Path::new("x.toml")).unwrap();
        let given: Vec<_> = given
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
