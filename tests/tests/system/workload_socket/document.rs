//! `docs/workload-memory.md` is true to the code.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Result, ensure};
use nixl_transfer_client::MAX_BODY;

/// Reasons that come from the table of the API.
const OF_THE_API: [&str; 2] = ["RegionNotFound", "InvalidSpec"];

fn read(path: &str) -> Result<String> {
    Ok(fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path))?)
}

/// The page's first block of YAML.
pub fn manifest() -> Result<String> {
    let page = read("docs/workload-memory.md")?;
    let block = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next());
    Ok(block.unwrap_or_default().to_owned())
}

#[test]
fn every_refusal_is_in_the_document_and_nothing_else() -> Result<()> {
    let mut said: BTreeSet<String> = OF_THE_API.map(str::to_owned).into();
    let files = ["doors", "identity", "line", "listen", "session"];
    let files = files.map(|name| format!("agent/src/workload/{name}.rs"));
    for file in files.iter().map(String::as_str).chain(["agent/src/control/regions/handed.rs"]) {
        for rest in read(file)?.split("Refusal::new(").skip(1) {
            let Some(literal) = rest.trim_start().strip_prefix('"') else { continue };
            said.extend(literal.split('"').next().map(str::to_owned));
        }
        // The one constructor with another name.
        for rest in read(file)?.split("malformed = |").skip(1) {
            said.extend(rest.split('"').nth(1).map(str::to_owned));
        }
    }
    let page = read("docs/workload-memory.md")?;
    let table = page.split("## Refusals").nth(1).and_then(|rest| rest.split("\n\n`ended`").next());
    let rows =
        table.unwrap_or_default().lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    let documented: BTreeSet<String> =
        rows.flat_map(|row| row.split(", ")).map(|word| word.trim_matches('`').to_owned()).collect();
    ensure!(said == documented, "said {said:?}\ndocumented {documented:?}");
    ensure!(MAX_BODY == 65_536 && page.contains("65,536"));
    Ok(())
}
