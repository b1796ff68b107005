//! Prints rows as they come: a table for people, JSON for machines.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write};

/// One value of a row.
#[derive(Clone, Debug)]
pub enum Value {
    /// A word.
    Text(String),
    /// A number of things.
    Count(u64),
    /// A number with so many decimals.
    Number(f64, usize),
}

impl Value {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Count(count) => count.to_string(),
            Self::Number(number, decimals) => format!("{number:.decimals$}"),
        }
    }

    fn json(&self) -> serde_json::Value {
        match self {
            Self::Text(text) => text.as_str().into(),
            Self::Count(count) => (*count).into(),
            Self::Number(number, _) => (*number).into(),
        }
    }
}

/// Where rows go.
#[derive(Debug)]
pub struct Report<W> {
    out: W,
    json: bool,
    rows: Option<File>,
    server_width: usize,
    table: String,
}

impl<W: Write> Report<W> {
    /// Prints to `out`, as JSON where asked for; the names of servers have at most so many
    /// characters.
    pub const fn new(out: W, json: bool, server_width: usize) -> Self {
        Self { out, json, rows: None, server_width, table: String::new() }
    }

    /// The same, with the rows as JSON in a file as well, if there is one.
    #[must_use]
    pub fn with_rows(self, rows: Option<File>) -> Self {
        Self { rows, ..self }
    }

    /// Prints one row of a table, under its heads where the table begins.
    ///
    /// # Errors
    /// The output is closed, or the file cannot be written.
    pub fn row(&mut self, table: &str, columns: &[(&'static str, Value)]) -> io::Result<()> {
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
            let heads = columns.iter().map(|(name, _)| self.cell(name, name));
            let heads = heads.collect::<Vec<_>>().join("  ");
            writeln!(self.out, "{gap}{table}\n{heads}")?;
            table.clone_into(&mut self.table);
        }
        let cells = columns.iter().map(|(name, value)| self.cell(name, &value.text()));
        let cells = cells.collect::<Vec<_>>().join("  ");
        writeln!(self.out, "{cells}")?;
        self.out.flush()
    }

    /// A text in the column of that name: as wide as its head, and wide enough for seven digits.
    fn cell(&self, name: &str, text: &str) -> String {
        let least = if name == "server" { self.server_width } else { 8 };
        format!("{text:>width$}", width = name.chars().count().max(least))
    }
}

/// Says on a terminal what is being measured; the next row or word takes its place.
pub(crate) fn progress(what: &str) {
    let mut terminal = io::stderr().lock();
    if terminal.is_terminal() {
        // A terminal that is gone needs no progress.
        let _ = write!(terminal, "\r\x1b[K{what}\r");
        let _ = terminal.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(report: &mut Report<Vec<u8>>, table: &'static str) -> io::Result<()> {
        let server = Value::Text("relay".to_owned());
        let cost = Value::Number(0.25, 3);
        report.row(table, &[("server", server), ("pairs", Value::Count(8)), ("µs each", cost)])
    }

    #[test]
    fn table_has_its_heads_once() -> io::Result<()> {
        let mut report = Report::new(Vec::new(), false, 10);
        row(&mut report, "login")?;
        row(&mut report, "login")?;
        row(&mut report, "idle")?;
        let heads = "    server     pairs   µs each";
        let line = "     relay         8     0.250";
        let expected = format!("login\n{heads}\n{line}\n{line}\n\nidle\n{heads}\n{line}\n");
        assert_eq!(String::from_utf8_lossy(&report.out), expected);
        Ok(())
    }

    #[test]
    fn json_names_the_table_in_each_row() -> io::Result<()> {
        let mut report = Report::new(Vec::new(), true, 8);
        row(&mut report, "login")?;
        let row: serde_json::Value = serde_json::from_slice(&report.out)?;
        let expected =
            serde_json::json!({"table": "login", "server": "relay", "pairs": 8, "µs each": 0.25});
        assert_eq!(row, expected);
        Ok(())
    }
}
