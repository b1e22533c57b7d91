//! The program that holds a pod's namespaces and waits for its orphans: ten lines of C, linked statically. Needs gcc.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::exec;

const SOURCE: &str = r#"#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
static void end(int signal) { _exit(0); }
static void reap(int signal) { while (waitpid(-1, NULL, WNOHANG) > 0) {} }
int main(void) {
  signal(SIGINT, end), signal(SIGTERM, end), signal(SIGCHLD, reap);
  for (;;) pause();
}
"#;

pub fn write(root: &Path) -> Result<()> {
    let source = root.join("pause.c");
    fs::write(&source, SOURCE)?;
    let mut gcc = Command::new("gcc");
    exec::watched(gcc.args(["-static", "-Os", "-s", "-o"]).arg(root.join("pause")).arg(&source), |_| {})
        .context("gcc cannot link statically (Debian: package libc6-dev)")?;
    Ok(fs::remove_file(source)?)
}
