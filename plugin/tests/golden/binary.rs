//! The program itself on a terminal, on a pipe, and as data.

use std::process::Command;

use serde_json::Value;

use crate::{
    compare::{check_whole, golden},
    fake::Fake,
    fixtures::{self, NOW},
    pty,
};

/// The program, in an environment that says nothing about terminals but that there is a good one.
pub fn plugin(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-transfer"));
    command.args(arguments).env("TERM", "xterm-256color");
    for name in ["COLUMNS", "NO_COLOR", "KUBECONFIG"] {
        command.env_remove(name);
    }
    command
}

fn against(fake: &Fake, arguments: &[&str]) -> Command {
    let mut command = plugin(arguments);
    command.args(["--now", NOW, "--kubeconfig"]).arg(fake.kubeconfig());
    command
}

const SHOWN: [(&[&str], &str, i32); 6] = [
    (&["get"], "get", 0),
    (&["get", "-o", "wide"], "get-wide", 0),
    (&["describe", "one-to-many"], "describe-one-to-many", 0),
    (&["describe", "failed"], "describe-failed", 0),
    (&["watch", "complete"], "watch-complete", 0),
    (&["watch", "tj/failed"], "watch-failed", 1),
];

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_it_is_as_wide_as_that_and_coloured() {
    let fake = Fake::start().await;
    for (arguments, name, code) in SHOWN {
        for columns in [80, 200] {
            let (status, written) = pty::run(against(&fake, arguments), columns);
            assert_eq!(written, golden(name, &format!("a terminal of {columns} columns")), "{arguments:?}");
            assert_eq!(status.code(), Some(code), "{arguments:?}");
        }
    }
    let mut plain = against(&fake, &["get"]);
    plain.env("NO_COLOR", "1");
    assert_eq!(pty::run(plain, 80).1, golden("get", "no terminal, COLUMNS=80"));
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_pipe_nothing_is_coloured_or_cut() {
    let fake = Fake::start().await;
    for (arguments, name, code) in SHOWN {
        for (columns, kind) in [(None, "no terminal"), (Some("80"), "no terminal, COLUMNS=80")] {
            let mut command = against(&fake, arguments);
            command.envs(columns.map(|columns| ("COLUMNS", columns)));
            let output = command.output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), golden(name, kind), "{arguments:?}");
            assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        }
    }
    let output = against(&fake, &["doctor"]).output().unwrap();
    let written = String::from_utf8(output.stdout).unwrap();
    let expected = golden("doctor-poor", "no terminal");
    // The address of the server is another one each time.
    assert_eq!(written.split_once('\n').unwrap().1, expected.split_once('\n').unwrap().1);
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn as_data_it_is_what_the_server_has() {
    let fake = Fake::start().await;
    let data = |arguments: &[&str]| -> Value {
        let output = against(&fake, arguments).output().unwrap();
        let json = serde_json::from_slice(&output.stdout);
        json.unwrap_or_else(|_| serde_yaml::from_slice(&output.stdout).unwrap())
    };
    let jobs = fixtures::jobs();
    for output in ["json", "yaml"] {
        assert_eq!(data(&["get", "running", "-o", output]), jobs["running"]);
        let list = data(&["get", "-o", output]);
        assert_eq!((&list["kind"], &list["items"]), (&"List".into(), &jobs.values().cloned().collect()));
        assert_eq!(data(&["get", "running", "failed", "-o", output])["items"][1], jobs["failed"]);
        let described = data(&["describe", "failed", "-o", output]);
        assert_eq!((&described["job"], &described["tasks"]), (&jobs["failed"], &Value::Null));
        assert_eq!(described["next"][0]["reason"], "SourceNotFound");
        let report = data(&["doctor", "-o", output]);
        assert_eq!(report["nodes"][1]["name"], "gpu-b");
        assert_eq!(report["findings"][0]["grade"], "Broken");
    }
    let names = against(&fake, &["get", "-o", "name"]).output().unwrap().stdout;
    let names = String::from_utf8(names).unwrap();
    assert_eq!(names.lines().next(), Some("transferjob.nixl-transfer.io/complete"));
    let output = against(&fake, &["doctor", "gpu-z"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("no node gpu-z"));
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_say_what_was_changed_and_who_must_still_do_something() {
    let fake = Fake::start().await;
    for (verb, name) in [("rerun", "complete"), ("suspend", "running"), ("resume", "suspended")] {
        let output = against(&fake, &[verb, name]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        check_whole(&format!("{verb}.txt"), &String::from_utf8(output.stdout).unwrap());
    }
    let output = against(&fake, &["rerun", "suspended"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("kubectl transfer resume suspended -n ml"), "{said}");
    let changed = against(&fake, &["suspend", "running", "-o", "json"]).output().unwrap().stdout;
    assert_eq!(serde_json::from_slice::<Value>(&changed).unwrap()["spec"]["suspend"], true);
}
