//! The volumes of this node as they are now. Blocks: a file system can hang.

use std::sync::Arc;

use nixl_transfer_crds::node::VolumeStatus;

use crate::volume::{Space, Standing, Volume};

/// What may be published, and what is wrong with the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Volumes {
    /// Volumes that jobs may use.
    pub published: Vec<VolumeStatus>,
    /// What an administrator should know.
    pub troubles: Vec<String>,
}

/// Looks at all of them. One whose path leads elsewhere is not published: what a job wrote there nobody would find.
pub fn look(volumes: &[Arc<Volume>]) -> Volumes {
    let mut found = Volumes::default();
    for volume in volumes {
        let (name, path) = (&volume.name, volume.path().display());
        let unpublished = match volume.standing() {
            Standing::Elsewhere => format!(
                "{path} leads to another directory or mount than at the agent's start; restart the agent to use what is there now"
            ),
            Standing::Nowhere(error) => format!("{path}: {error}; put it back, or restart the agent"),
            Standing::Same => match volume.space() {
                Ok(space) => {
                    let status = status(volume, space);
                    if status.read_only && !volume.read_only {
                        found
                            .troubles
                            .push(format!("volume {name} is read-only, for so is its file system now"));
                    }
                    found.published.push(status);
                    continue;
                }
                Err(error) => format!("free space cannot be read: {error}"),
            },
        };
        found.troubles.push(format!("volume {name} is not published: {unpublished}"));
    }
    found
}

fn status(volume: &Volume, space: Space) -> VolumeStatus {
    VolumeStatus {
        name: volume.name.clone(),
        // Said before a job comes, instead of by an error in the middle of it.
        read_only: volume.read_only || space.mounted_read_only,
        capacity: size(space.capacity),
        free: size(space.free),
        allowed_namespaces: volume.allowed_namespaces.clone(),
    }
}

fn size(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::VolumeConfig;
    use std::{fs, path::PathBuf};

    fn open(path: PathBuf) -> Vec<Arc<Volume>> {
        let allowed_namespaces = vec!["*".to_owned()];
        let config = VolumeConfig { name: "data".into(), path, read_only: false, allowed_namespaces };
        vec![Arc::new(Volume::open(&config).unwrap())]
    }

    #[test]
    fn a_volume_is_published_while_its_path_leads_to_it() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("data")).unwrap();
        let volumes = open(at("data"));
        let found = look(&volumes);
        assert!(found.published.len() == 1 && found.troubles.is_empty(), "{found:?}");
        assert!(found.published[0].capacity > 0 && !found.published[0].read_only);

        fs::rename(at("data"), at("old")).unwrap();
        let found = look(&volumes);
        assert!(found.published.is_empty() && found.troubles[0].contains("put it back"), "{found:?}");
        fs::create_dir(at("data")).unwrap();
        let found = look(&volumes);
        assert!(found.published.is_empty() && found.troubles[0].contains("restart the agent"), "{found:?}");
        fs::remove_dir(at("data")).unwrap();
        fs::rename(at("old"), at("data")).unwrap();
        assert_eq!(look(&volumes).published.len(), 1, "back again");
    }

    #[test]
    fn a_read_only_file_system_makes_the_volume_read_only() {
        let directory = tempfile::tempdir().unwrap();
        let volume = open(directory.path().into()).remove(0);
        for mounted_read_only in [true, false] {
            let space = Space { capacity: 2, free: 1, mounted_read_only };
            assert_eq!(status(&volume, space).read_only, mounted_read_only);
        }
    }
}
