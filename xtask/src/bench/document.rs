//! `docs/benchmarks.md`: the part between two marks is the command's, the rest is written by people and kept. Pure.

use anyhow::{Context, Result};

const BEGIN: &str = "<!-- written by `cargo xtask bench --write` -->";
const END: &str = "<!-- end of what the command writes -->";

/// The document with `results` between its marks.
pub fn with_results(document: &str, results: &str) -> Result<String> {
    let (before, rest) = document.split_once(BEGIN).with_context(|| format!("no line {BEGIN:?}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("no line {END:?} after the first mark"))?;
    Ok(format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", results.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_marks_is_replaced() {
        let document = format!("# Title\n\n{BEGIN}\nold\n{END}\n\n## Limits\n");
        let new = with_results(&document, "\nnew\n").unwrap();
        assert_eq!(new, format!("# Title\n\n{BEGIN}\n\nnew\n\n{END}\n\n## Limits\n"));
        assert_eq!(with_results(&new, "new").unwrap(), new, "writing the same again changes nothing");
        assert!(with_results("# Title\n", "new").is_err());
        assert!(with_results(&format!("{END}{BEGIN}"), "new").is_err());
    }

    #[test]
    fn the_document_of_this_checkout_has_its_marks() {
        let path = crate::paths::root().join("docs/benchmarks.md");
        with_results(&std::fs::read_to_string(path).unwrap(), "").unwrap();
    }
}
