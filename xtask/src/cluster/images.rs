//! The images that nodes get: made here, imported into each node's containerd, for there is no registry.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};

use super::node;
use super::record::{Place, Record};
use super::space::inside;
use crate::image::{self, Name};
use crate::progress::Step;
use crate::{exec, paths};

/// The image of every pod's first container.
pub const PAUSE: &str = "docker.io/nixl-transfer/pause:dev";

const IMPORTED_WITHIN: Duration = Duration::from_secs(180);

pub fn bring(place: &Place, record: &Record, names: &[Name], programs: &Path) -> Result<()> {
    let directory = place.path().join("images");
    fs::create_dir_all(&directory)?;
    for name in names {
        let mut step = Step::start(format!("image {}: its files in one layer", name.text()));
        let (archive, size) = image::archive(*name, &directory, programs)?;
        step.tick("importing it on every node");
        let nodes = node::names(record.nodes);
        let results: Vec<Result<()>> = thread::scope(|scope| {
            let running: Vec<_> =
                nodes.iter().map(|node| scope.spawn(|| import(place, record, node, &archive))).collect();
            let panicked = || Err(anyhow!("an import panicked"));
            running.into_iter().map(|thread| thread.join().unwrap_or_else(|_| panicked())).collect()
        });
        results.into_iter().collect::<Result<()>>()?;
        fs::remove_file(&archive)?;
        step.done(&format!("{size}, on {} nodes", nodes.len()));
    }
    Ok(())
}

/// Gives an image that every node has another tag there.
pub fn tag(record: &Record, name: Name, tag: &str) -> Result<()> {
    for node in node::names(record.nodes) {
        let mut ctr = inside(record.init(&node)?, &paths::tools().join("bin/ctr").display().to_string());
        ctr.args(["--namespace", "k8s.io", "images", "tag", "--force"])
            .arg(name.reference())
            .arg(name.tagged(tag));
        exec::watched_within(&mut ctr, IMPORTED_WITHIN, |_| {})?;
    }
    Ok(())
}

fn import(place: &Place, record: &Record, node: &str, archive: &Path) -> Result<()> {
    let mut ctr = inside(record.init(node)?, &paths::tools().join("bin/ctr").display().to_string());
    ctr.args(["--namespace", "k8s.io", "images", "import", "--snapshotter"]);
    ctr.arg(node::snapshotter(&place.space(node))).arg(archive);
    exec::watched_within(&mut ctr, IMPORTED_WITHIN, |_| {})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containerd_is_told_the_name_that_pause_gets() {
        assert_eq!(PAUSE, Name::Pause.reference());
    }
}
