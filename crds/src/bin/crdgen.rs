//! Writes what follows from the types: the custom resource definitions as YAML, and the table of reasons for people. With
//! `--check` proves that the committed files are fresh.

use std::{error::Error, fs, path::PathBuf, process::ExitCode};

use nixl_transfer_crds::reason::{Class, TABLE};

const COMMAND: &str = "cargo run -p nixl-transfer-crds --bin crdgen";

/// Where the definitions stand: here, and in the chart, for Helm reads nothing from outside of one.
const DEFINITIONS: [&str; 2] = ["crds/generated", "charts/nixl-transfer/files/crds"];

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let check = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--check") => true,
        Some(other) => return Err(format!("unknown argument {other:?}; usage: crdgen [--check]").into()),
    };
    let mut stale = false;
    for (path, fresh) in files()? {
        if !check {
            fs::create_dir_all(path.parent().ok_or("a file in no directory")?)?;
            fs::write(&path, &fresh)?;
            println!("wrote {}", path.display());
        } else if fs::read_to_string(&path).ok().as_deref() != Some(&fresh) {
            eprintln!("{} is not what the types say; run `{COMMAND}`", path.display());
            stale = true;
        }
    }
    Ok(if stale { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn files() -> Result<Vec<(PathBuf, String)>, Box<dyn Error>> {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let mut files = vec![(root.join("docs/reasons.md"), reasons())];
    for definition in nixl_transfer_crds::definitions() {
        let yaml = serde_yaml::to_string(&definition)?;
        let text = format!("# Written by `{COMMAND}`; change crds/src instead.\n{yaml}");
        let name = format!("{}.yaml", definition.spec.names.plural);
        files.extend(DEFINITIONS.map(|directory| (root.join(directory).join(&name), text.clone())));
    }
    Ok(files)
}

/// The closed list, one table for each class.
fn reasons() -> String {
    let mut text = format!(
        "<!-- Written by `{COMMAND}`; change crds/src/reason.rs instead. -->\n# Reasons\n\n\
         Each condition, event, failed task and metric of nixl-transfer names one of these reasons, and no other. The message beside it names \
         the field or the place, the value, and the limit.\n"
    );
    let classes = [
        (Class::Final, "Failed for good", "The run ends; a change by the user helps."),
        (Class::Retryable, "Failed, and tried again", "Another attempt follows, until `spec.backoffLimit`."),
        (
            Class::Waiting,
            "Waits",
            "For something outside, until `spec.pendingDeadlineSeconds`; then it fails with `DeadlineExceeded`.",
        ),
        (Class::Progress, "How far it is", "No failure."),
        (
            Class::Fallback,
            "Why a slower network was used",
            "In `status.transport.fallbackReason`; the bytes arrive all the same.",
        ),
        (Class::EventOnly, "In events only", "Nothing has failed."),
    ];
    for (class, title, what) in classes {
        text += &format!(
            "\n## {title}\n{what}\n\n| Reason | What happened | What to do |\n| --- | --- | --- |\n"
        );
        for entry in TABLE.iter().filter(|entry| entry.class == class) {
            text += &format!("| `{}` | {} | {} |\n", entry.name, entry.meaning, entry.remedy);
        }
    }
    text
}
