//! Suite `digest`, D10: what the digests of the stream cost. The same program is built a second time with null digests,
//! behind a feature of nixl-connect that nothing else enables.

use anyhow::Result;

use super::contest::{Contest, Contestant};
use super::goal::{Against, at_least};
use super::program::{example, rate};
use super::row::{Measured, Unit};
use super::suite::Place;
use crate::test::cargo_build;

const NULL: &str = "null digest";

pub fn run(place: &Place) -> Result<Vec<Measured>> {
    // With the features of the workspace, so that only nixl-connect is built again.
    cargo_build(&["--workspace", "--example", "stream_null", "--features", "nixl-connect/null-digest"])?;
    let mib = (place.sizes.large >> 20).to_string();
    let contest = Contest {
        id: "D10",
        case: format!("{mib} MiB memory to memory with XXH3-64 at both ends"),
        unit: Unit::GigabytesPerSecond,
        ours: Box::new(|| rate(example("stream").arg(&mib))),
        peers: vec![Contestant::reference(NULL, || rate(example("stream_null").arg(&mib)))],
        missing: Vec::new(),
        // A cost of at most a tenth.
        goal: vec![at_least(0.9, Against::Peer(NULL))],
    };
    Ok(vec![contest.run(place.rounds)?])
}

#[cfg(test)]
mod tests {
    use crate::paths;

    #[test]
    fn nothing_enables_null_digests() {
        let manifests = std::process::Command::new("git")
            .args(["ls-files", "*Cargo.toml"])
            .current_dir(paths::root())
            .output()
            .unwrap();
        for path in String::from_utf8(manifests.stdout).unwrap().lines() {
            let text = std::fs::read_to_string(paths::root().join(path)).unwrap();
            let lines: Vec<&str> = text.lines().filter(|line| line.contains("null-digest")).collect();
            let expected: &[&str] = match path {
                "connect/Cargo.toml" => &["null-digest = []", "required-features = [\"null-digest\"]"],
                _ => &[],
            };
            assert_eq!(lines, expected, "{path}");
        }
    }
}
