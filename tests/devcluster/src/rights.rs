//! Who may do what, and who did it: the rights that the chart's roles grant, and those that the API server's audit shows in
//! use. Pure.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::SYSTEM_NAMESPACE;
use crate::identity::{AGENT_GROUP, OPERATOR_GROUP};

/// That a role may do one thing to one kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Right {
    /// `operator` or `agent`.
    pub role: String,
    pub verb: String,
    /// Group, resource and subresource: `nixl-transfer.io/transfertasks/status`, and `/nodes` of the core.
    pub what: String,
}

impl fmt::Display for Right {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {} {}", self.role, self.verb, self.what)
    }
}

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    pub allowed: BTreeSet<Right>,
    /// By RBAC. What an admission policy or a namespace that is going refuses was within the rights.
    pub refused: BTreeSet<Right>,
}

/// What the roles in this YAML grant. That a rule counts for some names or one namespace only is not looked at.
pub fn granted(roles: &str) -> Result<BTreeSet<Right>> {
    let mut rights = BTreeSet::new();
    for document in serde_yaml::Deserializer::from_str(roles) {
        let role = Value::deserialize(document)?;
        let who = match role["metadata"]["name"].as_str() {
            Some("nixl-transfer-operator" | "nixl-transfer-operator-labels") => "operator",
            Some("nixl-transfer-agent") => "agent",
            other => bail!("metadata.name is {other:?}: whose role is that? Add it to `granted`"),
        };
        for rule in role["rules"].as_array().with_context(|| format!("{who}: a role has `rules`"))? {
            for group in words(rule, "apiGroups") {
                for resource in words(rule, "resources") {
                    rights.extend(words(rule, "verbs").map(|verb| Right {
                        role: who.into(),
                        verb: verb.into(),
                        what: format!("{group}/{resource}"),
                    }));
                }
            }
        }
    }
    Ok(rights)
}

/// How operator and agents are told in an audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// As users of a test's control plane.
    ByGroup,
    /// As the chart's service accounts.
    ByAccount,
}

/// What operator and agents asked for, by an audit at the level Metadata. A last line that is still being written
/// does not count, nor do discovery and health, which are of no kind and open to everybody.
pub fn asked(audit: &str, told: Told) -> Asked {
    let mut asked = Asked::default();
    for event in audit.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let account = event["user"]["username"].as_str().unwrap_or_default();
        let is = |group: &str, name: &str| match told {
            Told::ByGroup => words(&event["user"], "groups").any(|it| it == group),
            Told::ByAccount => account == service_account(name),
        };
        let role = match (is(OPERATOR_GROUP, "operator"), is(AGENT_GROUP, "agent")) {
            (true, _) => "operator",
            (_, true) => "agent",
            _ => continue,
        };
        let object = &event["objectRef"];
        if !object.is_object() {
            continue;
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let subresource = object["subresource"].as_str().map(|name| format!("/{name}")).unwrap_or_default();
        let what = format!("{}/{}{subresource}", text(&object["apiGroup"]), text(&object["resource"]));
        let right = Right { role: role.into(), verb: text(&event["verb"]), what };
        let by_rbac = event["annotations"]["authorization.k8s.io/decision"] == "forbid";
        let these = if by_rbac { &mut asked.refused } else { &mut asked.allowed };
        these.insert(right);
    }
    asked
}

/// As the chart makes it under its usual names.
pub fn service_account(part: &str) -> String {
    format!("system:serviceaccount:{SYSTEM_NAMESPACE}:nixl-transfer-{part}")
}

fn words<'a>(of: &'a Value, key: &str) -> impl Iterator<Item = &'a str> {
    of[key].as_array().into_iter().flatten().filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn names(rights: &BTreeSet<Right>) -> Vec<String> {
        rights.iter().map(Right::to_string).collect()
    }

    #[test]
    fn a_rule_grants_each_verb_for_each_resource() {
        let roles = "metadata: {name: nixl-transfer-operator}\nrules:\n\
            - {apiGroups: [''], resources: [nodes, pods], verbs: [list, watch]}\n---\n\
            metadata: {name: nixl-transfer-agent}\nrules:\n\
            - {apiGroups: [g.io], resources: [things/status], verbs: [patch]}\n";
        let expected = [
            "agent: patch g.io/things/status",
            "operator: list /nodes",
            "operator: list /pods",
            "operator: watch /nodes",
            "operator: watch /pods",
        ];
        assert_eq!(names(&granted(roles).unwrap()), expected);
        let strange = granted("metadata: {name: other}\nrules: []\n").unwrap_err().to_string();
        assert!(strange.contains("other"), "{strange}");
    }

    #[test]
    fn the_charts_roles_can_be_read() {
        let roles = include_str!("../../../charts/nixl-transfer/files/rbac.yaml");
        let granted = names(&granted(roles).unwrap());
        for known in ["operator: create events.k8s.io/events", "agent: patch coordination.k8s.io/leases"] {
            assert!(granted.iter().any(|right| right == known), "{known} is not in {granted:#?}");
        }
    }

    fn event(group: &str, verb: &str, code: u16, decision: &str) -> String {
        json!({
            "user": {"groups": ["system:authenticated", group]}, "verb": verb, "responseStatus": {"code": code},
            "objectRef": {"apiGroup": "g.io", "resource": "things", "subresource": "status"},
            "annotations": {"authorization.k8s.io/decision": decision},
        })
        .to_string()
    }

    #[test]
    fn what_was_asked_is_told_apart_by_role_and_by_who_refused_it() {
        let account = json!({"user": {"username": service_account("agent")}, "verb": "get", "objectRef": {"resource": "nodes"}});
        let lines = [
            event(OPERATOR_GROUP, "patch", 200, "allow"),
            // A policy's refusal looks the same but for the decision.
            event(AGENT_GROUP, "create", 403, "allow"),
            event(AGENT_GROUP, "delete", 403, "forbid"),
            event("system:masters", "delete", 200, "allow"),
            account.to_string(),
            json!({"user": {"groups": [AGENT_GROUP]}, "verb": "get", "requestURI": "/version"}).to_string(),
            event(AGENT_GROUP, "watch", 200, "allow")[..60].to_owned(),
        ];
        let by_account = asked(&lines.join("\n"), Told::ByAccount);
        assert_eq!(names(&by_account.allowed), ["agent: get /nodes"]);
        let asked = asked(&lines.join("\n"), Told::ByGroup);
        assert_eq!(
            names(&asked.allowed),
            ["agent: create g.io/things/status", "operator: patch g.io/things/status"]
        );
        assert_eq!(names(&asked.refused), ["agent: delete g.io/things/status"]);
    }
}
