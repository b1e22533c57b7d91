//! Golden files: one for each subject, a section for each kind of output.

use std::{env, fmt::Write, fs, path::PathBuf};

use kubectl_transfer::render::Style;

use crate::fixtures::directory;

/// Kinds of output: a terminal and no terminal at 80 and 200 columns, and a pipe, which has no width.
pub const KINDS: [(&str, Style); 5] = [
    ("a terminal of 80 columns", Style { width: Some(80), colour: true }),
    ("a terminal of 200 columns", Style { width: Some(200), colour: true }),
    ("no terminal, COLUMNS=80", Style { width: Some(80), colour: false }),
    ("no terminal, COLUMNS=200", Style { width: Some(200), colour: false }),
    ("no terminal", Style { width: None, colour: false }),
];

fn path(name: &str) -> PathBuf {
    directory().join("out").join(format!("{name}.txt"))
}

/// Escapes are made visible: a file of escapes cannot be read.
fn visible(text: &str) -> String {
    text.replace('\x1b', "␛")
}

/// The same, where colours are all that a terminal changes.
pub fn check(name: &str, render: impl Fn(Style) -> String) {
    for (kind, style) in KINDS {
        let plain = without_colours(&render(style));
        assert_eq!(
            plain,
            render(Style { colour: false, ..style }),
            "{name}, {kind}: colours change the text"
        );
    }
    check_each(name, render);
}

/// Compares what `render` makes of each kind with the file, or writes the file.
pub fn check_each(name: &str, render: impl Fn(Style) -> String) {
    let mut all = String::new();
    for (kind, style) in KINDS {
        let text = render(style);
        let _ = write!(all, "=== {kind}\n{}", visible(&text));
        // A line of a log is as long as it is.
        let bounded = style.width.filter(|_| style.colour);
        for line in without_colours(&text).lines() {
            let columns = line.chars().count();
            assert!(
                bounded.is_none_or(|width| columns <= width),
                "{name}, {kind}: {columns} columns: {line}"
            );
            assert_eq!(line.trim_end(), line, "{name}, {kind}: spaces at the end");
        }
    }
    if env::var_os("NIXL_TRANSFER_WRITE_GOLDEN").is_some() {
        fs::write(path(name), all).unwrap();
        return;
    }
    let golden = fs::read_to_string(path(name)).unwrap_or_default();
    for (kind, style) in KINDS {
        assert_eq!(
            visible(&render(style)),
            section(&golden, kind),
            "{name}, {kind}: not as in {}",
            path(name).display()
        );
    }
    assert_eq!(all, golden, "{name}: the file has more than it should");
}

/// Compares a text that has no kinds with its file, or writes the file.
pub fn check_whole(file: &str, text: &str) {
    if env::var_os("NIXL_TRANSFER_WRITE_GOLDEN").is_some() {
        fs::write(directory().join("out").join(file), text).unwrap();
    }
    assert_eq!(text, whole(file), "not as in {file}");
}

/// A golden file without sections.
pub fn whole(file: &str) -> String {
    fs::read_to_string(directory().join("out").join(file)).unwrap_or_default()
}

/// One section of a golden file.
pub fn golden(name: &str, kind: &str) -> String {
    section(&fs::read_to_string(path(name)).unwrap(), kind).replace('␛', "\x1b")
}

fn section(golden: &str, kind: &str) -> String {
    let mut sections =
        golden.split_inclusive('\n').skip_while(|line| line.trim_end() != format!("=== {kind}"));
    sections.next();
    sections.take_while(|line| !line.starts_with("=== ")).collect()
}

pub fn without_colours(text: &str) -> String {
    let mut pieces = text.split('\x1b');
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |text, piece| text + piece.split_once('m').map_or("", |(_, rest)| rest))
}
