//! The other end of the interop tests: Dynamo's own Python module with NIXL, as directories that can stand in PYTHONPATH.
//! One directory per version of NIXL; what they share is fetched once and linked. Needs python3 with pip.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::host_python::HostPython;
use super::{DYNAMO_VERSION, NIXL_VERSION, OLDER_NIXL_VERSION, cache, pip};
use crate::exec;
use crate::paths;
use crate::progress::Step;

/// Dynamo's module as its wheel has it.
const MODULE: &str = "dynamo/nixl_connect/__init__.py";

pub struct Peer {
    /// As `doctor` shows it.
    pub name: &'static str,
    pub nixl: &'static str,
    download: &'static str,
}

pub const PEERS: &[Peer] = &[
    Peer { name: "python peer, NIXL 1.5.1", nixl: NIXL_VERSION, download: "69 MB" },
    Peer { name: "python peer, NIXL 1.4.1", nixl: OLDER_NIXL_VERSION, download: "79 MB" },
];

/// The cached directory, when it is there for the Python that this host has now.
pub fn find(cache: &Path, peer: &Peer) -> Option<PathBuf> {
    let python = HostPython::find().ok()?;
    let (base, nixl) = (pins("base").ok()?, pins(&format!("nixl-{}", peer.nixl)).ok()?);
    Some(cache.join(directory(peer, python, &base, &nixl))).filter(|path| path.is_dir())
}

pub fn ensure(cache: &Path, peer: &Peer) -> Result<PathBuf> {
    let python = HostPython::find()?;
    let (base, nixl) = (pins("base")?, pins(&format!("nixl-{}", peer.nixl))?);
    cache::ensure(cache, &directory(peer, python, &base, &nixl), |place| {
        let name = format!("python-peer-base-{DYNAMO_VERSION}-{}-{}", python.tag(), short_digest(&[&base]));
        let base = cache::ensure(cache, &name, make_base)?;
        link_tree(&base, place)?;
        make_peer(peer, place)
    })
}

/// NIXL's extension module is made for one Python version, and a changed pin makes another directory.
fn directory(peer: &Peer, python: HostPython, base: &str, nixl: &str) -> String {
    format!("python-peer-nixl-{}-{}-{}", peer.nixl, python.tag(), short_digest(&[base, nixl]))
}

fn make_base(place: &Path) -> Result<()> {
    let mut step = Step::start(format!("Dynamo {DYNAMO_VERSION}'s Python module: fetching wheels (95 MB)"));
    // Of Dynamo's 230 MB only the module is wanted, and what says where it is from.
    let dist_info = format!("ai_dynamo_runtime-{DYNAMO_VERSION}.dist-info");
    let mut dynamo = vec!["dynamo/nixl_connect/".to_owned()];
    dynamo.extend(
        ["METADATA", "RECORD", "WHEEL", "licenses/LICENSE"].map(|file| format!("{dist_info}/{file}")),
    );
    fetch(&mut step, "base", place, |wheel| {
        if wheel.starts_with("ai_dynamo_runtime-") { dynamo.clone() } else { Vec::new() }
    })?;
    verify(place, &[MODULE])?;
    compile(&mut step, place)?;
    step.done("");
    Ok(())
}

/// Headers, scripts and what only PyTorch uses are left out.
fn make_peer(peer: &Peer, place: &Path) -> Result<()> {
    let Peer { nixl, download, .. } = peer;
    let mut step = Step::start(format!("NIXL {nixl} for Python: fetching its wheels ({download})"));
    let mut parts = vec![format!("nixl-{nixl}.dist-info/"), format!("nixl_cu12-{nixl}.dist-info/")];
    for part in ["nixl/", "nixl_meta_utils.py", "nixl_cu12/", "nixl_cu12.libs/", ".nixl_cu12.mesonpy.libs/"] {
        parts.push(part.to_owned());
    }
    fetch(&mut step, &format!("nixl-{nixl}"), place, |_| parts.clone())?;
    verify(
        place,
        &[MODULE, "nixl/__init__.py", "nixl_cu12/_api.py", "nixl_cu12.libs/nixl/libplugin_UCX.so"],
    )?;
    step.done("");
    Ok(())
}

/// Fetches what `<file>.txt` pins and unzips it into `place`: of each wheel the members that begin with a part, or all.
fn fetch(step: &mut Step, file: &str, place: &Path, parts: impl Fn(&str) -> Vec<String>) -> Result<()> {
    let scratch = place.join("scratch");
    fs::create_dir(&scratch)?;
    for wheel in pip::download(step, &pinned_file(file), &scratch, pip::For::Host)? {
        let name = wheel.file_name().and_then(|name| name.to_str()).context("a wheel without a name")?;
        let mut extract = wheel_script();
        extract.arg("extract").arg(&wheel).arg(place).args(parts(name));
        exec::watched(&mut extract, |_| step.tick("unzipping"))?;
    }
    Ok(fs::remove_dir_all(&scratch)?)
}

/// Every file is as its wheel's RECORD says, and `files` are among them.
fn verify(place: &Path, files: &[&str]) -> Result<()> {
    exec::watched(wheel_script().arg("verify").arg(place).args(files), |_| {})
}

/// What an installation does too: every test starts peers, and each would compile 200 modules again. What is compiled
/// already, and linked, is not compiled again.
fn compile(step: &mut Step, place: &Path) -> Result<()> {
    let mut command = Command::new("python3");
    command.args(["-m", "compileall", "-q"]).arg(place);
    exec::watched(&mut command, |_| step.tick("compiling"))
}

fn wheel_script() -> Command {
    let mut command = Command::new("python3");
    command.arg(paths::root().join("xtask/tools/python-peer/wheel.py"));
    command
}

fn pinned_file(name: &str) -> PathBuf {
    paths::root().join("xtask/tools/python-peer").join(format!("{name}.txt"))
}

/// The pins without the comments, which change nothing.
fn pins(name: &str) -> Result<String> {
    let file = pinned_file(name);
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n"))
}

/// FNV-1a: names a text; the digests that guard something are pip's.
fn short_digest(texts: &[&str]) -> String {
    let hash = texts
        .iter()
        .flat_map(|text| text.bytes().chain([0]))
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{hash:08x}")
}

/// The same tree at `to`, its files shared where the file system can do that: they are only read.
fn link_tree(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir(&target)?;
            link_tree(&entry.path(), &target)?;
        } else if fs::hard_link(entry.path(), &target).is_err() {
            fs::copy(entry.path(), &target).with_context(|| format!("cannot copy {}", target.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let place = std::env::temp_dir().join(format!("nixl-transfer-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&place);
        fs::create_dir(&place).unwrap();
        place
    }

    #[test]
    fn the_peers_have_dynamos_module_as_its_wheel_has_it() {
        for peer in PEERS {
            let place = paths::tools().join("python").join(format!("nixl-{}", peer.nixl));
            assert!(place.is_dir(), "{} is missing: run `cargo xtask tools`", place.display());
            verify(&place, &[MODULE, "nixl_cu12/_api.py"]).unwrap();
            let dist_info = place.join(format!("ai_dynamo_runtime-{DYNAMO_VERSION}.dist-info"));
            for file in ["METADATA", "RECORD", "licenses/LICENSE"] {
                assert!(dist_info.join(file).is_file(), "{file} is missing in {}", dist_info.display());
            }
            assert!(place.join(format!("nixl_cu12-{}.dist-info/METADATA", peer.nixl)).is_file());
        }
    }

    #[test]
    fn a_changed_a_missing_and_a_foreign_file_are_found() {
        let place = scratch("record");
        let dist_info = place.join("a-1.dist-info");
        fs::create_dir(&dist_info).unwrap();
        // The digest is the one of the three bytes "abc".
        let record = "a.py,sha256=ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0,3\na-1.dist-info/RECORD,,\n";
        fs::write(dist_info.join("RECORD"), record).unwrap();
        let problem = |files: &[&str]| format!("{:#}", verify(&place, files).unwrap_err());
        assert!(problem(&["a.py"]).contains("a.py is missing"));
        fs::write(place.join("a.py"), "abc").unwrap();
        verify(&place, &["a.py"]).unwrap();
        fs::write(place.join("a.py"), "abd").unwrap();
        assert!(problem(&[]).contains("a.py is not what its RECORD says"));
        fs::write(place.join("a.py"), "abc").unwrap();
        fs::write(place.join("b.py"), "").unwrap();
        assert!(problem(&[]).contains("b.py is in no RECORD"));
        fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn a_tree_is_shared_and_a_changed_pin_has_another_name() {
        let place = scratch("tree");
        let (from, to) = (place.join("from"), place.join("to"));
        fs::create_dir_all(from.join("package/.libs")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("package/.libs/file"), "whole").unwrap();
        link_tree(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("package/.libs/file")).unwrap(), "whole");
        fs::remove_dir_all(place).unwrap();
        assert_eq!(short_digest(&[]), "811c9dc5");
        assert_ne!(short_digest(&["a", "b"]), short_digest(&["ab"]));
        assert_ne!(short_digest(&["a==1"]), short_digest(&["a==2"]));
    }
}
