//! Container images without an engine: `cargo xtask image` writes the files of one, for the Dockerfile and for the cluster
//! alike, so that there is one list of what stands in them.

mod layout;
mod libraries;
mod pause;
mod root;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};

use crate::paths;
use crate::progress::bytes;
use crate::test::cargo_build;
use crate::tools::{self, Wanted};
pub use layout::Image;

#[derive(Debug, Args)]
pub struct Arguments {
    name: Name,
    /// Where its files go: missing, or an empty directory. It becomes the image's root.
    directory: PathBuf,
    /// With a program of the release profile.
    #[arg(long)]
    release: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Name {
    Operator,
    Agent,
    /// What holds a pod's namespaces: the cluster's own, since it pulls nothing.
    Pause,
}

/// All that a node must have.
pub const ALL: &[Name] = &[Name::Pause, Name::Operator, Name::Agent];

/// Both, for one image too: the features of what they share, and so what is built, are those of both.
pub const PROGRAMS: &[&str] = &["-p", "transfer-operator", "-p", "transfer-agent"];

/// The tag of what is made here.
pub const TAG: &str = "dev";

/// The numeric user of the operator, as distroless images have it.
pub const USER: u32 = 65532;

impl Name {
    pub fn text(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Agent => "agent",
            Self::Pause => "pause",
        }
    }

    /// As nodes know it: what a pod names `nixl-transfer/agent:dev` is this in full.
    pub fn reference(self) -> String {
        self.tagged(TAG)
    }

    pub fn tagged(self, tag: &str) -> String {
        format!("docker.io/nixl-transfer/{}:{tag}", self.text())
    }

    fn program(self) -> &'static str {
        match self {
            Self::Operator => "transfer-operator",
            Self::Agent => "transfer-agent",
            Self::Pause => "pause",
        }
    }

    /// None: root. The agent opens files of any owner for the jobs that may use their volume.
    fn user(self) -> Option<u32> {
        (self != Self::Agent).then_some(USER)
    }
}

/// `cargo xtask image`
pub fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { name, directory, release } = arguments;
    tools::ensure(Wanted::Build)?;
    if *name != Name::Pause {
        let profile: &[&str] = if *release { &["--release"] } else { &[] };
        cargo_build(&[PROGRAMS, profile].concat())?;
    }
    let programs = paths::binaries();
    files(*name, directory, &if *release { programs.with_file_name("release") } else { programs })?;
    println!("{}", arguments.directory.display());
    Ok(())
}

/// The files of an image, in a directory that is its root.
fn files(name: Name, root: &Path, programs: &Path) -> Result<()> {
    fs::create_dir_all(root).with_context(|| format!("cannot create {}", root.display()))?;
    ensure!(fs::read_dir(root)?.next().is_none(), "{} is not empty", root.display());
    match name {
        Name::Pause => pause::write(root),
        Name::Operator => root::write(root, &programs.join(name.program()), None),
        Name::Agent => root::write(root, &programs.join(name.program()), Some(&paths::tools().join("nixl"))),
    }
}

/// The image as one file that containerd imports, in `directory`. Returns its path, and says how large it is.
pub fn archive(name: Name, directory: &Path, programs: &Path) -> Result<(PathBuf, String)> {
    let scratch = directory.join(name.text());
    if scratch.exists() {
        fs::remove_dir_all(&scratch)?;
    }
    let root = scratch.join("root");
    files(name, &root, programs)?;
    let entrypoint =
        if name == Name::Pause { "/pause".into() } else { format!("/usr/bin/{}", name.program()) };
    let image = Image { reference: name.reference(), entrypoint, user: name.user() };
    let archive = directory.join(format!("{}.tar", name.text()));
    layout::write(&image, &root, &scratch.join("layout"), &archive)?;
    fs::remove_dir_all(&scratch)?;
    let size = bytes(fs::metadata(&archive)?.len());
    Ok((archive, size))
}
