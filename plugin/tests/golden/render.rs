//! Every state, at every width.

use kubectl_transfer::{
    diagnosis::{self, Seen},
    render::{
        Style,
        describe::{Tasks, describe},
        doctor::doctor,
        jobs::{self, Shown},
        watch,
    },
};

use crate::{
    compare::{check, check_each},
    fixtures::{self, now},
};

#[test]
fn describe_every_state() {
    for name in fixtures::jobs().keys() {
        let job = fixtures::job(name);
        check(&format!("describe-{name}"), |style| describe(&job, &Tasks::Forbidden, style, now()));
    }
}

#[test]
fn describe_with_tasks_never_shows_their_metadata() {
    let (job, tasks) = (fixtures::job("one-to-many"), Tasks::Seen(fixtures::tasks()));
    let text = |style: Style| describe(&job, &tasks, style, now());
    assert!(!text(Style { width: None, colour: false }).contains("SECRET"));
    check("describe-one-to-many-as-administrator", text);
}

#[test]
fn get_every_state() {
    let all: Vec<_> = fixtures::jobs().into_values().collect();
    let shown = [
        ("get", Shown::default()),
        ("get-wide", Shown { wide: true, ..Shown::default() }),
        ("get-all-namespaces", Shown { namespaces: true, ..Shown::default() }),
    ];
    for (name, shown) in shown {
        check(name, |style| jobs::jobs(&all, shown, style, now()));
    }
}

/// On a terminal the bars, elsewhere a line for a log; and how it ended, if it has.
#[test]
fn watch_every_state() {
    for name in fixtures::jobs().keys() {
        let job = fixtures::job(name);
        let ended = ["complete", "failed"].contains(&name.as_str());
        check_each(&format!("watch-{name}"), |style| {
            let shown = if style.colour {
                watch::frame(&job, style, now()).join("\n")
            } else {
                watch::line(&job, now())
            };
            let end = if ended { watch::verdict(&job, style, now()) } else { String::new() };
            format!("{shown}\n{end}")
        });
    }
}

#[test]
fn doctor_of_good_poor_and_empty_clusters() {
    for (name, broken) in [("good", false), ("poor", true), ("empty", true)] {
        let mut seen: Seen = fixtures::typed(&format!("doctor/{name}.yaml"));
        if name == "poor" {
            seen.jobs = fixtures::jobs().keys().map(|name| fixtures::job(name)).collect();
        }
        let report = diagnosis::diagnose(&seen, now());
        assert_eq!(report.is_broken(), broken, "{name}");
        check(&format!("doctor-{name}"), |style| doctor(&report, style));
    }
}
