//! Tables for people: columns as wide as their widest cell, numbers to the right.

use std::fmt;

/// Rows under a heading. A cell is one line: what comes from outside is written with its control characters escaped, so
/// that nothing stored can play tricks on an operator's terminal.
#[derive(Debug, Clone, Default)]
pub struct Table {
    heading: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub fn new<const COLUMNS: usize>(heading: [&str; COLUMNS]) -> Self {
        Self { heading: heading.map(str::to_owned).to_vec(), rows: Vec::new() }
    }

    /// Adds a row. Cells beyond the heading are left out, missing ones are empty.
    pub fn row<const CELLS: usize>(&mut self, cells: [&dyn fmt::Display; CELLS]) {
        let printable = |cell: &dyn fmt::Display| {
            let mut out = String::new();
            for character in cell.to_string().chars() {
                if character.is_control() { out.extend(character.escape_default()) } else { out.push(character) }
            }
            out
        };
        let mut cells: Vec<String> = cells.into_iter().map(printable).collect();
        cells.resize(self.heading.len(), String::new());
        self.rows.push(cells);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = |cell: &String| cell.chars().count();
        let numeric = |cell: &String| !cell.is_empty() && cell.bytes().all(|byte| byte.is_ascii_digit());
        let columns: Vec<(usize, bool)> = (0..self.heading.len())
            .map(|column| {
                let cells = || self.rows.iter().filter_map(|row| row.get(column));
                let width = cells().chain(self.heading.get(column)).map(length).max().unwrap_or(0);
                (width, cells().next().is_some() && cells().all(numeric))
            })
            .collect();
        let line = |f: &mut fmt::Formatter<'_>, cells: &[String]| {
            let mut out = String::new();
            for (cell, (width, right)) in cells.iter().zip(&columns) {
                let padding = " ".repeat(width.saturating_sub(length(cell)));
                let (before, after) = if *right { (padding.as_str(), "") } else { ("", padding.as_str()) };
                out.extend([before, cell, after, "  "]);
            }
            writeln!(f, "{}", out.trim_end())
        };
        line(f, &self.heading)?;
        self.rows.iter().try_for_each(|row| line(f, row))
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn columns_line_up_numbers_stand_right_and_nothing_steers_the_terminal() {
        let mut table = Table::new(["owner", "devices", "label"]);
        table.row([&"alice@example.org", &3, &"phone"]);
        table.row([&"bo@example.org", &12, &"a\u{1b}[2Jb\n"]);
        let text = "owner              devices  label\n\
                    alice@example.org        3  phone\n\
                    bo@example.org          12  a\\u{1b}[2Jb\\n\n";
        assert_eq!(table.to_string(), text);
    }
}
