//! The NUMA nodes of this machine and their processors. Reads sysfs.

use std::path::Path;

use super::sysfs::Sysfs;

const NODES: &str = "devices/system/node";
/// The kernel can be built for so many.
const MAX_CPUS: u32 = 8192;

/// A NUMA node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumaNode {
    /// Its number.
    pub number: u32,
    /// Its processors; none for a node that is only memory.
    pub cpus: Vec<u32>,
}

/// All NUMA nodes, by number.
pub(super) fn nodes(sysfs: &Sysfs<'_>) -> Vec<NumaNode> {
    let node = |name: String| {
        let number = name.strip_prefix("node")?.parse().ok()?;
        // A node without processors has an empty list, which reads as none.
        let cpus = sysfs.text(&Path::new(NODES).join(&name).join("cpulist"));
        Some(NumaNode { number, cpus: cpus.and_then(|list| cpu_list(&list)).unwrap_or_default() })
    };
    let mut nodes: Vec<NumaNode> = sysfs.names(NODES.as_ref()).into_iter().filter_map(node).collect();
    nodes.sort_by_key(|node| node.number);
    nodes
}

/// `0-3,8,10-11`, ascending; `None` for what makes no sense.
fn cpu_list(text: &str) -> Option<Vec<u32>> {
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        if last < first || last >= MAX_CPUS || cpus.last().is_some_and(|before| *before >= first) {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors() {
        for (text, expected) in [
            ("0", Some(vec![0])),
            ("0-3", Some(vec![0, 1, 2, 3])),
            ("0-1,8,10-11", Some(vec![0, 1, 8, 10, 11])),
            ("", None),
            ("3-1", None),
            ("0-", None),
            ("1,1", None),
            ("0-99999999", None),
            ("0x1", None),
        ] {
            assert_eq!(cpu_list(text), expected, "{text}");
        }
    }

    #[test]
    fn nodes_are_found_and_one_of_memory_only_has_no_processors() {
        let root = tempfile::tempdir().unwrap();
        for (name, list) in [("node0", "0-1\n"), ("node10", "\n"), ("node2", "2-3\n"), ("power", "0\n")] {
            let directory = root.path().join(NODES).join(name);
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(directory.join("cpulist"), list).unwrap();
        }
        let found = nodes(&Sysfs::new(root.path()));
        let expected = [(0, vec![0, 1]), (2, vec![2, 3]), (10, vec![])];
        assert_eq!(found.into_iter().map(|node| (node.number, node.cpus)).collect::<Vec<_>>(), expected);
        assert!(nodes(&Sysfs::new(&root.path().join("nothing"))).is_empty());
    }
}
