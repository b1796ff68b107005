//! How texts for people are worded: what a message may not have, and what a refusal must have.

/// Fails where a text for people has what Rust shows to programmers.
pub(crate) fn assert_plain(what: &str, text: &str) {
    for debug in ["Some(", "Err(", "Ok(", "Other(", "OtherError("] {
        // What libraries say at that level is for their programmers.
        let is_ours = |line: &&str| !line.contains(" DEBUG ") || line.contains(" beacon_");
        let line = text.lines().filter(is_ours).find(|line| line.contains(debug));
        assert!(line.is_none(), "{what} says {line:?}");
    }
}

/// How a clause begins that tells a person what to do.
const ORDERS: [&str; 47] = [
    "`--",
    "`beacon-relay ",
    "`channels`",
    "`names`",
    "`serve ",
    "a similar ",
    "add ",
    "ask ",
    "bind ",
    "choose ",
    "correct ",
    "did you mean ",
    "free ",
    "give ",
    "is ",
    "keep ",
    "leave ",
    "let ",
    "look ",
    "lower ",
    "make ",
    "move ",
    "name ",
    "needs ",
    "neither ",
    "not from ",
    "once is enough",
    "raise ",
    "remove ",
    "rename ",
    "renew ",
    "repeat ",
    "report ",
    "restart ",
    "restore ",
    "run ",
    "see ",
    "set ",
    "shorten ",
    "spread ",
    "start ",
    "stop ",
    "take ",
    "try ",
    "use ",
    "wait",
    "write ",
];

/// How else a clause names what would be right.
const RIGHT: [&str; 8] = [
    "such as ",
    " needs --",
    "as in ",
    " instead",
    "needs a",
    " whole number from ",
    "chmod ",
    "--help",
];

/// Fails where a refusal does not say what to do: in a clause that orders something, or by what would
/// be right.
#[track_caller]
pub(crate) fn assert_names_a_way_out(message: &str) {
    let mut clauses = message.split(['\n', ';', ':', ',', '(', '.', '?', '>']).map(str::trim);
    let orders = |clause: &str| ORDERS.iter().any(|order| clause.to_lowercase().starts_with(order));
    let is_named = clauses.any(orders) || RIGHT.iter().any(|right| message.contains(right));
    assert!(is_named, "no way out in: {message}");
}
