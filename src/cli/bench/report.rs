//! Prints rows as they come: a table for people, JSON for machines.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write};

/// One value of a row.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(&'static str),
    Count(u64),
    /// A number with so many decimals.
    Number(f64, usize),
}

impl Value {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => (*text).to_owned(),
            Self::Count(count) => count.to_string(),
            Self::Number(number, decimals) => format!("{number:.decimals$}"),
        }
    }

    fn json(&self) -> serde_json::Value {
        match self {
            Self::Text(text) => (*text).into(),
            Self::Count(count) => (*count).into(),
            Self::Number(number, _) => (*number).into(),
        }
    }
}

/// Where rows go.
#[derive(Debug)]
pub(super) struct Report<W> {
    out: W,
    json: bool,
    rows: Option<File>,
    table: &'static str,
}

impl<W: Write> Report<W> {
    /// Prints to `out`, as JSON where asked for; `rows` gets the JSON in any case.
    pub(super) const fn new(out: W, json: bool, rows: Option<File>) -> Self {
        Self { out, json, rows, table: "" }
    }

    /// Prints one row of a table, under its heads where the table begins.
    pub(super) fn row(
        &mut self,
        table: &'static str,
        columns: &[(&'static str, Value)],
    ) -> io::Result<()> {
        let values = columns.iter().map(|(name, value)| ((*name).to_owned(), value.json()));
        let named = ("table".to_owned(), table.into());
        let row: serde_json::Map<_, _> = std::iter::once(named).chain(values).collect();
        let row = format!("{}\n", serde_json::Value::Object(row));
        if let Some(rows) = &mut self.rows {
            rows.write_all(row.as_bytes())?;
        }
        if self.json {
            self.out.write_all(row.as_bytes())?;
            return self.out.flush();
        }
        if self.table != table {
            let gap = if self.table.is_empty() { "" } else { "\n" };
            writeln!(self.out, "{gap}{table}")?;
            let heads =
                columns.iter().map(|(name, _)| format!("{name:>width$}", width = width(name)));
            writeln!(self.out, "{}", heads.collect::<Vec<_>>().join("  "))?;
            self.table = table;
        }
        let cells = columns
            .iter()
            .map(|(name, value)| format!("{:>width$}", value.text(), width = width(name)));
        writeln!(self.out, "{}", cells.collect::<Vec<_>>().join("  "))?;
        self.out.flush()
    }
}

/// Says on a terminal what is being measured; the next row or word takes its place.
pub(super) fn progress(what: &str) {
    let mut terminal = io::stderr().lock();
    if terminal.is_terminal() {
        // A terminal that is gone needs no progress.
        let _ = write!(terminal, "\r\x1b[K{what}\r");
        let _ = terminal.flush();
    }
}

/// Columns are as wide as their heads, and wide enough for seven digits.
fn width(name: &str) -> usize {
    name.chars().count().max(8)
}
