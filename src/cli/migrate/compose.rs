//! The service of a relay in a compose file, as YAML or JSON.
//!
//! What is read: `environment`, `env_file` and `command`, with variables put in as Compose does.
//! What is not: `extends`, `include` and profiles. `docker compose config --format json` resolves
//! them, and its output is such a file as well.

use std::fs;
use std::path::Path;

use yaml_rust2::yaml::Hash;
use yaml_rust2::{Yaml, YamlLoader};

use super::sources::Variables;

/// Most aliases of a file: each is a copy of what it stands for, which may have others in it, so
/// that a few lines could be more than there is memory. 24 are 6,561 copies at worst.
const MOST_ALIASES: usize = 24;

/// How many aliases there may be in a text.
fn aliases(text: &str) -> usize {
    let begins = |at: usize| {
        let before = text.get(..at).and_then(|before| before.chars().next_back());
        before.is_none_or(|c| c.is_whitespace() || "[{,:".contains(c))
    };
    let names = |at: usize| {
        let after = text.get(at + 1..).and_then(|after| after.chars().next());
        after.is_some_and(|c| !c.is_whitespace() && c != '*')
    };
    text.match_indices('*').filter(|(at, _)| begins(*at) && names(*at)).count()
}

/// Whether a text has more aliases than are taken.
pub(super) fn has_too_many_aliases(text: &str) -> bool {
    aliases(text) > MOST_ALIASES
}

/// What a container of the service is started with.
#[derive(Debug, Default)]
pub(super) struct Service {
    pub(super) environment: Variables,
    pub(super) command: Vec<String>,
}

/// The service of this name, or else the one that may be a relay, in a file of this folder.
///
/// # Errors
/// Why there is none.
pub(super) fn service(
    text: &str,
    name: Option<&str>,
    folder: &Path,
    own: &Variables,
) -> Result<Service, String> {
    if has_too_many_aliases(text) {
        return Err("too many aliases; use the output of `docker compose config`".to_owned());
    }
    let documents = YamlLoader::load_from_str(text).map_err(|error| format!("no YAML: {error}"))?;
    let services = documents.first().map(|document| &document["services"]);
    let services = services.and_then(Yaml::as_hash).ok_or("it has no `services`")?;
    let defaults = env_file(&folder.join(".env")).unwrap_or_default();
    let put_in = |text: &str| interpolate(text, own, &defaults);
    let found = find(services, name)?;
    let mut service = Service::default();
    let files = part(found, "env_file");
    let path = |file: &Yaml| file["path"].as_str().or_else(|| file.as_str()).map(put_in);
    let files = files.as_vec().map_or_else(|| std::slice::from_ref(files), Vec::as_slice);
    for file in files.iter().filter_map(path) {
        let file = file?;
        let read = env_file(&folder.join(&file));
        let read = read.map_err(|error| format!("env_file {file}: {error}"))?;
        service.environment.extend(read);
    }
    for (variable, value) in pairs(part(found, "environment")) {
        let value = match value {
            Some(value) => Some(put_in(&value)?),
            // Without a value it has that of Compose's own environment.
            None => own.get(&variable).or_else(|| defaults.get(&variable)).cloned(),
        };
        service.environment.extend(value.map(|value| (variable, value)));
    }
    let command = part(found, "command");
    service.command = if let Some(line) = command.as_str() {
        words(&put_in(line)?)
    } else {
        let items = command.as_vec().into_iter().flatten().filter_map(scalar);
        items.map(|item| put_in(&item)).collect::<Result<_, _>>()?
    };
    Ok(service)
}

/// The service of this name, or else the only one that may be a relay.
fn find<'a>(services: &'a Hash, name: Option<&str>) -> Result<&'a Yaml, String> {
    let of = |yaml: &'a Yaml| yaml.as_str().unwrap_or_default();
    if let Some(name) = name {
        let found = services.iter().find(|(key, _)| of(key) == name);
        return found.map(|(_, service)| service).ok_or_else(|| format!("no service {name}"));
    }
    let is_relay = |service: &Yaml| {
        let image = part(service, "image").as_str().unwrap_or_default();
        let has_variable = pairs(part(service, "environment")).iter().any(|(variable, _)| {
            matches!(&**variable, "NB_EXPOSED_ADDRESS" | "OZ_EXPOSED_ADDRESS")
        });
        let image = image.rsplit('/').next().unwrap_or_default();
        has_variable || image.split([':', '@']).next() == Some("relay")
    };
    let found: Vec<_> = services.iter().filter(|(_, service)| is_relay(service)).collect();
    match &*found {
        [(_, service)] => Ok(service),
        [] => Err("no service looks like a relay; name it by --service".to_owned()),
        several => {
            let names: Vec<_> = several.iter().map(|(name, _)| of(name)).collect();
            Err(format!("several services may be it: {}; name one by --service", names.join(", ")))
        }
    }
}

/// A part of a service: its own, or that of a mapping that is merged into it.
fn part<'a>(service: &'a Yaml, key: &str) -> &'a Yaml {
    let own = &service[key];
    if !own.is_badvalue() {
        return own;
    }
    let merged = &service["<<"];
    let merged = merged.as_vec().map_or_else(|| std::slice::from_ref(merged), Vec::as_slice);
    let mut found = merged.iter().map(|merged| &merged[key]).filter(|part| !part.is_badvalue());
    found.next().unwrap_or(own)
}

/// The entries of a mapping, or of a list of `NAME=VALUE`.
fn pairs(yaml: &Yaml) -> Vec<(String, Option<String>)> {
    if let Some(hash) = yaml.as_hash() {
        let pair = |(name, value): (&Yaml, &Yaml)| Some((name.as_str()?.to_owned(), scalar(value)));
        return hash.iter().filter_map(pair).collect();
    }
    let pair = |text: String| match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (text, None),
    };
    yaml.as_vec().into_iter().flatten().filter_map(scalar).map(pair).collect()
}

/// A text, a number or a truth as text.
fn scalar(yaml: &Yaml) -> Option<String> {
    match yaml {
        Yaml::String(text) | Yaml::Real(text) => Some(text.clone()),
        Yaml::Integer(number) => Some(number.to_string()),
        Yaml::Boolean(truth) => Some(truth.to_string()),
        Yaml::Array(_) | Yaml::Hash(_) | Yaml::Alias(_) | Yaml::Null | Yaml::BadValue => None,
    }
}

/// A file with a line `NAME=VALUE` for each variable.
fn env_file(path: &Path) -> std::io::Result<Variables> {
    let text = fs::read_to_string(path)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.split_once('='));
    let unquoted = |value: &str| {
        let value = value.trim();
        let inner =
            ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
        inner.unwrap_or(value).to_owned()
    };
    Ok(pairs.map(|(name, value)| (name.trim().to_owned(), unquoted(value))).collect())
}

/// Puts variables in, as `$NAME`, `${NAME}`, `${NAME:-default}` and `$$`.
fn interpolate(text: &str, own: &Variables, defaults: &Variables) -> Result<String, String> {
    let value = |name: &str| own.get(name).or_else(|| defaults.get(name)).map(String::as_str);
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(behind) = behind.strip_prefix('$') {
            out.push('$');
            rest = behind;
            continue;
        }
        let (said, after) = if let Some(braced) = behind.strip_prefix('{') {
            braced.split_once('}').ok_or_else(|| format!("{text}: a brace without an end"))?
        } else {
            let end = behind.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            behind.split_at(end.unwrap_or(behind.len()))
        };
        rest = after;
        let end = said.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let (name, operator) = said.split_at(end.unwrap_or(said.len()));
        let set = value(name).filter(|value| !value.is_empty());
        let found = match (set, operator) {
            (Some(value), _) => value,
            (None, "") => {
                return Err(format!("${name} is not set; set it as for `docker compose`"));
            }
            (None, operator) => {
                let default = operator.strip_prefix(":-").or_else(|| operator.strip_prefix('-'));
                default.ok_or_else(|| format!("${name} is not set ({operator})"))?
            }
        };
        out.push_str(found);
    }
    out.push_str(rest);
    Ok(out)
}

/// The words of a command line, whose quotes hold spaces.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (c, quote) {
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, Some(open)) if c == open => quote = None,
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, name: Option<&str>) -> Result<Service, String> {
        let own = [("SECRET".to_owned(), "s3cret".to_owned())].into();
        service(text, name, Path::new("/nonexistent"), &own)
    }

    #[test]
    fn service_is_found_by_its_image_its_variables_or_its_name() {
        let text = "services:\n  db:\n    image: postgres:16\n  r:\n    image: netbirdio/relay:latest\n    \
                    environment:\n    - NB_EXPOSED_ADDRESS=rels://a:443\n    - NB_AUTH_SECRET=${SECRET}$$x\n    \
                    command: [\"--log-level\", debug]\n";
        let service = read(text, None).unwrap();
        assert_eq!(service.environment["NB_AUTH_SECRET"], "s3cret$x");
        assert_eq!(service.command, ["--log-level", "debug"]);
        assert!(read(text, Some("db")).unwrap().environment.is_empty());
        assert!(read(text, Some("x")).unwrap_err().contains("no service x"));
        let two = format!("{text}  s:\n    environment: {{ OZ_EXPOSED_ADDRESS: 'a:1' }}\n");
        assert!(read(&two, None).unwrap_err().contains("r, s"), "both may be it");
        assert!(read("services: {}", None).unwrap_err().contains("no service"));
        assert!(read("a: 1", None).unwrap_err().contains("no `services`"));
        assert!(read("a: [", None).unwrap_err().contains("no YAML"));
    }

    #[test]
    fn what_is_merged_into_a_service_is_its_own() {
        let text = "x-a: &a\n  environment: { NB_EXPOSED_ADDRESS: 'a:1' }\n  command: [--enable-stun]\n\
                    services:\n  one:\n    <<: *a\n    command: []\n";
        let service = read(text, None).unwrap();
        assert_eq!(service.environment["NB_EXPOSED_ADDRESS"], "a:1");
        assert!(service.command.is_empty());
    }

    #[test]
    fn json_is_read_as_well() {
        let text = r#"{"services":{"relay":{"image":"x/relay@sha256:00","environment":
            {"NB_STUN_PORTS":3478,"NB_ENABLE_STUN":true,"SECRET":null},"command":"--a 'b c'"}}}"#;
        let service = read(text, None).unwrap();
        let expected =
            [("NB_ENABLE_STUN", "true"), ("NB_STUN_PORTS", "3478"), ("SECRET", "s3cret")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(service.environment, expected.into());
        assert_eq!(service.command, ["--a", "b c"]);
    }

    #[test]
    fn variables_are_put_in_as_compose_does() {
        let own = [("A", "1"), ("EMPTY", "")].map(|(n, v)| (n.to_owned(), v.to_owned())).into();
        let put_in = |text: &str| interpolate(text, &own, &Variables::new());
        assert_eq!(put_in("x$A-${A}-${B:-2}-${EMPTY:-3}-$$A").unwrap(), "x1-1-2-3-$A");
        for text in ["$B", "${B}", "${B:?said}", "${A"] {
            assert!(put_in(text).is_err(), "{text}");
        }
    }

    #[test]
    fn aliases_that_would_fill_the_memory_are_refused() {
        let text = format!("a: &a [{}]", "*a,".repeat(25));
        assert!(read(&text, None).unwrap_err().contains("too many aliases"));
        assert_eq!(aliases("a: *a # ** 2*3 * 4\nb: [*b,*c]\n*d"), 4);
    }
}
