//! Completions, as each shell offers them: the shells themselves are asked.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

/// What is offered for each line.
type Offers = BTreeMap<String, BTreeSet<String>>;

/// The completion script is the first argument, the lines are the others.
const BASH: &str = r#"
source "$1"; shift
completes=$(complete -p beacon-relay | sed 's/.* -F //; s/ .*//')
# Only the shell's own completion may be told more; what it would add is added here.
compopt() { [[ $* == *dirs* ]] && folders=1; }
for line in "$@"; do
    echo "line:$line"
    folders=
    read -ra COMP_WORDS <<<"$line"
    [[ $line == *" " ]] && COMP_WORDS+=("")
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()
    $completes beacon-relay "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
    [[ $folders ]] && COMPREPLY+=($(compgen -d -- "${COMP_WORDS[COMP_CWORD]}"))
    printf 'offer:%s\n' "${COMPREPLY[@]}"
done
"#;

const FISH: &str = r#"
source $argv[1]
for line in $argv[2..]
    echo "line:$line"
    complete --do-complete $line | string replace --regex '^([^\t]*).*' 'offer:$1'
end
"#;

/// A terminal of its own, where the key for completions is pressed behind each line.
const ZSH: &str = r#"
zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z "source $1.setup"; script=$1; shift
while zpty -r z said; do [[ $said == *ready* ]] && break; done
for line in "$@"; do
    print -r -- "line:$line"
    zpty -w -n z $'\x15'"$line"$'\t'
    while zpty -r z said; do
        said=${said%$'\r\n'}
        [[ $said == *offer:* ]] && print -r -- "offer:${said##*offer:}"
        [[ $said == end* ]] && break
    done
done
"#;

/// What that terminal reads first: it prints what would be offered.
const ZSH_SETUP: &str = r#"
PROMPT=
autoload compinit; compinit -u -D
source SCRIPT
bindkey "^M" undefined
bindkey "^J" undefined
bindkey "^I" list-choices
bindkey "^U" kill-whole-line
ended() { echo -E - end; comppostfuncs=( ended ) }
comppostfuncs=( ended )
compadd() {
    if [[ ${@[1,(i)(-|--)]} == *-(O|A|D)\ * ]]; then builtin compadd "$@"; return $?; fi
    typeset -a hits
    builtin compadd -A hits "$@"
    for hit in $hits; do print -r -- "offer:$hit"; done
}
echo ready
"#;

fn beacon_relay(words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_beacon-relay")).args(words).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Asks a shell what it offers for these lines.
fn ask(shell: &str, folder: &Path, lines: &[String]) -> Offers {
    let script = folder.join(shell);
    fs::write(&script, beacon_relay(&["completions", shell])).unwrap();
    let setup = ZSH_SETUP.replace("SCRIPT", script.to_str().unwrap());
    fs::write(script.with_added_extension("setup"), setup).unwrap();
    let program = match shell {
        "bash" => BASH,
        "zsh" => ZSH,
        _ => FISH,
    };
    let asking = script.with_added_extension("asks");
    fs::write(&asking, program).unwrap();
    let mut command = Command::new(shell);
    let no_settings = if shell == "zsh" {
        "-f"
    } else if shell == "bash" {
        "--norc"
    } else {
        "--no-config"
    };
    command.arg(no_settings).arg(&asking).arg(&script).args(lines);
    command.current_dir(folder).env("HOME", folder).env("TERM", "dumb");
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("cannot start {shell} ({error}); `make setup` installs it"));
    let said = String::from_utf8_lossy(&output.stdout);
    let mut offers = Offers::new();
    let mut line = String::new();
    for text in said.lines() {
        if let Some(next) = text.strip_prefix("line:") {
            next.clone_into(&mut line);
            offers.entry(line.clone()).or_default();
        } else if let Some(offer) = text.strip_prefix("offer:") {
            offers.entry(line.clone()).or_default().insert(offer.trim().to_owned());
        }
    }
    assert_eq!(
        offers.len(),
        lines.len(),
        "{shell}: {said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    offers
}

/// The commands that the help lists, behind these words.
fn commands(words: &[&str]) -> Vec<String> {
    let help = beacon_relay(&[words, &["--help"]].concat());
    let list = help.split_once("Commands:\n").map(|(_, rest)| rest.split("\n\n").next().unwrap());
    let names = list.unwrap_or_default().lines().filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

/// The flags that the help of a command lists.
fn flags(words: &[&str]) -> Vec<String> {
    let help = beacon_relay(&[words, &["--help"]].concat());
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let long =
        lines.filter_map(|line| line.split([' ', '[', '=']).find(|word| word.starts_with("--")));
    long.map(str::to_owned).collect()
}

#[test]
fn each_shell_completes_every_command_its_flags_and_their_values() {
    let folder = tempfile::tempdir().unwrap();
    let top = commands(&[]);
    let nested = top
        .iter()
        .flat_map(|one| commands(&[one]).into_iter().map(move |two| format!("{one} {two}")));
    let all: Vec<String> = top.iter().cloned().chain(nested.collect::<Vec<_>>()).collect();
    assert!(all.len() > 40, "{all:?}");
    let mut expected: Vec<(String, Vec<String>)> = vec![("beacon-relay ".to_owned(), top.clone())];
    for command in &all {
        let words: Vec<_> = command.split(' ').collect();
        expected.push((format!("beacon-relay {command} --"), flags(&words)));
    }
    let texts = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    expected.push(("beacon-relay certs ".to_owned(), texts(&["ca", "instance", "inspect"])));
    expected.push(("beacon-relay completions ".to_owned(), texts(&["bash", "zsh", "fish"])));
    expected.push(("beacon-relay switch ".to_owned(), texts(&["punch", "relay", "discover"])));
    expected.push(("beacon-relay peers --sort ".to_owned(), texts(&["waiting", "age"])));
    expected.push(("beacon-relay serve --log-format ".to_owned(), texts(&["text", "json"])));
    expected.push(("beacon-relay serve --bus-durability ".to_owned(), texts(&["always", "none"])));
    let lines: Vec<_> = expected.iter().map(|(line, _)| line.clone()).collect();
    for shell in ["bash", "zsh", "fish"] {
        let offers = ask(shell, folder.path(), &lines);
        for (line, words) in &expected {
            let missing: Vec<_> =
                words.iter().filter(|word| !offers[line].contains(*word)).collect();
            assert!(missing.is_empty(), "{shell}, {line}: {missing:?} of {:?}", offers[line]);
        }
    }
}

#[test]
fn each_shell_offers_files_and_folders_where_a_flag_takes_one() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("a_folder")).unwrap();
    fs::write(folder.path().join("a_file"), "").unwrap();
    let of = |line: &str| format!("beacon-relay {line} a_");
    let lines = [of("serve --state-dir"), of("serve --config"), of("status --state-dir")];
    for shell in ["bash", "fish"] {
        let offers = ask(shell, folder.path(), &lines);
        let has = |line: &String, name: &str| {
            offers[line].iter().any(|offer| offer.trim_end_matches('/') == name)
        };
        for line in &lines {
            assert!(has(line, "a_folder"), "{shell}, {line}: {offers:?}");
        }
        assert!(has(&lines[1], "a_file"), "{shell}: {offers:?}");
        assert!(!has(&lines[0], "a_file") && !has(&lines[2], "a_file"), "{shell}: {offers:?}");
    }
}
