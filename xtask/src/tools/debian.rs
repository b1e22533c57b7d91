//! Two programs of a node that Go does not build: runc and nft. The system's, where it has them; else from the packages of
//! Debian or a descendant, unpacked into the cache: nothing is installed, and apt's own lists stay as they are.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::cache;
use crate::exec;
use crate::progress::Step;

pub struct Program {
    name: &'static str,
    /// Its package first, then those of the libraries that a small system lacks.
    packages: &'static [&'static str],
}

const FETCHED_WITHIN: Duration = Duration::from_secs(300);

pub const PROGRAMS: &[Program] = &[
    Program { name: "runc", packages: &["runc", "libseccomp2"] },
    Program {
        name: "nft",
        packages: &[
            "nftables",
            "libnftables1",
            "libnftnl11",
            "libmnl0",
            "libjansson4",
            "libxtables12",
            "libgmp10",
            "libedit2",
            "libbsd0",
            "libmd0",
        ],
    },
];

/// The system's program, or the cached one, which is fetched when it is missing.
pub fn ensure(cache: &Path, program: &Program) -> Result<PathBuf> {
    if let Some(path) = installed(program.name) {
        return Ok(path);
    }
    let place = cache::ensure(cache, &format!("{}-of-debian", program.name), |place| fetch(program, place))?;
    Ok(place.join("bin").join(program.name))
}

/// In PATH, and where a plain user's PATH does not look.
fn installed(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let places = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    places.map(|place| place.join(name)).find(|program| program.is_absolute() && program.is_file())
}

fn fetch(program: &Program, place: &Path) -> Result<()> {
    let Program { name, packages } = program;
    let remedy = format!("install the system's package {} by hand, then try again", packages[0]);
    let mut step = Step::start(format!("{name}: fetching Debian's package {}", packages[0]));
    let (scratch, root) = (place.join("scratch"), place.join("root"));
    for directory in ["lists/partial", "archives/partial"] {
        fs::create_dir_all(scratch.join(directory))?;
    }
    for arguments in [&["update"][..], &[&["download"], *packages].concat()] {
        let mut apt = apt_get(&scratch);
        exec::watched_within(apt.args(arguments), FETCHED_WITHIN, |_| step.tick("fetching"))
            .with_context(|| format!("apt-get could not get {name}: {remedy}"))?;
    }
    for entry in fs::read_dir(&scratch)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            exec::watched(Command::new("dpkg-deb").arg("--extract").args([&path, &root]), |_| {})?;
        }
    }
    fs::remove_dir_all(&scratch)?;
    let found = ["usr/sbin", "usr/bin"].into_iter().find(|bin| root.join(bin).join(name).is_file());
    let directory = found.with_context(|| format!("Debian's package has no {name}: {remedy}"))?;
    wrap(name, directory, place)?;
    let works = Command::new(place.join("bin").join(name)).arg("--version").output()?;
    ensure!(works.status.success(), "{name} does not run ({}): {remedy}", text(&works.stderr));
    step.done(text(&works.stdout).lines().next().unwrap_or(""));
    Ok(())
}

/// Its own lists of packages: those of the system may be old or missing, and are not ours to change.
fn apt_get(scratch: &Path) -> Command {
    let mut apt = Command::new("apt-get");
    apt.current_dir(scratch).args(["--quiet", "--option", "APT::Sandbox::User=root"]);
    for (name, place) in [("State::Lists", "lists"), ("Cache", "archives")] {
        apt.arg("--option").arg(format!("Dir::{name}={}", scratch.join(place).display()));
    }
    apt
}

/// A script that starts the program with the libraries that came with it; it finds itself, as the cache is moved into place.
fn wrap(name: &str, directory: &str, place: &Path) -> Result<()> {
    let triplet = exec::output("gcc", &["-print-multiarch"])?;
    let script = format!(
        "#!/bin/sh\nroot=$(dirname \"$(dirname \"$(readlink -f \"$0\")\")\")/root\n\
         export LD_LIBRARY_PATH=\"$root/usr/lib/{triplet}:$root/lib/{triplet}\"\n\
         exec \"$root/{directory}/{name}\" \"$@\"\n"
    );
    let file = place.join("bin").join(name);
    fs::create_dir(place.join("bin"))?;
    fs::write(&file, script)?;
    Ok(fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_the_system_is_found_and_a_wrapped_one_finds_its_libraries() {
        assert!(installed("sh").is_some() && installed("no-such-program").is_none());
        let place = env::temp_dir().join(format!("nixl-transfer-debian-{}", std::process::id()));
        fs::create_dir_all(place.join("root/usr/bin")).unwrap();
        let program = place.join("root/usr/bin/tell");
        fs::write(&program, "#!/bin/sh\necho $LD_LIBRARY_PATH $1\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        wrap("tell", "usr/bin", &place).unwrap();
        std::os::unix::fs::symlink(place.join("bin/tell"), place.join("link")).unwrap();
        let output = Command::new(place.join("link")).arg("all").output().unwrap();
        let said = text(&output.stdout);
        assert!(said.contains("/root/usr/lib/") && said.ends_with(" all"), "{said}");
        fs::remove_dir_all(place).unwrap();
    }
}
