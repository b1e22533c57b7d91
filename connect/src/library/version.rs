//! The version of a NIXL library. The C API tells none: a wheel's own metadata beside the library is the only source,
//! and without it all that is known is "1.5 or newer". Reads one file.

use std::fmt;
use std::io::Read;
use std::path::Path;

use super::OLDEST_VERSION;

/// What is known about a loaded library's version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LibraryVersion {
    /// From the wheel's `METADATA`, such as `1.5.1`.
    Wheel(String),
    /// The library lies in no wheel; it has the functions that came with [`OLDEST_VERSION`].
    AtLeast(&'static str),
}

/// The headers of a wheel's METADATA lie at its start.
const HEADER_BYTES: u64 = 64 * 1024;

impl LibraryVersion {
    /// A wheel keeps its libraries in `.<package>.mesonpy.libs` and its metadata in `<package>-<version>.dist-info`,
    /// side by side.
    pub(super) fn beside(library: &Path) -> Self {
        Self::from_wheel(library).map_or(Self::AtLeast(OLDEST_VERSION), Self::Wheel)
    }

    /// The exact version, when it is known.
    pub fn known(&self) -> Option<&str> {
        match self {
            Self::Wheel(version) => Some(version),
            Self::AtLeast(_) => None,
        }
    }

    fn from_wheel(library: &Path) -> Option<String> {
        let directory = library.parent()?;
        let package = directory.file_name()?.to_str()?.strip_prefix('.')?.strip_suffix(".mesonpy.libs")?;
        let prefix = format!("{package}-");
        let entries = std::fs::read_dir(directory.parent()?).ok()?;
        let metadata = entries.filter_map(Result::ok).find_map(|entry| {
            let name = entry.file_name();
            let name = name.to_str()?;
            (name.starts_with(&prefix) && name.ends_with(".dist-info")).then(|| entry.path().join("METADATA"))
        })?;
        let mut headers = Vec::new();
        std::fs::File::open(metadata).ok()?.take(HEADER_BYTES).read_to_end(&mut headers).ok()?;
        version_in(&String::from_utf8_lossy(&headers))
    }
}

/// The `Version` header; headers end at the first empty line.
fn version_in(headers: &str) -> Option<String> {
    let version =
        headers.lines().take_while(|line| !line.is_empty()).find_map(|line| line.strip_prefix("Version:"))?;
    let version = version.trim();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'+' | b'-' | b'!');
    (!version.is_empty() && version.len() <= 64 && version.bytes().all(plain)).then(|| version.to_owned())
}

impl fmt::Display for LibraryVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wheel(version) => formatter.write_str(version),
            Self::AtLeast(version) => write!(formatter, ">={version}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_version_header_only() {
        assert_eq!(version_in("Name: nixl\nVersion: 1.5.1\n\nVersion: 9\n").as_deref(), Some("1.5.1"));
        assert_eq!(version_in("Name: nixl\n\nVersion: 9\n"), None);
        assert_eq!(version_in("Version: 1.5 <b>\n"), None);
        assert_eq!(version_in(""), None);
    }
}
