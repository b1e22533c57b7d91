//! A Dynamo worker that exposes its memory: the example of this repository, with the unmodified module, as a process.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use devcluster::ADMIN;
use serde_json::json;

use crate::{
    cluster::{Cluster, NAMESPACE},
    workloads::{Program, Sockets},
};

impl Cluster {
    /// Starts `dynamo_memory.py` for a region: `verb` is `readable` or `writable`. Its files are in a directory of the test.
    pub fn dynamo(&self, place: &Sockets, verb: &str, region: &str, bytes: u64) -> Result<Program> {
        self.dynamo_script(place, "examples/external-memory/dynamo_memory.py", verb, region, bytes)
    }

    /// The same with another script of this repository.
    pub fn dynamo_script(
        &self,
        place: &Sockets,
        script: &str,
        verb: &str,
        region: &str,
        bytes: u64,
    ) -> Result<Program> {
        let pod = format!("dynamo-{region}");
        self.make_pod(&pod, "a")?;
        self.allow_status_patches()?;
        let token =
            place.file(&format!("{pod}.token"), &self.token_for(&pod, "https://kubernetes.default.svc")?)?;
        let (server, ca) = self.server()?;
        let ca = place.file("ca.crt", &ca)?;
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let peers = std::env::var_os("NIXL_TRANSFER_PYTHON_PEERS")
            .map_or_else(|| root.join(".tools/python"), PathBuf::from);
        let module = peers.join("nixl-1.5.1");
        let module = module
            .canonicalize()
            .with_context(|| format!("{}: run `cargo xtask tools`", module.display()))?;
        let mut command = Command::new("python3");
        // Nothing that the host has installed gets in the way.
        command.args(["-S", "-B"]).arg(root.join(script));
        command.args([verb, region, &bytes.to_string()]);
        for (name, _) in std::env::vars_os() {
            let changes_it = |name: &str| ["PYTHON", "UCX_", "NIXL_"].iter().any(|it| name.starts_with(it));
            if name.to_str().is_some_and(changes_it) {
                command.env_remove(name);
            }
        }
        let standins = root.join("connect/tests/interop/standins");
        let example = root.join("examples/external-memory");
        command.env("PYTHONPATH", std::env::join_paths([module, standins, example])?);
        command
            .env("UCX_NET_DEVICES", "lo")
            .env("UCX_ERROR_SIGNALS", "")
            .env("UCX_MEM_MMAP_HOOK_MODE", "reloc");
        command.env("NIXL_TRANSFER_API", server).env("NIXL_TRANSFER_NAMESPACE", NAMESPACE);
        command.env("NIXL_TRANSFER_TOKEN_FILE", token).env("NIXL_TRANSFER_CA_FILE", ca);
        Program::start(command)
    }

    /// What a tenant gives the service account of such a worker.
    fn allow_status_patches(&self) -> Result<()> {
        let metadata = json!({"name": "memory-of-workers", "namespace": NAMESPACE});
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata,
            "rules": [{"apiGroups": ["nixl-transfer.io"], "resources": ["memoryregions/status"], "verbs": ["patch"]}],
        });
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "memory-of-workers"},
            "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": NAMESPACE}],
        });
        self.plane.apply_text(&role.to_string())?;
        self.plane.apply_text(&binding.to_string())?;
        Ok(())
    }

    /// Address of the API server, and the certificates to trust for it.
    fn server(&self) -> Result<(String, String)> {
        let kubeconfig = kube::config::Kubeconfig::read_from(self.plane.kubeconfig(ADMIN))?;
        let cluster = kubeconfig.clusters.into_iter().find_map(|named| named.cluster).context("a cluster")?;
        let server = cluster.server.context("a server")?;
        let authority = cluster.certificate_authority.context("a certificate to trust")?;
        Ok((server, std::fs::read_to_string(authority)?))
    }
}
