//! How text is put on a terminal, or into a file: colours, widths, and nothing that could steer a terminal. Pure.

use textwrap::{Options, WordSeparator, WordSplitter, WrapAlgorithm};

/// How wide the output is and whether it has colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Columns; without a number nothing is wrapped or left out.
    pub width: Option<usize>,
    /// Whether to colour.
    pub colour: bool,
}

/// What a piece of text says about how things are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// Look at it some time.
    Poor,
    /// Look at it now.
    Bad,
    /// A heading.
    Strong,
}

impl Style {
    /// The text in the colour of its tone.
    pub(super) fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.into(),
            Tone::Good => "32",
            Tone::Poor => "33",
            Tone::Bad => "31",
            Tone::Strong => "1",
        };
        if self.colour && !text.trim().is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.into()
        }
    }

    /// A labelled value; what does not fit goes on beneath it.
    pub(super) fn field(self, label: &str, tone: Tone, value: &str) -> String {
        const LABEL: usize = 13;
        let label = format!("{label}:");
        if value.is_empty() {
            return self.paint(Tone::Strong, &label) + "\n";
        }
        let head = format!("{label:<LABEL$}");
        let lines = self.wrapped(value, LABEL);
        let painted: Vec<String> = lines.iter().map(|line| self.paint(tone, line)).collect();
        let joined = painted.join(&format!("\n{}", " ".repeat(LABEL)));
        format!("{}{joined}\n", self.paint(Tone::Strong, &head))
    }

    /// A paragraph behind a mark; what does not fit goes on beneath its text.
    pub(super) fn item(self, indent: usize, mark: &str, tone: Tone, text: &str) -> String {
        let inner = indent + width(mark) + 1;
        let rest = format!("\n{}", " ".repeat(inner));
        format!(
            "{}{} {}\n",
            " ".repeat(indent),
            self.paint(tone, mark),
            self.wrapped(text, inner).join(&rest)
        )
    }

    fn wrapped(self, text: &str, taken: usize) -> Vec<String> {
        let text = clean(text);
        self.width.map_or_else(|| vec![text.clone()], |all| wrap(&text, all.saturating_sub(taken)))
    }
}

/// Lines that are no wider. Words are kept whole unless one alone is too wide, and so is what stands in backticks: that is for
/// copying.
pub(super) fn wrap(text: &str, columns: usize) -> Vec<String> {
    const GLUE: &str = "\u{a0}";
    let options = Options::new(columns.max(1))
        .wrap_algorithm(WrapAlgorithm::FirstFit)
        .word_separator(WordSeparator::AsciiSpace)
        .word_splitter(WordSplitter::NoHyphenation);
    let quoted =
        |(at, piece): (usize, &str)| if at % 2 == 1 { piece.replace(' ', GLUE) } else { piece.to_owned() };
    let glued = text.split('`').enumerate().map(quoted).collect::<Vec<_>>().join("`");
    textwrap::wrap(&glued, options).into_iter().map(|line| line.replace(GLUE, " ")).collect()
}

/// Columns that the text takes.
pub(super) fn width(text: &str) -> usize {
    textwrap::core::display_width(text)
}

/// One line without control characters: a message may carry a file's name, and that may carry what steers a terminal.
pub fn clean(text: &str) -> String {
    let plain = |it: char| match it {
        '\n' | '\t' | '\r' => ' ',
        // Marks of direction, too, put words where they are not.
        it if it.is_control() || matches!(it, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
            '\u{fffd}'
        }
        it => it,
    };
    text.trim().chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(clean("a\x1b[31mb\nc\u{9b}2J\x07"), "a\u{fffd}[31mb c\u{fffd}2J\u{fffd}");
        assert_eq!(clean("a\u{202e}b\u{2066}c"), "a\u{fffd}b\u{fffd}c");
        let style = Style { width: Some(80), colour: true };
        assert_eq!(style.item(0, "-", Tone::Bad, "x\x1b]0;y"), "\x1b[31m-\x1b[0m x\u{fffd}]0;y\n");
    }

    #[test]
    fn what_does_not_fit_goes_on_beneath() {
        let style = Style { width: Some(22), colour: false };
        assert_eq!(
            style.field("Message", Tone::Plain, "one two three"),
            "Message:     one two\n             three\n"
        );
        assert_eq!(style.item(2, "-", Tone::Plain, "four five sixteen x"), "  - four five sixteen\n    x\n");
        assert_eq!(
            wrap("run `a b c` now", 9),
            ["run", "`a b c`", "now"],
            "what is to be copied is kept whole"
        );
        let all = Style { width: None, colour: false };
        assert_eq!(all.field("Name", Tone::Plain, &"x ".repeat(200)).lines().count(), 1);
        assert_eq!(all.field("Name", Tone::Plain, ""), "Name:\n");
    }
}
