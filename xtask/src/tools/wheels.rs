//! NIXL and libclang from their wheels, by pinned digest, unzipped and never installed. Needs python3 with pip.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{LIBCLANG_VERSION, NIXL_VERSION, cache, pip};
use crate::exec;
use crate::paths;
use crate::progress::Step;

pub struct Wheel {
    /// The name that people know.
    name: &'static str,
    /// The name on the index.
    package: &'static str,
    version: &'static str,
    download: &'static str,
    /// Brings the unzipped wheel into the cached form.
    arrange: fn(&Path, &Path) -> Result<()>,
}

pub const NIXL: Wheel = Wheel {
    name: "nixl",
    package: "nixl-cu12",
    version: NIXL_VERSION,
    download: "69 MB",
    arrange: arrange_nixl,
};

pub const LIBCLANG: Wheel = Wheel {
    name: "libclang",
    package: "libclang",
    version: LIBCLANG_VERSION,
    download: "25 MB",
    arrange: arrange_libclang,
};

/// The cached directory, when it is there.
pub fn find(cache: &Path, wheel: &Wheel) -> Option<PathBuf> {
    Some(cache.join(directory(wheel))).filter(|path| path.is_dir())
}

pub fn ensure(cache: &Path, wheel: &Wheel) -> Result<PathBuf> {
    cache::ensure(cache, &directory(wheel), |place| make(wheel, place))
}

fn directory(wheel: &Wheel) -> String {
    format!("{}-{}", wheel.name, wheel.version)
}

fn make(wheel: &Wheel, place: &Path) -> Result<()> {
    let label = format!("{} {}: fetching its wheel ({})", wheel.name, wheel.version, wheel.download);
    let mut step = Step::start(label);
    let scratch = place.join("scratch");
    let unzipped = scratch.join("unzipped");
    fs::create_dir_all(&scratch)?;
    let requirements = scratch.join("requirements.txt");
    let all = fs::read_to_string(paths::root().join("xtask/tools/wheels.txt"))?;
    fs::write(&requirements, requirement(&all, wheel.package).context("the wheel is not in wheels.txt")?)?;

    let wheels = pip::download(&mut step, &requirements, &scratch, pip::For::Any)?;
    let file = wheels.first().context("pip fetched no wheel")?;
    exec::watched(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(file).arg(&unzipped), |_| {
        step.tick("unzipping");
    })?;
    (wheel.arrange)(&unzipped, place)?;
    fs::remove_dir_all(&scratch)?;
    step.done("");
    Ok(())
}

/// The lines of one package, with their continuations.
fn requirement(all: &str, package: &str) -> Option<String> {
    let start = all.lines().position(|line| line.starts_with(&format!("{package}==")))?;
    let mut lines = Vec::new();
    for line in all.lines().skip(start) {
        lines.push(line);
        if !line.ends_with('\\') {
            break;
        }
    }
    Some(lines.join("\n") + "\n")
}

/// The libraries find each other by relative paths, so the tree stays as it is; two links give it stable names. What only
/// PyTorch uses is left out.
fn arrange_nixl(unzipped: &Path, place: &Path) -> Result<()> {
    for entry in fs::read_dir(unzipped)? {
        let entry = entry?;
        if entry.file_name() != "nixl_ep_cu12" {
            fs::rename(entry.path(), place.join(entry.file_name()))?;
        }
    }
    symlink(".nixl_cu12.mesonpy.libs", place.join("lib"))?;
    symlink("nixl_cu12.libs/nixl", place.join("plugins"))?;
    for file in ["lib/libnixl_capi.so", "plugins/libplugin_UCX.so"] {
        if !place.join(file).is_file() {
            bail!("the wheel of NIXL has no {file}");
        }
    }
    Ok(())
}

/// libclang comes without headers of its own; bindgen asks a program named by CLANG_PATH where the system's are, and
/// gcc answers in the same form as clang.
fn arrange_libclang(unzipped: &Path, place: &Path) -> Result<()> {
    let library = unzipped.join(format!("libclang-{LIBCLANG_VERSION}.data/platlib/clang/native/libclang.so"));
    fs::create_dir(place.join("lib"))?;
    fs::rename(library, place.join("lib/libclang.so")).context("the wheel of libclang has no libclang.so")?;
    fs::create_dir(place.join("bin"))?;
    let program = place.join("bin/clang");
    fs::write(&program, "#!/bin/sh\nexec gcc \"$@\"\n")?;
    Ok(fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_package_with_all_its_digests() {
        let all = "# text\na==1 \\\n  --hash=x \\\n  --hash=y\n# more\nb==2 \\\n  --hash=z\n";
        assert_eq!(requirement(all, "a").unwrap(), "a==1 \\\n  --hash=x \\\n  --hash=y\n");
        assert_eq!(requirement(all, "b").unwrap(), "b==2 \\\n  --hash=z\n");
        assert_eq!(requirement(all, "c"), None);
    }
}
