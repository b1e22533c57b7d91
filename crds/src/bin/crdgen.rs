//! Writes the custom resource definitions as YAML, or with `--check` proves that the committed files are fresh.

use std::{error::Error, path::Path, process::ExitCode};

/// Where the committed files stand: here, and in the chart, for Helm reads nothing from outside of one.
const DIRECTORIES: [&str; 2] = [
    concat!(env!("CARGO_MANIFEST_DIR"), "/generated"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/nixl-transfer/files/crds"),
];

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let check = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--check") => true,
        Some(other) => return Err(format!("unknown argument {other:?}; usage: crdgen [--check]").into()),
    };
    let mut stale = false;
    for definition in nixl_transfer_crds::definitions() {
        let name = format!("{}.yaml", definition.spec.names.plural);
        let fresh = format!(
            "# Written by `cargo run -p nixl-transfer-crds --bin crdgen`; change crds/src instead.\n{}",
            serde_yaml::to_string(&definition)?
        );
        for directory in DIRECTORIES.map(Path::new) {
            let path = directory.join(&name);
            if !check {
                std::fs::create_dir_all(directory)?;
                std::fs::write(&path, &fresh)?;
                println!("wrote {}", path.display());
            } else if std::fs::read_to_string(&path).ok().as_deref() != Some(&fresh) {
                eprintln!(
                    "{} is not what the types say; run `cargo run -p nixl-transfer-crds --bin crdgen`",
                    path.display()
                );
                stale = true;
            }
        }
    }
    Ok(if stale { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
