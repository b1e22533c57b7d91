//! A control group of the cluster's own, with one for each node's pods: in every hierarchy of version 1, or in the one of
//! version 2.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

const ROOT: &str = "/sys/fs/cgroup";

/// Makes `<tag>/<node>` for each node.
pub fn create(tag: &str, nodes: &[String]) -> Result<()> {
    for hierarchy in hierarchies(Path::new(ROOT))? {
        let cluster = hierarchy.join(tag);
        make(&hierarchy, &cluster)?;
        for node in nodes {
            make(&cluster, &cluster.join(node))?;
        }
    }
    Ok(())
}

/// Removes all of it. The kernel takes a moment to see that a group is empty.
pub fn remove(tag: &str, deadline: Instant) -> Result<()> {
    for hierarchy in hierarchies(Path::new(ROOT))? {
        let cluster = hierarchy.join(tag);
        while let Err(error) = remove_tree(&cluster) {
            if Instant::now() >= deadline {
                let what = format!("cannot remove {}: processes may still be in it", cluster.display());
                return Err(error).context(what);
            }
            // Polled: an empty group of version 1 tells nobody.
            thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(())
}

/// Links, as `cpu -> cpu,cpuacct`, name a hierarchy twice.
fn hierarchies(root: &Path) -> Result<Vec<PathBuf>> {
    if root.join("cgroup.controllers").exists() {
        return Ok(vec![root.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(root).with_context(|| format!("cannot read {}", root.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() && entry.path().join("cgroup.procs").exists() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn make(parent: &Path, group: &Path) -> Result<()> {
    // Version 2 gives controllers to children one level at a time.
    if let Ok(controllers) = fs::read_to_string(parent.join("cgroup.controllers")) {
        for controller in controllers.split_whitespace() {
            // Those that cannot be given (`rdma` in a container, say) are missed by the kubelet, if by anybody.
            let _ = fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"));
        }
    }
    match fs::create_dir(group) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("cannot make the control group {}", group.display()));
        }
        _ => {}
    }
    // In version 1 a new set of processors is empty, and no process may enter it.
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let is_first_version = !parent.join("cgroup.controllers").exists();
        if let Ok(value) = fs::read_to_string(parent.join(file)).as_deref().map(str::trim)
            && is_first_version
        {
            fs::write(group.join(file), value).with_context(|| format!("{file} of {}", group.display()))?;
        }
    }
    Ok(())
}

/// Children first; the files in it are the kernel's.
fn remove_tree(group: &Path) -> std::io::Result<()> {
    let entries = match fs::read_dir(group) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(group) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_made_in_each_hierarchy_once_and_removed_with_their_children() {
        let root = std::env::temp_dir().join(format!("nixl-transfer-cgroups-{}", std::process::id()));
        for hierarchy in ["cpuset", "cpu,cpuacct"] {
            fs::create_dir_all(root.join(hierarchy)).unwrap();
            fs::write(root.join(hierarchy).join("cgroup.procs"), "").unwrap();
        }
        std::os::unix::fs::symlink("cpu,cpuacct", root.join("cpu")).unwrap();
        fs::write(root.join("cpuset/cpuset.cpus"), "0-1\n").unwrap();
        assert_eq!(hierarchies(&root).unwrap().len(), 2);
        let group = root.join("cpuset/cluster");
        make(&root.join("cpuset"), &group).unwrap();
        make(&root.join("cpuset"), &group).unwrap();
        assert_eq!(fs::read_to_string(group.join("cpuset.cpus")).unwrap(), "0-1");
        fs::remove_file(group.join("cpuset.cpus")).unwrap(); // a real group's files go by themselves
        fs::create_dir_all(group.join("node-a/kubepods")).unwrap();
        remove_tree(&group).unwrap();
        assert!(!group.exists() && remove_tree(&group).is_ok());
        fs::remove_dir_all(root).unwrap();
    }
}
