//! No files of a room import each other, not even by way of third ones: of two that are used
//! together, one can be read first.
//!
//! A folder's `mod.rs` and what lies in the folder may: the one lists and shows the other. So
//! may tests. A name counts as imported from the file that defines it, whoever shows it, and
//! what a macro names with `$crate` is its callers'.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

type Module = Vec<String>;

/// What a file says of others.
#[derive(Debug, Default)]
struct Source {
    /// The names that it imports or shows, each with the path that it has them from.
    names: BTreeMap<String, Vec<String>>,
    /// All paths to others that it has.
    paths: BTreeSet<Vec<String>>,
}

/// The modules of a crate, by their paths from its root.
type Modules = BTreeMap<Module, Source>;

fn words(path: &str) -> Vec<String> {
    path.split("::").map(|word| word.trim().to_owned()).collect()
}

/// The paths of a `use` and the names that they have there.
fn expand(prefix: &str, tree: &str, found: &mut Vec<(String, Vec<String>)>) {
    let tree = tree.trim();
    if let Some(group) = tree.strip_prefix('{').and_then(|group| group.strip_suffix('}')) {
        let mut depth = 0;
        let item = |c: char| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            c == ',' && depth == 0
        };
        group.split(item).for_each(|item| expand(prefix, item, found));
    } else if let Some((first, rest)) = tree.split_once("::") {
        expand(&format!("{prefix}{first}::"), rest, found);
    } else if !tree.is_empty() {
        let (name, alias) = tree.split_once(" as ").unwrap_or((tree, tree));
        let path = format!("{prefix}{name}");
        let path = path.strip_suffix("::self").unwrap_or(&path);
        let last = path.rsplit("::").next().unwrap_or(path);
        let alias = if alias == "self" { last } else { alias };
        found.push((alias.trim().to_owned(), words(path)));
    }
}

fn parse(text: &str) -> Source {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let code = text.lines().map(|line| line.split("//").next().unwrap());
    let code: String = code.collect::<Vec<_>>().join("\n");
    let mut source = Source::default();
    let mut rest = String::new();
    for (at, statement) in code.split(';').enumerate() {
        // The first line of a statement may end a block or carry attributes.
        let begin = statement.find("use ").filter(|at| {
            let before = statement[..*at].trim_end();
            let before = before.rsplit('\n').next().unwrap().trim();
            before.is_empty() || before.starts_with("pub") || before.ends_with('{')
        });
        match begin {
            Some(begin) => {
                rest.push_str(&statement[..begin]);
                let mut names = Vec::new();
                let tree = statement[begin + 4..].split_whitespace().collect::<Vec<_>>().join(" ");
                expand("", &tree, &mut names);
                for (name, path) in names {
                    source.paths.insert(path.clone());
                    // `as _` is no name.
                    let name = if name == "_" { format!("_{at}") } else { name };
                    source.names.insert(name, path);
                }
            }
            None => rest.push_str(statement),
        }
        rest.push(';');
    }
    for root in ["crate::", "super::"] {
        for (at, _) in rest.match_indices(root) {
            // `super::super::` is found at its first word; what a macro has is its callers'.
            if rest[..at].ends_with(['$', ':']) {
                continue;
            }
            let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
            let path: String = rest[at..].chars().take_while(|c| is_path(*c)).collect();
            source.paths.insert(words(path.trim_end_matches(':')));
        }
    }
    source
}

/// The module whose file a path leads to; nothing of another crate.
fn resolve(modules: &Modules, from: &[String], path: &[String], depth: u8) -> Option<Module> {
    // Names that show each other: a circle of its own.
    let depth = depth.checked_sub(1)?;
    let mut at = from.to_vec();
    for (position, word) in path.iter().enumerate() {
        let below: Module = at.iter().chain([word]).cloned().collect();
        match word.as_str() {
            "crate" if position == 0 => at.clear(),
            "self" if position == 0 => {}
            "super" => drop(at.pop()),
            _ if modules.contains_key(&below) => at = below,
            _ => match modules.get(&at)?.names.get(word) {
                Some(shown) if at != from || position > 0 => {
                    at = resolve(modules, &at, shown, depth)?;
                }
                _ if position == 0 => return None,
                _ => return Some(at),
            },
        }
    }
    Some(at)
}

fn read(folder: &Path, module: &[String], modules: &mut Modules) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let below: Module = module.iter().cloned().chain([name.clone()]).collect();
        if path.is_dir() {
            read(&path, &below, modules);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let own = if ["mod", "lib"].contains(&name.as_str()) { module } else { &below };
            modules.insert(own.to_vec(), parse(&fs::read_to_string(&path).unwrap()));
        }
    }
}

/// The files of one room that each module imports from.
fn imports(modules: &Modules) -> BTreeMap<&Module, BTreeSet<Module>> {
    let is_test = |module: &Module| module.iter().any(|word| word == "tests");
    let of = |module: &Module, source: &Source| {
        let targets = source.paths.iter().filter_map(|path| resolve(modules, module, path, 9));
        let others = targets.filter(|target| {
            target.first() == module.first()
                && !target.starts_with(module)
                && !module.starts_with(target)
                && !is_test(target)
        });
        others.collect()
    };
    let sources = modules.iter().filter(|(module, _)| !is_test(module));
    sources.map(|(module, source)| (module, of(module, source))).collect()
}

/// All modules that an import leads to in the end.
fn reached(imports: &BTreeMap<&Module, BTreeSet<Module>>, from: &Module) -> BTreeSet<Module> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<_> = imports[from].iter().cloned().collect();
    while let Some(module) = next.pop() {
        if reached.insert(module.clone()) {
            next.extend(imports.get(&module).into_iter().flatten().cloned());
        }
    }
    reached
}

/// The groups of files that import each other.
fn circles(modules: &Modules) -> BTreeSet<BTreeSet<String>> {
    let imports = imports(modules);
    let reached: BTreeMap<_, _> =
        imports.keys().map(|module| (*module, reached(&imports, module))).collect();
    let circle = |module: &Module| -> BTreeSet<String> {
        let others = reached[module].iter().filter(|other| reached[*other].contains(module));
        others.map(|other| other.join("/")).collect()
    };
    reached.keys().map(|module| circle(module)).filter(|circle| circle.len() > 1).collect()
}

/// Each file of a circle with those of it that it imports.
fn described(circle: &BTreeSet<String>, imports: &BTreeMap<&Module, BTreeSet<Module>>) -> String {
    let lines = circle.iter().map(|name| {
        let module: Module = name.split('/').map(str::to_owned).collect();
        let targets = imports[&module].iter().map(|target| target.join("/"));
        let targets: Vec<_> = targets.filter(|target| circle.contains(target)).collect();
        format!("  {name} imports {}", targets.join(", "))
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn no_files_of_a_room_import_each_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut count = 0;
    let crates = fs::read_dir(root.join("crates")).unwrap().map(|entry| entry.unwrap().path());
    for package in crates.chain([root.to_owned()]) {
        let mut modules = Modules::new();
        read(&package.join("src"), &[], &mut modules);
        let imports = imports(&modules);
        count += imports.values().map(BTreeSet::len).sum::<usize>();
        for circle in circles(&modules) {
            found.push(described(&circle, &imports));
        }
    }
    assert!(found.is_empty(), "these import each other:\n{}", found.join("\n\n"));
    assert!(count > 200, "{count} imports were found: has the search gone blind?");
}

#[test]
fn circles_are_found_by_whatever_name_they_are_closed() {
    let modules: Modules = [
        ("room", "mod a;\nmod b;\nmod c;\nmod d;\npub use c::{C, self as third};"),
        ("room/a", "use super::b::{self, B as Other};\nuse std::fmt;"),
        ("room/b", "fn f() -> crate::room::C { todo!() }\n// use super::d;"),
        ("room/c", "use std::io;\npub(super) use super::{\n    a::{A},\n};"),
        (
            "room/d",
            "use super::*;\nuse super::a::A;\n#[cfg(test)]\nmod tests {\nuse crate::room::e;\n}",
        ),
        ("room/e", "use super::d;\nmacro_rules! m { () => { $crate::room::f::F } }"),
        ("room/f", "use crate::{room::e::E, other::g};"),
        ("other/g", "use crate::room::f;"),
    ]
    .into_iter()
    .map(|(name, text)| (name.split('/').map(str::to_owned).collect(), parse(text)))
    .collect();

    let circle = ["room/a", "room/b", "room/c"].map(str::to_owned);
    assert_eq!(circles(&modules), BTreeSet::from([BTreeSet::from(circle)]));
}
