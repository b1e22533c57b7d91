//! docs/plugin.md shows what the golden files have: behind each `$ kubectl transfer …` stands the output of it. Written anew with
//! them, from what stood in them before: write twice.

use std::{env, fs, path::Path};

use crate::compare::{golden, whole, without_colours};

/// The width at which a page is read.
const KIND: &str = "no terminal, COLUMNS=80";

/// The golden output of a command line of the page.
fn output(command: &str) -> String {
    let words: Vec<&str> = command.split_whitespace().collect();
    match words[..] {
        ["create", ..] => whole("create.yaml"),
        ["describe", name, ..] => golden(&format!("describe-{name}"), KIND),
        // A page has no colours.
        ["watch", name, ..] => without_colours(&golden(&format!("watch-{name}"), "a terminal of 80 columns")),
        ["doctor", ..] => golden("doctor-good", KIND),
        [verb @ ("rerun" | "suspend" | "resume"), ..] => whole(&format!("{verb}.txt")),
        [verb, ..] => golden(verb, KIND),
        [] => panic!("a command line without a command"),
    }
}

fn with_output(page: &str) -> String {
    let mut text = String::new();
    let mut lines = page.split_inclusive('\n');
    while let Some(line) = lines.next() {
        text += line;
        let Some(command) = line.strip_prefix("$ kubectl transfer ") else { continue };
        text += &output(command);
        // Up to the end of the block.
        text += lines.find(|line| line.starts_with("```")).unwrap_or_default();
    }
    text
}

#[test]
fn the_page_shows_what_the_program_prints() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/plugin.md");
    let page = fs::read_to_string(&path).unwrap();
    let expected = with_output(&page);
    for verb in ["create", "get", "describe", "watch", "doctor", "rerun", "suspend", "resume"] {
        assert!(
            page.contains(&format!("\n$ kubectl transfer {verb} ")),
            "docs/plugin.md has no example of {verb}"
        );
    }
    if env::var_os("NIXL_TRANSFER_WRITE_GOLDEN").is_some() {
        fs::write(path, expected).unwrap();
        return;
    }
    assert_eq!(page, expected, "docs/plugin.md is not as the golden files");
}
