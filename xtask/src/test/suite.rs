//! What the clusters of the tests recorded, all together: nothing was refused, rights are used as they are granted, no secret
//! stands where it must not, and every reason was seen. The comparing is pure.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use devcluster::{Record, Right, granted};

use crate::paths;

/// In the checkout.
pub const ROLES: &str = "charts/nixl-transfer/files/rbac.yaml";

/// The table of reasons, which is proven fresh.
const REASONS: &str = "docs/reasons.md";

/// Reasons that no test brings about on a control plane, and why.
const UNSEEN: [(&str, &str); 4] = [
    (
        "Verifying",
        "digests are compared while bytes move, so nothing is only verified; kept for a digest on a device",
    ),
    (
        "IncompatiblePeer",
        "there are no two versions yet that do not understand each other; `kubectl transfer doctor` has it",
    ),
    ("MemlockTooSmall", "the limit is the machine's: a table in agent/src/control/network/tests.rs"),
    (
        "MetadataTooLarge",
        "our own metadata stays far below it: with a forged one and a real worker in agent/tests/worker/refused.rs",
    ),
];

/// What is promised.
struct Promised {
    rights: BTreeSet<Right>,
    reasons: BTreeSet<String>,
}

/// What all records say.
#[derive(Debug)]
struct Verdict {
    summary: String,
    wrong: Vec<String>,
}

/// A directory for the records of one run; those of the run before are gone.
pub fn fresh() -> Result<PathBuf> {
    let (run, records) = (run(), records());
    if run.exists() {
        fs::remove_dir_all(&run).with_context(|| run.display().to_string())?;
    }
    fs::create_dir_all(&records).with_context(|| records.display().to_string())?;
    Ok(records)
}

/// Notes that the run had all tests and all passed: only then should every right have been used.
pub fn was_whole() -> Result<()> {
    fs::write(whole(), []).with_context(|| whole().display().to_string())
}

/// Looks at the records of the last run.
pub fn check() -> Result<()> {
    let records = records();
    ensure!(records.is_dir(), "{} is missing: run `cargo xtask test` first", records.display());
    let roles = paths::root().join(ROLES);
    let roles = fs::read_to_string(&roles).with_context(|| roles.display().to_string())?;
    let rights = granted(&roles).context(ROLES)?;
    let page = fs::read_to_string(paths::root().join(REASONS)).context(REASONS)?;
    let promised = Promised { rights, reasons: named(&page) };
    ensure!(!promised.reasons.is_empty(), "{REASONS} has no table of reasons");
    let verdict = compare(&Record::read_all(&records)?, &promised, whole().exists());
    println!("{}", verdict.summary);
    ensure!(verdict.wrong.is_empty(), "{}", verdict.wrong.join("\n  "));
    Ok(())
}

/// The first column of the page's tables.
fn named(page: &str) -> BTreeSet<String> {
    let name = |line: &str| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned());
    page.lines().filter_map(name).collect()
}

fn compare(records: &[Record], promised: &Promised, whole: bool) -> Verdict {
    let granted = &promised.rights;
    let mut wrong = Vec::new();
    let (mut used, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for record in records {
        let test = &record.test;
        if !record.ended {
            wrong.push(format!("{test}: its cluster began and left no record: was the test killed?"));
        }
        wrong.extend(record.unseen.iter().map(|what| format!("{test}: could not be looked at: {what}")));
        wrong.extend(record.refused.iter().map(|right| format!("{test}: refused by RBAC: {right}")));
        let beyond = record.used.difference(granted).filter(|right| !used.contains(right));
        wrong.extend(
            beyond.map(|right| format!("{test}: {right}: is used, and no rule of {ROLES} grants it")),
        );
        wrong.extend(record.told.iter().map(|what| format!("{test}: a secret stands in {what}")));
        used.extend(&record.used);
        seen.extend(&record.reasons);
    }
    let used_of_granted = granted.iter().filter(|right| used.contains(right)).count();
    if whole {
        let idle = granted.iter().filter(|right| !used.contains(right));
        wrong.extend(idle.map(|right| format!("{right}: {ROLES} grants it, and no test uses it")));
        let unseen: BTreeSet<&str> = UNSEEN.iter().map(|(reason, _)| *reason).collect();
        for reason in &promised.reasons {
            match (seen.contains(reason), unseen.contains(reason.as_str())) {
                (false, false) => {
                    wrong.push(format!("{reason}: no test brings it about, and `UNSEEN` does not say why"))
                }
                (true, true) => {
                    wrong.push(format!("{reason}: a test brings it about, and `UNSEEN` says that none does"))
                }
                _ => {}
            }
        }
    }
    let partly = if whole { "" } else { "; not the whole suite, so the others were not looked at" };
    let summary = format!(
        "{} clusters, {used_of_granted} rights used of {} granted, {} reasons seen of {}{partly}",
        records.len(),
        granted.len(),
        seen.len(),
        promised.reasons.len()
    );
    Verdict { summary, wrong }
}

/// Of the last run, beside what cargo builds.
fn run() -> PathBuf {
    let binaries = paths::binaries();
    binaries.parent().unwrap_or(Path::new("target")).join("suite")
}

fn records() -> PathBuf {
    run().join("records")
}

fn whole() -> PathBuf {
    run().join("whole")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(names: &[&str]) -> BTreeSet<Right> {
        let right =
            |name: &&str| Right { role: "agent".into(), verb: (*name).into(), what: "g.io/things".into() };
        names.iter().map(right).collect()
    }

    fn promise(names: &[&str]) -> Promised {
        Promised { rights: rights(names), reasons: BTreeSet::new() }
    }

    #[test]
    fn a_reason_that_no_test_sees_is_named() {
        let reasons = named("# Reasons\n| `Queued` | x |\n| `Retrying` | y |\n| Reason | z |\n");
        let seen = Record { reasons: BTreeSet::from(["Queued".into()]), ..record("one", &["get"]) };
        let promised = Promised { reasons, ..promise(&["get"]) };
        let verdict = compare(std::slice::from_ref(&seen), &promised, true);
        assert!(verdict.summary.ends_with("1 reasons seen of 2"), "{}", verdict.summary);
        assert_eq!(verdict.wrong, ["Retrying: no test brings it about, and `UNSEEN` does not say why"]);
        assert!(compare(&[seen], &promised, false).wrong.is_empty());
    }

    fn record(test: &str, used: &[&str]) -> Record {
        Record { test: test.into(), ended: true, used: rights(used), ..Record::default() }
    }

    #[test]
    fn together_the_tests_use_what_is_granted_and_nothing_else() {
        let all = [record("one", &["get"]), record("two", &["get", "list"])];
        let verdict = compare(&all, &promise(&["get", "list"]), true);
        assert_eq!(verdict.summary, "2 clusters, 2 rights used of 2 granted, 0 reasons seen of 0");
        assert_eq!(verdict.wrong, [] as [&str; 0]);

        let verdict = compare(&all, &promise(&["get", "patch"]), true);
        assert_eq!(verdict.summary, "2 clusters, 1 rights used of 2 granted, 0 reasons seen of 0");
        let expected = [
            format!("two: agent: list g.io/things: is used, and no rule of {ROLES} grants it"),
            format!("agent: patch g.io/things: {ROLES} grants it, and no test uses it"),
        ];
        assert_eq!(verdict.wrong, expected);
    }

    #[test]
    fn of_some_tests_nobody_expects_that_they_use_everything() {
        let verdict = compare(&[record("one", &["get"])], &promise(&["get", "list"]), false);
        assert!(verdict.wrong.is_empty() && verdict.summary.ends_with("were not looked at"), "{verdict:?}");
        assert_eq!(compare(&[], &promise(&["get"]), true).wrong.len(), 1);
    }

    #[test]
    fn what_each_record_says_is_wrong_is_said_with_its_test() {
        let bad = Record {
            ended: false,
            refused: rights(&["delete"]),
            told: BTreeSet::from(["nodes/a/agent.log, line 7: the token of x".into()]),
            unseen: BTreeSet::from(["no log".into()]),
            ..record("bad", &[])
        };
        let wrong = compare(&[bad, record("good", &["get"])], &promise(&["get"]), true).wrong;
        for word in ["left no record", "no log", "refused by RBAC: agent: delete", "line 7: the token of x"] {
            let said = wrong.iter().any(|line| line.starts_with("bad: ") && line.contains(word));
            assert!(said, "{word} is not in {wrong:?}");
        }
        assert_eq!(wrong.len(), 4);
    }
}
