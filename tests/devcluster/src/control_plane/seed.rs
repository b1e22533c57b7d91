//! What a new cluster holds before anything of ours runs: CRDs, roles and their bindings, our namespace, Node objects.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Value, json};

use super::ControlPlaneOptions;
use crate::SYSTEM_NAMESPACE;
use crate::identity::{AGENT_GROUP, OPERATOR_GROUP};
use crate::kubectl::Kubectl;

/// Objects of every cluster with these manifests.
pub(super) fn objects(options: &ControlPlaneOptions) -> Value {
    let mut items =
        vec![json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE}})];
    items.extend(bindings(options.manifests.rbac.is_some()));
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

/// This cluster's Node objects.
pub(super) fn nodes(kubectl: &Kubectl, options: &ControlPlaneOptions) -> Result<()> {
    let items: Vec<Value> = options.nodes.iter().map(|(name, labels)| node(name, labels)).collect();
    if !items.is_empty() {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        kubectl.run_with_input(&["create", "-f", "-"], Some(&list.to_string()))?;
    }
    Ok(())
}

/// What a cluster holds before its nodes.
pub(super) fn seed(kubectl: &Kubectl, options: &ControlPlaneOptions) -> Result<()> {
    kubectl.run_with_input(&["create", "-f", "-"], Some(&objects(options).to_string()))?;

    let manifests = &options.manifests;
    let mut arguments = vec!["apply".to_owned(), "--server-side".to_owned()];
    for path in manifests.crds.iter().chain(&manifests.rbac).chain(&manifests.others) {
        arguments.push(format!("--filename={}", path.display()));
    }
    if arguments.len() > 2 {
        kubectl.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    if manifests.crds.is_some() {
        kubectl.run(&["wait", "--for=condition=Established", "--timeout=20s", "crd", "--all"])?;
    }
    Ok(())
}

pub(super) fn node(name: &str, labels: &BTreeMap<String, String>) -> Value {
    let mut labels = labels.clone();
    labels.insert("kubernetes.io/hostname".to_owned(), name.to_owned());
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}})
}

/// In production the chart binds service accounts; here the two groups stand for them. A binding to a role that the
/// manifests do not have grants nothing.
fn bindings(has_roles: bool) -> Vec<Value> {
    let groups = [("nixl-transfer-operator", OPERATOR_GROUP), ("nixl-transfer-agent", AGENT_GROUP)];
    let mut bindings = Vec::new();
    for (role, group) in groups {
        let cluster_role = if has_roles { role } else { "cluster-admin" };
        bindings.push(binding("ClusterRoleBinding", "ClusterRole", cluster_role, role, group, None));
        if has_roles {
            bindings.push(binding("RoleBinding", "Role", role, role, group, Some(SYSTEM_NAMESPACE)));
        }
    }
    bindings
}

fn binding(
    kind: &str,
    role_kind: &str,
    role: &str,
    name: &str,
    group: &str,
    namespace: Option<&str>,
) -> Value {
    let mut metadata = json!({"name": format!("devcluster-{name}")});
    if let Some(namespace) = namespace {
        metadata["namespace"] = json!(namespace);
    }
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind,
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_roles_both_groups_are_administrators() {
        let all = bindings(false);
        assert_eq!(all.len(), 2);
        assert!(all.iter().all(|binding| binding["roleRef"]["name"] == "cluster-admin"));
        let all = bindings(true);
        assert_eq!(all.len(), 4);
        assert!(all.iter().all(|binding| binding["roleRef"]["name"] != "cluster-admin"));
    }

    #[test]
    fn a_node_carries_its_hostname() {
        let node = node("node-a", &BTreeMap::from([("role".to_owned(), "source".to_owned())]));
        assert_eq!(node["metadata"]["labels"]["kubernetes.io/hostname"], "node-a");
        assert_eq!(node["metadata"]["labels"]["role"], "source");
    }
}
