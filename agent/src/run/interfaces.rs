//! The network interfaces of this machine, from the kernel's files. Reads; the root is given, for tests.

use std::{fs, io, path::Path};

/// Interfaces that are up and are not the loopback, sorted by name.
pub fn up(root: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root.join("sys/class/net"))? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if is_up(&entry.path()) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Bits of `flags` as the kernel has them.
const IFF_UP: u32 = 0x1;
const IFF_LOOPBACK: u32 = 0x8;

fn is_up(interface: &Path) -> bool {
    // What is gone or unreadable meanwhile cannot be used.
    let read = |file: &str| fs::read_to_string(interface.join(file)).unwrap_or_default();
    let flags = u32::from_str_radix(read("flags").trim().trim_start_matches("0x"), 16).unwrap_or(0);
    flags & IFF_UP != 0 && flags & IFF_LOOPBACK == 0 && read("operstate").trim() != "down"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_what_is_down_is_left_out() {
        let root = tempfile::tempdir().unwrap();
        let interfaces = [
            ("lo", "0x9", "unknown"),
            ("eth1", "0x1003", "up"),
            ("eth0", "0x1003", "unknown"),
            ("eth2", "0x1002", "down"),
            ("eth3", "0x1003", "down"),
        ];
        for (name, flags, state) in interfaces {
            let directory = root.path().join("sys/class/net").join(name);
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("flags"), format!("{flags}\n")).unwrap();
            fs::write(directory.join("operstate"), format!("{state}\n")).unwrap();
        }
        assert_eq!(up(root.path()).unwrap(), ["eth0", "eth1"]);
    }
}
