//! A table that fits its width: columns of prose are wrapped, or put beneath their rows; then columns are left out, those that
//! tell least before the others. Without a width it has everything on one line each. Pure.

use super::style::{Style, Tone, clean, width, wrap};

/// Between columns, as kubectl has them.
const GAP: usize = 3;
/// Before what stands beneath a row.
const DEEPER: usize = 4;

/// What a column does when the table is too wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// Stays as it is.
    Keep,
    /// Is wrapped, down to so many characters.
    Wrap(usize),
    /// Is wrapped, down to so many characters; where there is no room for that, it goes beneath its row.
    Beneath(usize),
    /// Is left out; the lowest number first.
    Drop(u8),
}

/// A column's heading and what it may do.
pub(super) type Column = (&'static str, Fit);

/// One cell.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A cell of that tone.
    pub(super) fn new(tone: Tone, text: impl AsRef<str>) -> Self {
        Self { text: clean(text.as_ref()), tone }
    }

    /// A plain cell.
    pub(super) fn plain(text: impl AsRef<str>) -> Self {
        Self::new(Tone::Plain, text)
    }
}

/// The table, indented, with its heading.
pub(super) fn table(columns: &[Column], rows: &[Vec<Cell>], indent: usize, style: Style) -> String {
    let natural = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| width(&cell.text));
        cells.max().unwrap_or(0).max(width(columns[at].0))
    };
    let mut shown: Vec<(usize, usize)> = (0..columns.len()).map(|at| (at, natural(at))).collect();
    let mut beneath = None;
    if let Some(all) = style.width.map(|all| all.saturating_sub(indent)) {
        let least: usize = shown.iter().map(|(at, wide)| wide - spare(columns[*at].1, *wide) + GAP).sum();
        if least > all + GAP {
            let is_beneath = |(at, _): &(usize, usize)| matches!(columns[*at].1, Fit::Beneath(_));
            beneath = shown.iter().position(is_beneath).map(|position| shown.remove(position).0);
        }
        fit(columns, &mut shown, all);
    }
    let mut text = String::new();
    let heading: Vec<Cell> = columns.iter().map(|(title, _)| Cell::new(Tone::Strong, title)).collect();
    for row in std::iter::once(&heading).chain(rows) {
        let cells: Vec<(Vec<String>, usize, Tone)> = shown
            .iter()
            .filter_map(|(at, wide)| {
                let cell = row.get(*at)?;
                let lines =
                    if width(&cell.text) > *wide { wrap(&cell.text, *wide) } else { vec![cell.text.clone()] };
                Some((lines, *wide, cell.tone))
            })
            .collect();
        let height = cells.iter().map(|(lines, ..)| lines.len()).max().unwrap_or(0);
        for line in 0..height {
            text += &one_line(&cells, line, indent, style);
            text.push('\n');
        }
        let said = beneath.filter(|_| !std::ptr::eq(row, &heading)).and_then(|at| row.get(at));
        if let Some(said) = said.filter(|cell| !cell.text.is_empty()) {
            let margin = " ".repeat(indent + DEEPER);
            let columns = style.width.unwrap_or_default().saturating_sub(margin.len());
            text.extend(wrap(&said.text, columns).iter().map(|line| format!("{margin}{line}\n")));
        }
    }
    text
}

fn one_line(cells: &[(Vec<String>, usize, Tone)], line: usize, indent: usize, style: Style) -> String {
    let mut text = " ".repeat(indent);
    // Spaces are written only when something follows them.
    let mut pending = 0;
    for (lines, wide, tone) in cells {
        let piece = lines.get(line).map_or("", String::as_str);
        if !piece.is_empty() {
            text += &" ".repeat(pending);
            text += &style.paint(*tone, piece);
            pending = 0;
        }
        pending += wide.saturating_sub(width(piece)) + GAP;
    }
    if text.trim().is_empty() { String::new() } else { text }
}

/// Makes the columns fit as far as they let themselves be.
fn fit(columns: &[Column], shown: &mut Vec<(usize, usize)>, all: usize) {
    loop {
        let sum = shown.iter().map(|(_, wide)| wide + GAP).sum::<usize>().saturating_sub(GAP);
        let Some(mut excess) = sum.checked_sub(all).filter(|excess| *excess > 0) else { return };
        let could: usize = shown.iter().map(|(at, wide)| spare(columns[*at].1, *wide)).sum();
        if could < excess {
            let least = |(at, _): &(usize, usize)| match columns[*at].1 {
                Fit::Drop(order) => Some((order, *at)),
                _ => None,
            };
            if let Some((_, gone)) = shown.iter().filter_map(least).min() {
                shown.retain(|(at, _)| *at != gone);
                continue;
            }
        }
        // The widest gives first, until it is no wider than the next.
        while excess > 0 {
            let gives = |(at, wide): &&mut (usize, usize)| spare(columns[*at].1, *wide) > 0;
            let Some((_, wide)) = shown.iter_mut().filter(gives).max_by_key(|(_, wide)| *wide) else {
                return;
            };
            *wide -= 1;
            excess -= 1;
        }
        return;
    }
}

fn spare(fit: Fit, wide: usize) -> usize {
    match fit {
        Fit::Wrap(least) | Fit::Beneath(least) => wide.saturating_sub(least),
        Fit::Keep | Fit::Drop(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] =
        &[("NAME", Fit::Keep), ("AGE", Fit::Drop(2)), ("READY", Fit::Drop(1)), ("MESSAGE", Fit::Wrap(10))];

    fn shown(columns: Option<usize>) -> String {
        let row = |texts: [&str; 4]| texts.map(Cell::plain).to_vec();
        let rows = [row(["llama", "5m", "True", "one two three four"]), row(["x", "", "", ""])];
        table(COLUMNS, &rows, 0, Style { width: columns, colour: false })
    }

    #[test]
    fn prose_is_wrapped_before_columns_go() {
        let whole = "NAME    AGE   READY   MESSAGE\nllama   5m    True    one two three four\nx\n";
        assert_eq!(shown(None), whole);
        assert_eq!(shown(Some(40)), whole);
        let wrapped = "NAME    AGE   READY   MESSAGE\nllama   5m    True    one two\n                      three four\nx\n";
        assert_eq!(shown(Some(34)), wrapped);
        assert_eq!(
            shown(Some(31)),
            "NAME    AGE   MESSAGE\nllama   5m    one two three\n              four\nx\n"
        );
        assert_eq!(shown(Some(20)), "NAME    MESSAGE\nllama   one two\n        three four\nx\n");
        // It cannot be narrower; a terminal wraps it.
        assert_eq!(shown(Some(5)), shown(Some(18)));
    }

    #[test]
    fn prose_without_room_goes_beneath_its_row() {
        let columns = [("NAME", Fit::Keep), ("STATE", Fit::Drop(0)), ("MESSAGE", Fit::Beneath(10))];
        let rows = [["llama", "Failed", "one two three four"], ["x", "Active", ""]];
        let rows = rows.map(|row| row.map(Cell::plain).to_vec());
        let text =
            |columns_of: usize| table(&columns, &rows, 0, Style { width: Some(columns_of), colour: false });
        assert_eq!(
            text(27),
            "NAME    STATE    MESSAGE\nllama   Failed   one two\n                 three four\nx       Active\n"
        );
        assert_eq!(text(26), "NAME    STATE\nllama   Failed\n    one two three four\nx       Active\n");
        assert_eq!(text(12), "NAME\nllama\n    one two\n    three\n    four\nx\n");
    }

    #[test]
    fn colours_take_no_room() {
        let cell = |tone, text: &str| Cell::new(tone, text);
        let rows = [vec![cell(Tone::Good, "ok"), cell(Tone::Plain, "…x")]];
        let columns = [("STATE", Fit::Keep), ("Y", Fit::Keep)];
        let text = table(&columns, &rows, 2, Style { width: Some(80), colour: true });
        assert_eq!(text, "  \x1b[1mSTATE\x1b[0m   \x1b[1mY\x1b[0m\n  \x1b[32mok\x1b[0m      …x\n");
    }
}
