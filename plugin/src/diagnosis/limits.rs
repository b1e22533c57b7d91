//! What would limit a transfer between these nodes when nothing is broken. Pure.

use std::collections::BTreeMap;

use nixl_transfer_crds::Reason;

use super::{Finding, Grade, NodeFacts};

/// Nodes that are named in one sentence.
const MOST_NODES: usize = 6;

/// Sentences, the narrowest place first.
pub(super) fn limits(nodes: &[NodeFacts]) -> Vec<String> {
    let ready: Vec<&NodeFacts> = nodes.iter().filter(|node| node.ready).collect();
    let mut limits = Vec::new();
    if ready.len() > 1 {
        limits.push(network(&ready));
        limits.extend(link(&ready));
    }
    if let (Some(least), Some(most)) =
        (ready.iter().map(|it| it.slots).min(), ready.iter().map(|it| it.slots).max())
    {
        let slots = if least == most { least.to_string() } else { format!("{least} to {most}") };
        limits.push(format!("{slots} hops at once on each node; more wait as Queued. A chain goes at the pace of its slowest node."));
    }
    if ready.iter().any(|node| node.gpus > 0) {
        limits.push("Memory of GPUs goes by way of the host's memory.".into());
    }
    limits
}

fn network(ready: &[&NodeFacts]) -> String {
    let (with, without): (Vec<&NodeFacts>, Vec<&NodeFacts>) = ready.iter().partition(|node| node.rdma);
    match (with.len(), without.len()) {
        (_, 0) => "RDMA between all ready nodes.".into(),
        (0 | 1, _) => "TCP between all nodes: fewer than two can use RDMA.".into(),
        _ => format!("RDMA between {}; TCP wherever one end is {}.", names(&with), names(&without)),
    }
}

/// The slowest link that is known.
fn link(ready: &[&NodeFacts]) -> Option<String> {
    let (rate, node) =
        ready.iter().filter_map(|node| Some((node.link?, node))).min_by_key(|(rate, _)| *rate)?;
    let same = ready.iter().filter(|it| it.link == Some(rate)).count();
    let whose = if same == ready.len() { "every node's".into() } else { format!("that of {}", node.name) };
    let gib = rate as f64 * 1e6 / 8.0 / f64::from(1u32 << 30);
    Some(format!("The slowest link that is known is {whose}, {}: {gib:.1} GiB/s at most.", spoken(rate)))
}

/// `400 Gb/s`, from Mb/s.
pub(crate) fn spoken(rate: i64) -> String {
    if rate >= 1000 && rate % 1000 == 0 { format!("{} Gb/s", rate / 1000) } else { format!("{rate} Mb/s") }
}

fn names(nodes: &[&NodeFacts]) -> String {
    let mut words: Vec<String> = nodes.iter().take(MOST_NODES).map(|node| node.name.clone()).collect();
    if nodes.len() > MOST_NODES {
        words.push(format!("{} more", nodes.len() - MOST_NODES));
    }
    words.join(", ")
}

/// Nodes of different versions may not understand each other.
pub(super) fn versions(nodes: &[NodeFacts]) -> Vec<Finding> {
    let differ = |what: &str, of: fn(&NodeFacts) -> &str| {
        let mut by: BTreeMap<&str, Vec<&NodeFacts>> = BTreeMap::new();
        for node in nodes.iter().filter(|node| !of(node).is_empty()) {
            by.entry(of(node)).or_default().push(node);
        }
        (by.len() > 1).then(|| {
            let each: Vec<String> =
                by.iter().map(|(version, nodes)| format!("{version} on {}", names(nodes))).collect();
            let text = format!(
                "Nodes have different versions of {what}: {}. Bring all nodes to one version.",
                each.join("; ")
            );
            Finding::because(Grade::Poor, Reason::IncompatiblePeer, text)
        })
    };
    [differ("the agent", |node| &node.agent_version), differ("NIXL", |node| &node.nixl_version)]
        .into_iter()
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, rdma: bool, link: Option<i64>, nixl: &str) -> NodeFacts {
        NodeFacts {
            name: name.into(),
            ready: true,
            rdma,
            link,
            nixl_version: nixl.into(),
            slots: 4,
            ..NodeFacts::default()
        }
    }

    #[test]
    fn the_network_is_that_of_both_ends() {
        let of = |rdma: &[bool]| {
            let nodes: Vec<NodeFacts> =
                rdma.iter().zip(["a", "b", "c"]).map(|(it, name)| node(name, *it, None, "")).collect();
            limits(&nodes)[0].clone()
        };
        assert_eq!(of(&[true, true, true]), "RDMA between all ready nodes.");
        assert!(of(&[true, false, false]).starts_with("TCP between all nodes"));
        assert_eq!(of(&[true, true, false]), "RDMA between a, b; TCP wherever one end is c.");
        assert!(of(&[true]).starts_with("4 hops"), "one node has no network to another");
    }

    #[test]
    fn the_slowest_link_and_different_versions_are_named() {
        let nodes = [
            node("a", true, Some(400_000), "1.5.1"),
            node("b", true, Some(25_000), "1.4.1"),
            node("c", true, None, "1.5.1"),
        ];
        assert_eq!(
            limits(&nodes)[1],
            "The slowest link that is known is that of b, 25 Gb/s: 2.9 GiB/s at most."
        );
        let found = versions(&nodes);
        assert_eq!(found.len(), 1);
        assert!(found[0].text.contains("NIXL: 1.4.1 on b; 1.5.1 on a, c."), "{found:?}");
        assert_eq!(versions(&nodes[..1]), []);
        assert_eq!(spoken(2_500), "2500 Mb/s");
    }
}
