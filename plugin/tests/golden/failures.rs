//! The program when there is no good answer: a sentence with a remedy, and an exit code of its own, in time. What forbids and what
//! lacks the CRDs is a real API server, in `tests/tests/system/plugin.rs`.

use std::{
    net::{SocketAddr, TcpListener},
    process::Stdio,
    time::{Duration, Instant},
};

use crate::{binary::plugin, compare::check_whole, fake};

/// An API server named fake that takes connections and never answers.
fn silent() -> (TcpListener, SocketAddr) {
    // The kernel takes the connections; nobody reads them.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

const COMMANDS: [&[&str]; 8] = [
    &["create", "gpu-a:models/x", "gpu-b:models/x"],
    &["get"],
    &["describe", "x"],
    &["watch", "x"],
    &["doctor"],
    &["rerun", "x"],
    &["suspend", "x"],
    &["resume", "x"],
];

#[test]
fn a_slow_server_is_given_up_in_time() {
    let (_listener, address) = silent();
    let directory = fake::kubeconfig(address);
    let since = Instant::now();
    let started = COMMANDS.map(|arguments| {
        let mut command = plugin(arguments);
        command.args(["--request-timeout", "1s", "--kubeconfig"]).arg(directory.path().join("kubeconfig"));
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    });
    for (arguments, child) in COMMANDS.iter().zip(started) {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {said}");
        assert!(said.contains("did not answer within 1 s") && said.contains("--request-timeout"), "{said}");
        assert!(said.lines().count() == 1 && said.contains(&address.to_string()), "{said}");
    }
    // As long as each may take, and time for a busy machine to start eight programs.
    assert!(
        (Duration::from_secs(1)..Duration::from_secs(15)).contains(&since.elapsed()),
        "{:?}",
        since.elapsed()
    );
}

#[test]
fn a_server_that_is_not_there_is_said_at_once() {
    let (listener, address) = silent();
    drop(listener);
    let directory = fake::kubeconfig(address);
    for arguments in COMMANDS {
        let output =
            plugin(arguments).arg("--kubeconfig").arg(directory.path().join("kubeconfig")).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {said}");
        assert!(
            said.contains("cannot be reached") && said.contains("refused") && said.contains("--context"),
            "{said}"
        );
    }
}

#[test]
fn what_cannot_be_meant_is_refused_with_the_value_and_a_remedy() {
    let directory = fake::kubeconfig("127.0.0.1:1".parse().unwrap());
    let kubeconfig = directory.path().join("kubeconfig").to_str().unwrap().to_owned();
    let cases: [(&[&str], &str); 9] = [
        (&["create", "gpu-a", "gpu-b:models"], "gpu-a:VOLUME/PATH"),
        (&["create", "gpu-a:models"], "<DST>"),
        (&["create", "gpu-a:/data", "gpu-b:models"], "kubectl transfer doctor"),
        (&["create", "memory/a", "memory/b", "--include", "*", "--dry-run"], "leave them out"),
        (&["create", "memory/a", "memory/b", "--write-policy", "Never"], "FailIfExists"),
        (&["get", "--request-timeout", "0"], "30s"),
        (&["get", "--kubeconfig", "/does/not/exist"], "/does/not/exist"),
        (&["get", "--context", "elsewhere", "--kubeconfig", &kubeconfig], "elsewhere"),
        (&["transmogrify"], "transmogrify"),
    ];
    for (arguments, remedy) in cases {
        let output = plugin(arguments).env("KUBECONFIG", &kubeconfig).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(remedy) && !said.contains("panicked"), "{arguments:?}: {said}");
    }
}

#[test]
fn a_dry_run_needs_no_cluster() {
    let ends = ["create", "gpu-a:models/llama-3-8b", "-l", "role=decode:models/llama-3-8b"];
    let mut command = plugin(&ends);
    command
        .args(["--dry-run", "-o", "yaml"])
        .env("KUBECONFIG", "/does/not/exist")
        .env("HOME", "/does/not/exist");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    // Without a namespace: kubectl puts in its own.
    check_whole("create.yaml", &String::from_utf8(output.stdout).unwrap());
}

#[test]
fn help_has_every_exit_code_and_how_ends_are_written() {
    let help = |arguments: &[&str]| String::from_utf8(plugin(arguments).output().unwrap().stdout).unwrap();
    let all = help(&["--help"]);
    for code in 0..=6 {
        assert!(all.contains(&format!("\n  {code}  ")), "{code}: {all}");
    }
    assert!(all.contains("kubectl transfer"), "{all}");
    let create = help(&["create", "--help"]);
    for form in
        ["gpu-a:models/llama", "node/gpu-a:models/llama", "role=decode:models/llama", "memory/kv-buffer"]
    {
        assert!(create.contains(form), "{form}: {create}");
    }
}
