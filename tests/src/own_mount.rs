//! An agent with a file system of its own: a tmpfs of 64 MiB in a mount namespace, which needs no root where users may make
//! namespaces. Nobody else fills it, and it can be remounted.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// A directory with the mount point and a script that mounts there and becomes the agent. Removed when dropped.
pub struct OwnMount {
    directory: PathBuf,
}

impl OwnMount {
    /// Makes the directory; what it contains is of the agent that starts by `agent`.
    pub fn new(name: &str) -> Result<Self> {
        let output =
            Command::new("mktemp").args(["-d", "-t", &format!("nixl-transfer-{name}-XXXXXX")]).output()?;
        ensure!(output.status.success(), "mktemp failed");
        let own = Self { directory: String::from_utf8(output.stdout)?.trim().into() };
        fs::create_dir(own.path())?;
        let agent = devcluster::binary("transfer-agent")?;
        let script = format!(
            "#!/bin/sh\nexec unshare --user --map-root-user --mount sh -c 'mount -t tmpfs -o size=64m none {} && exec {} \"$@\"' agent \"$@\"\n",
            own.path().display(),
            agent.display()
        );
        fs::write(own.agent(), script)?;
        fs::set_permissions(own.agent(), PermissionsExt::from_mode(0o755))?;
        Ok(own)
    }

    /// The mount point, for a volume.
    pub fn path(&self) -> PathBuf {
        self.directory.join("volume")
    }

    /// The program to start as the agent.
    pub fn agent(&self) -> PathBuf {
        self.directory.join("agent.sh")
    }

    /// For other files of the test.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Runs a command where the agent of that pid sees its mounts.
    pub fn run(agent: i32, command: &[&str]) -> Result<()> {
        let output = Command::new("nsenter")
            .args(["--target", &agent.to_string(), "--user", "--preserve-credentials", "--mount", "--"])
            .args(command)
            .output()
            .context("nsenter")?;
        ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

impl Drop for OwnMount {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}
