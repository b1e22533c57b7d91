//! The globs of a source: which files of a tree are moved. Pure.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use nixl_transfer_crds::{Reason, endpoint::SourceVolume};

use crate::protocol::Failure;

/// `include` and `exclude` of a source, compiled.
#[derive(Debug)]
pub struct Filter {
    include: Option<Globs>,
    exclude: Globs,
}

#[derive(Debug)]
struct Globs {
    /// Without a slash: against the last component.
    names: GlobSet,
    /// With a slash: against the whole path.
    paths: GlobSet,
}

impl Filter {
    /// Compiles the globs.
    ///
    /// # Errors
    /// `InvalidSpec` for a glob that cannot be read, or that could never match.
    pub fn new(source: &SourceVolume) -> Result<Self, Failure> {
        let include = match source.include.as_slice() {
            [] => None,
            globs => Some(Globs::new("include", globs)?),
        };
        Ok(Self { include, exclude: Globs::new("exclude", &source.exclude)? })
    }

    /// Whether a file or link is moved.
    pub fn takes(&self, path: &[u8]) -> bool {
        !self.exclude.matches(path) && self.include.as_ref().is_none_or(|include| include.matches(path))
    }

    /// Whether a directory is looked into. What `include` names may lie anywhere, so only `exclude` decides.
    pub fn enters(&self, path: &[u8]) -> bool {
        !self.exclude.matches(path)
    }

    /// Whether it leaves nothing out.
    pub fn is_empty(&self) -> bool {
        self.include.is_none() && self.exclude.is_empty()
    }

    /// Whether a directory that holds nothing to move is moved all the same.
    pub fn keeps_empty_directories(&self) -> bool {
        self.include.is_none()
    }
}

impl Globs {
    fn new(field: &str, globs: &[String]) -> Result<Self, Failure> {
        let (mut names, mut paths) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        for glob in globs {
            let invalid = |why: &str| {
                Failure::new(Reason::InvalidSpec, format!("spec.source.volume.{field}: glob {glob:?} {why}"))
            };
            if glob.starts_with('/') || glob.ends_with('/') {
                return Err(invalid(
                    "must not begin or end with a slash: paths are relative, and names have none",
                ));
            }
            let compiled = GlobBuilder::new(glob)
                .literal_separator(true)
                .backslash_escape(true)
                .build()
                .map_err(|error| invalid(&format!("cannot be read: {}", error.kind())))?;
            if glob.contains('/') {
                paths.add(compiled)
            } else {
                names.add(compiled)
            };
        }
        let build = |builder: GlobSetBuilder| {
            builder.build().map_err(|error| {
                Failure::new(Reason::InvalidSpec, format!("spec.source.volume.{field}: {error}"))
            })
        };
        Ok(Self { names: build(names)?, paths: build(paths)? })
    }

    fn is_empty(&self) -> bool {
        self.names.is_empty() && self.paths.is_empty()
    }

    fn matches(&self, path: &[u8]) -> bool {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        let as_path = |bytes: &[u8]| Path::new(OsStr::from_bytes(bytes)).to_owned();
        self.names.is_match(as_path(name)) || self.paths.is_match(as_path(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nixl_transfer_crds::VolumeRef;
    use proptest::prelude::*;

    fn filter(include: &[&str], exclude: &[&str]) -> Result<Filter, Failure> {
        let owned = |globs: &[&str]| globs.iter().map(|glob| (*glob).to_owned()).collect();
        Filter::new(&SourceVolume {
            at: VolumeRef { name: "v".into(), path: String::new() },
            include: owned(include),
            exclude: owned(exclude),
        })
    }

    #[test]
    fn table() {
        for (include, exclude, path, expected) in [
            (&[][..], &[][..], "a/b", true),
            (&["*.safetensors"], &[], "m.safetensors", true),
            (&["*.safetensors"], &[], "deep/er/m.safetensors", true),
            (&["*.safetensors"], &[], "m.bin", false),
            (&["a/*.txt"], &[], "a/x.txt", true),
            (&["a/*.txt"], &[], "a/b/x.txt", false),
            (&["a/**/*.txt"], &[], "a/b/x.txt", true),
            (&["a/**"], &[], "a/b/c", true),
            (&["**/c"], &[], "c", true),
            (&["a/*.txt"], &[], "z/a/x.txt", false),
            (&["x", "y"], &[], "d/y", true),
            (&["*"], &["*.tmp"], "a.tmp", false),
            (&["a.tmp"], &["a.tmp"], "a.tmp", false),
            (&[], &["cache/*"], "cache/x", false),
            (&[], &["cache/*"], "other/cache/x", true),
            (&["[ab]?"], &[], "b1", true),
            (&["{a,b}.c"], &[], "b.c", true),
        ] {
            let filter = filter(include, exclude).unwrap_or_else(|failure| panic!("{failure}"));
            assert_eq!(filter.takes(path.as_bytes()), expected, "{include:?} {exclude:?} {path}");
        }
        let pruned = filter(&["*.txt"], &["target", "a/b"]).expect("valid");
        for (path, expected) in
            [("target", false), ("x/target", false), ("a/b", false), ("x/a/b", true), ("a", true)]
        {
            assert_eq!(pruned.enters(path.as_bytes()), expected, "{path}");
        }
        assert!(filter(&[], &[]).expect("valid").takes(b"\xff\xfe"), "any bytes are a name");
        assert!(filter(&["*.\u{fc}"], &[]).expect("valid").takes("d/x.\u{fc}".as_bytes()));
    }

    #[test]
    fn what_could_never_match_is_refused() {
        for glob in ["/a", "a/", "[", "{a"] {
            let failure = filter(&[glob], &[]).expect_err(glob);
            assert!(failure.reason == Reason::InvalidSpec && failure.message.contains(glob), "{failure}");
        }
    }

    proptest! {
        /// A name that holds no glob characters, used as a glob, matches itself at any depth and nothing longer.
        #[test]
        fn a_plain_name_matches_itself(name in "[a-z0-9._ -]{1,12}", above in "([a-z]{1,3}/){0,3}") {
            let filter = filter(&[&name], &[]).expect("plain names are globs");
            let exact = format!("{above}{name}");
            prop_assert!(filter.takes(exact.as_bytes()));
            let longer = format!("{above}{name}x");
            prop_assert!(!filter.takes(longer.as_bytes()));
        }
    }
}
