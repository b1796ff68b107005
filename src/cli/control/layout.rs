//! How answers are laid out for people: columns, fields, times.

use std::fmt::Write as _;

use serde_json::Value;

/// Columns, as wide as they need; numbers to the right.
pub(in crate::cli) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let is_number = |column: usize| {
        let mut cells = rows.iter().filter_map(|row| row.get(column));
        cells.all(|cell| cell.starts_with(|c: char| c.is_ascii_digit()) && !cell.contains(':'))
    };
    let columns: Vec<_> = heads
        .iter()
        .enumerate()
        .map(|(at, head)| {
            let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
            (cells.chain([head.len()]).max().unwrap_or_default(), is_number(at))
        })
        .collect();
    let mut out = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let cells = cells.zip(&columns).map(|(cell, (width, is_number))| match is_number {
            true => format!("{cell:>width$}"),
            false => format!("{cell:<width$}"),
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        // Writing to a string does not fail.
        let _ = writeln!(out, "{}", line.trim_end());
    };
    line(&mut heads.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    out
}

/// One line for each field, with those of inner objects behind a dot.
pub(super) fn fields(answer: &Value) -> String {
    let mut rows = Vec::new();
    gather(answer, "", &mut rows);
    let width = rows.iter().map(|(key, _)| key.len()).max().unwrap_or_default();
    rows.iter().map(|(key, value)| format!("{key:<width$}  {value}\n")).collect()
}

fn gather(value: &Value, prefix: &str, rows: &mut Vec<(String, String)>) {
    let key = |name: &str| {
        if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
    };
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| gather(value, &key(name), rows));
        }
        Value::Array(items) => {
            items.iter().zip(1..).for_each(|(item, n)| gather(item, &key(&n.to_string()), rows));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            rows.push((prefix.to_owned(), text(value)));
        }
    }
}

pub(super) fn list<'a>(answer: &'a Value, key: &str) -> &'a [Value] {
    answer.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The text of a field by its path.
pub(in crate::cli) fn at(value: &Value, path: &[&str]) -> String {
    let found = path.iter().try_fold(value, |value, key| value.get(key));
    found.map(text).unwrap_or_default()
}

/// A number of seconds as people say it.
pub(super) fn time(value: &Value, path: &[&str]) -> String {
    let found = path.iter().try_fold(value, |value, key| value.get(key)).and_then(Value::as_f64);
    match found {
        None => String::new(),
        Some(seconds) if seconds < 10.0 => format!("{seconds:.1}s"),
        Some(seconds) if seconds < 600.0 => format!("{seconds:.0}s"),
        Some(seconds) if seconds < 36_000.0 => format!("{:.0}m", seconds / 60.0),
        Some(seconds) if seconds < 864_000.0 => format!("{:.0}h", seconds / 3_600.0),
        Some(seconds) => format!("{:.0}d", seconds / 86_400.0),
    }
}

/// The text of a field, whatever its type; empty where there is none.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// How much a list leaves out.
pub(super) fn rest(answer: &Value, shown: usize) -> String {
    let total = answer.get("total").and_then(Value::as_u64).unwrap_or_default();
    if total > shown as u64 {
        return format!("{shown} of {total}; more with --limit\n");
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_need() {
        let rows =
            [vec!["7".to_owned(), "wss".to_owned()], vec!["1000000".to_owned(), String::new()]];
        assert_eq!(table(&["NODE", "OVER"], &rows), "   NODE  OVER\n      7  wss\n1000000\n");
        assert_eq!(table(&["NODE", "OVER"], &[]), "NODE  OVER\n");
    }
}
