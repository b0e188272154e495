//! The tables that commands print: a rule under the header and none between rows, as narrow as their words allow, in 80
//! columns where the terminal does not say that it is wider.

use std::fmt;

use comfy_table::{CellAlignment, ContentArrangement, presets};

/// Columns of a terminal that does not tell, and of files.
const WIDTH: u16 = 80;
/// Blanks left and right of a cell.
const PADDING: (u16, u16) = (0, 1);

/// A table, filled row by row.
pub struct Table(comfy_table::Table);

impl Table {
    /// With these heads, or with empty ones for none; the columns `right` hold numbers.
    pub fn new(heads: &[&str], right: &[usize]) -> Self {
        let mut table = comfy_table::Table::new();
        let rule = comfy_table::LineStyle::none();
        table.load_style(presets::NOTHING.header_separator(rule.fill('─').junction('─')));
        table.set_content_arrangement(ContentArrangement::Dynamic);
        if table.width().is_none() {
            table.set_width(WIDTH);
        }
        if heads.iter().any(|head| !head.is_empty()) {
            table.set_header(heads.to_vec());
        }
        let mut table = Self(table);
        table.align(right);
        table
    }

    /// Adds a row.
    pub fn add<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.0.add_row(cells.into_iter().map(Into::into).collect::<Vec<String>>());
        for column in self.0.column_iter_mut() {
            column.set_padding(PADDING);
        }
    }

    fn align(&mut self, right: &[usize]) {
        for (at, column) in self.0.column_iter_mut().enumerate() {
            column.set_padding(PADDING);
            if right.contains(&at) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.trim_fmt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_rule_and_no_line_longer_than_80_columns() {
        let mut table = Table::new(&["what", "tokens"], &[1]);
        table.add(["cold".to_owned(), "4093".to_owned()]);
        table.add(["a text that goes on and on ".repeat(6), "1".to_owned()]);
        let text = table.to_string();
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert_eq!(text.lines().filter(|line| line.contains('─')).count(), 1, "{text}");
        assert!(text.lines().any(|line| line.starts_with("cold") && line.ends_with("4093")), "{text}");
    }
}
