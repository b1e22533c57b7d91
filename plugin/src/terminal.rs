//! What standard output is: a terminal or not, how wide, whether it takes colours. Reads the environment; nothing else does.

use std::io::{IsTerminal, stdout};

use crate::render::Style;

/// Standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// Whether what was written can be drawn over.
    pub redraws: bool,
    /// Columns and colours.
    pub style: Style,
}

/// A program may say anything about its terminal.
const LEAST_WIDTH: usize = 20;

impl Terminal {
    /// As it is now; a terminal changes its width.
    pub fn look() -> Self {
        let terminal = stdout().is_terminal();
        let columns = terminal.then(|| rustix::termios::tcgetwinsize(stdout()).ok()).flatten();
        Self::of(terminal, columns.map(|size| size.ws_col), |name| std::env::var(name).ok())
    }

    /// `COLUMNS` goes before what the terminal says. Without either nothing is cut or wrapped: who reads a pipe wants all of it.
    /// `NO_COLOR`, as no-color.org has it, counts when it is not empty.
    fn of(terminal: bool, columns: Option<u16>, variable: impl Fn(&str) -> Option<String>) -> Self {
        let given = variable("COLUMNS").and_then(|text| text.trim().parse::<usize>().ok());
        let width = given.or(columns.map(usize::from)).filter(|width| *width > 0);
        let capable = terminal && variable("TERM").is_none_or(|name| name != "dumb");
        let plain = variable("NO_COLOR").is_some_and(|text| !text.is_empty());
        Self {
            redraws: capable,
            style: Style { width: width.map(|width| width.max(LEAST_WIDTH)), colour: capable && !plain },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_and_width_follow_the_terminal_and_the_environment() {
        type Case<'a> = (bool, Option<u16>, &'a [(&'a str, &'a str)], bool, Option<usize>, bool);
        let cases: [Case<'_>; 9] = [
            (true, Some(80), &[], true, Some(80), true),
            (true, Some(0), &[], true, None, true),
            (true, Some(5), &[], true, Some(20), true),
            (true, Some(80), &[("COLUMNS", "200")], true, Some(200), true),
            (true, Some(80), &[("NO_COLOR", "1")], true, Some(80), false),
            (true, Some(80), &[("NO_COLOR", "")], true, Some(80), true),
            (true, Some(80), &[("TERM", "dumb")], false, Some(80), false),
            (false, None, &[], false, None, false),
            (false, None, &[("COLUMNS", "80")], false, Some(80), false),
        ];
        for (terminal, columns, variables, redraws, width, colour) in cases {
            let find = |name: &str| variables.iter().find(|it| it.0 == name).map(|it| it.1.to_owned());
            let expected = Terminal { redraws, style: Style { width, colour } };
            assert_eq!(Terminal::of(terminal, columns, find), expected, "{columns:?} {variables:?}");
        }
    }
}
