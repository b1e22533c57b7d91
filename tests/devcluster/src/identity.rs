//! Who may talk to the API server: one random token per user, and a kubeconfig file for each. Writes files of mode 0600.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;

use crate::cluster_dir::random_hex;

/// The user in `system:masters`.
pub const ADMIN: &str = "admin";
/// The operator's user.
pub const OPERATOR: &str = "nixl-transfer:operator";
/// The user of a second operator, so that the API server's audit tells the two apart.
pub const SECOND_OPERATOR: &str = "nixl-transfer:operator-2";
/// The operators' group: what RBAC binds.
pub const OPERATOR_GROUP: &str = "nixl-transfer:operators";
/// The group of all agents: what RBAC binds.
pub const AGENT_GROUP: &str = "nixl-transfer:agents";

/// The user of the agent on `node`.
pub fn agent_user(node: &str) -> String {
    format!("nixl-transfer:agent:{node}")
}

#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub user: String,
    pub group: String,
    token: String,
}

/// Admin, two operators and one agent per node, each with a fresh token.
pub(crate) fn identities(nodes: &[String]) -> Result<Vec<Identity>> {
    let mut users = vec![(ADMIN.to_owned(), "system:masters")];
    users.extend([OPERATOR, SECOND_OPERATOR].map(|user| (user.to_owned(), OPERATOR_GROUP)));
    users.extend(nodes.iter().map(|node| (agent_user(node), AGENT_GROUP)));
    users
        .into_iter()
        .map(|(user, group)| Ok(Identity { user, group: group.to_owned(), token: random_hex(24)? }))
        .collect()
}

/// The API server's `--token-auth-file`.
pub(crate) fn token_file(identities: &[Identity]) -> String {
    let line = |id: &Identity| format!("{},{},{},\"{}\"\n", id.token, id.user, id.user, id.group);
    identities.iter().map(line).collect()
}

/// Users and their tokens, out of such a file.
pub(crate) fn tokens(file: &str) -> BTreeMap<String, String> {
    let line = |line: &str| {
        let mut words = line.split(',');
        let (token, user) = (words.next()?, words.next()?);
        Some((user.to_owned(), token.to_owned()))
    };
    file.lines().filter_map(line).collect()
}

/// Where the kubeconfig of `user` stands.
pub(crate) fn kubeconfig_path(directory: &Path, user: &str) -> PathBuf {
    directory.join(format!("{}.kubeconfig", user.replace(':', "-")))
}

/// JSON is YAML: every client reads it.
pub(crate) fn kubeconfig(identity: &Identity, server: &str, certificate_authority: &Path) -> String {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "devcluster",
        "clusters": [{"name": "devcluster", "cluster": {"server": server, "certificate-authority": certificate_authority}}],
        "users": [{"name": identity.user, "user": {"token": identity.token}}],
        "contexts": [{"name": "devcluster", "context": {"cluster": "devcluster", "user": identity.user}}],
    });
    format!("{config:#}\n")
}

/// Writes a file that only this user can read.
pub(crate) fn write_secret(path: &Path, text: &str) -> Result<()> {
    let mut file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(file.write_all(text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_has_its_own_token_and_group() {
        let ids = identities(&["node-a".into(), "node-b".into()]).unwrap();
        let text = token_file(&ids);
        assert_eq!(text.lines().count(), 5);
        assert!(text.lines().nth(4).unwrap().ends_with(",\"nixl-transfer:agents\""));
        assert_eq!(tokens(&text)[&agent_user("node-b")], ids[4].token);
        let mut tokens: Vec<&str> = ids.iter().map(|id| id.token.as_str()).collect();
        tokens.sort_unstable();
        tokens.dedup();
        assert_eq!((tokens.len(), tokens[0].len()), (5, 48));
    }

    #[test]
    fn a_user_makes_a_plain_file_name() {
        let path = kubeconfig_path(Path::new("/x"), &agent_user("node-a"));
        assert_eq!(path, Path::new("/x/nixl-transfer-agent-node-a.kubeconfig"));
    }
}
