//! Whether a volume's path still leads to the directory that was opened at the start. The descriptor stays on that one, and
//! so do transfers: after another file system is mounted over the path they would write where nobody looks. Reads only.

use std::{io, path::Path};

use rustix::fs::{Stat, fstat, stat};

use super::Volume;

/// Where a volume's path leads now.
#[derive(Debug)]
pub enum Standing {
    /// To the directory that is open.
    Same,
    /// To another directory: something was mounted there or unmounted, or it was replaced.
    Elsewhere,
    /// Nowhere.
    Nowhere(io::Error),
}

impl Volume {
    /// Looks, now. The mount's own id is not compared: another mount of the same directory is the same place.
    pub fn standing(&self) -> Standing {
        let same = |a: &Stat, b: &Stat| (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino);
        match fstat(&self.root).and_then(|opened| Ok(same(&opened, &stat(&self.path)?))) {
            Ok(true) => Standing::Same,
            Ok(false) => Standing::Elsewhere,
            Err(error) => Standing::Nowhere(error.into()),
        }
    }

    /// Its path as the configuration has it.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::VolumeConfig;
    use std::{fs, os::unix::fs::symlink};

    #[test]
    fn a_path_that_leads_elsewhere_or_nowhere_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("one")).unwrap();
        fs::create_dir(at("two")).unwrap();
        symlink("one", at("current")).unwrap();
        let volume = Volume::open(&VolumeConfig {
            name: "data".into(),
            path: at("current"),
            read_only: false,
            allowed_namespaces: vec!["*".into()],
        })
        .unwrap();
        assert!(matches!(volume.standing(), Standing::Same));
        fs::write(at("one/file"), "more").unwrap();
        assert!(matches!(volume.standing(), Standing::Same), "content does not count");

        fs::remove_file(at("current")).unwrap();
        assert!(matches!(volume.standing(), Standing::Nowhere(_)));
        symlink("two", at("current")).unwrap();
        assert!(matches!(volume.standing(), Standing::Elsewhere));
        fs::rename(at("two"), at("gone")).unwrap();
        fs::rename(at("one"), at("two")).unwrap();
        assert!(matches!(volume.standing(), Standing::Same), "the same directory by another name");
    }
}
