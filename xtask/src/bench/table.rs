//! The table: Markdown that also reads well in a terminal. Pure.

use super::row::Row;

const HEAD: [&str; 6] =
    ["id", "case", "ours", "peers", "goal: what was reached (smallest to largest)", "reached"];

/// A table of all rows, columns aligned.
pub fn markdown(rows: &[Row]) -> String {
    let mut lines = vec![HEAD.map(str::to_owned)];
    lines.extend(rows.iter().map(cells));
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        for (cell, width) in line.iter().zip(&widths) {
            text += &format!("| {cell:<width$} ");
        }
        text += "|\n";
        if number == 0 {
            text += &widths.iter().map(|width| format!("| {} ", "-".repeat(*width))).collect::<String>();
            text += "|\n";
        }
    }
    text
}

fn cells(row: &Row) -> [String; 6] {
    let peers: Vec<String> =
        row.peers.iter().map(|(name, value)| format!("{name} {}", number(*value))).collect();
    let clauses: Vec<String> = row
        .clauses
        .iter()
        .map(|clause| match (clause.more, clause.ratio.or(clause.value)) {
            (Some(more), _) => format!("{}: + {}", clause.text, summary(more)),
            (None, Some(came_out)) => format!("{}: {}", clause.text, summary(came_out)),
            (None, None) => format!("{}: not measured", clause.text),
        })
        .collect();
    let reached = match row.reached() {
        Some(true) => "yes",
        Some(false) => "no",
        None if row.clauses.is_empty() => "no goal",
        None => "not known",
    };
    [
        row.id.to_owned(),
        row.case.clone(),
        format!("{} {}", number(row.ours), row.unit.text()),
        peers.join("; "),
        clauses.join("; "),
        reached.to_owned(),
    ]
}

/// Median and spread.
fn summary((median, (low, high)): (f64, (f64, f64))) -> String {
    format!("{} ({} to {})", number(median), number(low), number(high))
}

/// Three digits that count: `0.123`, `1.23`, `12.3`, `12345`.
fn number(value: f64) -> String {
    match value.abs() {
        ..0.9995 => format!("{value:.3}"),
        ..9.995 => format!("{value:.2}"),
        ..99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::goal::{Against, at_least};
    use super::super::row::{Unit, test_row};
    use super::*;

    #[test]
    fn a_table_is_aligned_and_says_what_is_not_known() {
        let mut measured = test_row(Unit::GigabytesPerSecond, &[2.5], &[("cp", 1.25), ("tar", 0.5)]);
        measured.goal = vec![at_least(2.0, Against::Peer("cp")), at_least(3.0, Against::Peer("rsync"))];
        let text = markdown(&[Row::of(&measured), Row::of(&test_row(Unit::FilesPerSecond, &[12345.6], &[]))]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines.iter().all(|line| line.chars().count() == lines[0].chars().count()), "{text}");
        assert!(lines[2].contains("| 2.50 GB/s "), "{text}");
        assert!(lines[2].contains("| cp 1.25; tar 0.500 |"), "{text}");
        assert!(lines[2].contains("≥ 2 × cp: 2.00 (2.00 to 2.00); ≥ 3 × rsync: not measured"), "{text}");
        assert!(lines[2].contains("| not known |") && lines[3].contains("| no goal "), "{text}");
        assert!(lines[3].contains("12346 files/s"), "{text}");
    }

    #[test]
    fn numbers_have_three_digits_that_count() {
        assert_eq!([0.12345, 0.9996, 12.34, 9.996].map(number), ["0.123", "1.00", "12.3", "10.0"]);
    }
}
