//! Which peers this machine has. What is missing is named with how to get it, and never installed.

use std::process::{Command, Stdio};

pub fn is_installed(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

pub fn missing_note(name: &str) -> String {
    format!(
        "{name} is not installed, so its cells are left out and goals against it are not known; get it with the system's \
         package {name}, such as `apt-get install {name}`."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_installed_is_known_and_named() {
        assert!(is_installed("tar") && !is_installed("no-such-program-of-anybody"));
        assert!(missing_note("rsync").contains("`apt-get install rsync`"));
    }
}
