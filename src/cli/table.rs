//! Aligned tables for people.

/// Rows under a heading, each column as wide as its widest cell; numbers stand to the right.
pub fn render(heading: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([heading[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let number = |column: usize| {
        let is_number = |cell: &str| {
            cell == "-"
                || (!cell.is_empty() && cell.chars().all(|c| c.is_ascii_digit() || c == '.'))
        };
        !rows.is_empty() && rows.iter().all(|row| is_number(&row[column]))
    };
    let right: Vec<bool> = (0..heading.len()).map(number).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let cells: Vec<String> = cells
            .enumerate()
            .map(|(n, cell)| {
                let width = widths[n];
                if right[n] { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            })
            .collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    let mut text = line(&mut heading.iter().copied());
    for row in rows {
        text += &line(&mut row.iter().map(String::as_str));
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_align() {
        let rows = [vec!["a".into(), "1".into()], vec!["long".into(), "10".into()]];
        assert_eq!(super::render(&["NAME", "N"], &rows), "NAME   N\na      1\nlong  10\n");
    }
}
