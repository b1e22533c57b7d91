//! A cluster that goes on after its starter has ended (`demo --keep`): written down in the user's state directory, ended by
//! `demo --stop`. One at a time.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::agent::Agent;
use crate::cluster_dir::{self, ClusterDir};
use crate::control_plane::ControlPlane;
use crate::identity::{ADMIN, write_secret};
use crate::operator::Operator;

/// What is known about the kept cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptCluster {
    pub directory: PathBuf,
    pub kubeconfig: PathBuf,
    /// Every process by name.
    pub pids: BTreeMap<String, i32>,
}

impl KeptCluster {
    /// Lets everything run on and writes it down. The processes must have been started with [`crate::Tie::Free`].
    pub fn keep(
        mut cluster: ClusterDir,
        plane: ControlPlane,
        operator: Operator,
        agents: Vec<Agent>,
    ) -> Result<Self> {
        let mut pids = plane.pids();
        pids.extend(operator.pid().map(|pid| ("operator".to_owned(), pid)));
        pids.extend(
            agents.iter().filter_map(|agent| Some((format!("agent-{}", agent.node()), agent.pid()?))),
        );
        let kept = Self { directory: cluster.path().to_owned(), kubeconfig: plane.kubeconfig(ADMIN), pids };
        let file = state_file()?;
        cluster_dir::private_dir(file.parent().unwrap_or(Path::new("/")))?;
        write_secret(&file, &serde_json::to_string_pretty(&kept)?)?;
        // From here on nothing may fail: the marker goes first, then the handles are let go.
        cluster.keep_running()?;
        agents.into_iter().for_each(Agent::leave);
        operator.leave();
        plane.leave();
        Ok(kept)
    }

    /// The kept cluster, when there is one.
    pub fn find() -> Result<Option<Self>> {
        match fs::read(state_file()?) {
            Ok(text) => Ok(serde_json::from_slice::<Self>(&text).ok().filter(|kept| kept.directory.is_dir())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context("cannot read what is kept"),
        }
    }

    /// Ends its processes and removes its directory. A pid that now belongs to something else is left alone.
    pub fn stop(&self) -> Result<()> {
        cluster_dir::end(&self.directory);
        fs::remove_file(state_file()?).context("cannot forget the kept cluster")
    }
}

fn state_file() -> Result<PathBuf> {
    let state = env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let state = state.or_else(home).context("neither XDG_STATE_HOME nor HOME is set")?;
    Ok(state.join("nixl-transfer/demo.json"))
}
