//! Prints rows as they come, with the keys of `beacon-relay bench`: a table for people, JSON
//! for machines.

use std::io::{self, Write};

/// One value of a row.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Text(String),
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
pub(crate) struct Report<W> {
    out: W,
    json: bool,
    table: &'static str,
}

impl<W: Write> Report<W> {
    pub(crate) const fn new(out: W, json: bool) -> Self {
        Self { out, json, table: "" }
    }

    /// Prints one row of a table, under its heads where the table begins.
    ///
    /// # Errors
    /// The output is closed.
    pub(crate) fn row(
        &mut self,
        table: &'static str,
        columns: &[(&'static str, Value)],
    ) -> io::Result<()> {
        if self.json {
            let values = columns.iter().map(|(name, value)| ((*name).to_owned(), value.json()));
            let table = ("table".to_owned(), table.into());
            let row: serde_json::Map<_, _> = std::iter::once(table).chain(values).collect();
            serde_json::to_writer(&mut self.out, &row)?;
            writeln!(self.out)?;
            return self.out.flush();
        }
        if self.table != table {
            let gap = if self.table.is_empty() { "" } else { "\n" };
            writeln!(self.out, "{gap}{table}")?;
            let heads = columns.iter().map(|(name, _)| format!("{name:>0$}", width(name)));
            writeln!(self.out, "{}", heads.collect::<Vec<_>>().join("  "))?;
            self.table = table;
        }
        let cells = columns.iter().map(|(name, value)| {
            let (text, width) = (value.text(), width(name));
            format!("{text:>width$}")
        });
        writeln!(self.out, "{}", cells.collect::<Vec<_>>().join("  "))?;
        self.out.flush()
    }
}

/// Columns are as wide as their heads, and wide enough for what is in them.
fn width(name: &str) -> usize {
    match name {
        "server" => 28,
        name => name.chars().count().max(8),
    }
}
