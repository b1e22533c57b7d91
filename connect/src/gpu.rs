//! Whether NIXL sees an NVIDIA GPU on this node. Containers see the host's devices in sysfs, so this is about the node, not
//! the pod.

use std::fs;
use std::path::Path;

const NVIDIA: u32 = 0x10de;
/// VGA and 3D controllers: PCI's class and subclass.
const DISPLAY: [u32; 2] = [0x0300, 0x0302];

/// Whether sysfs shows such a GPU, by the rule that NIXL has.
pub(super) fn is_shown(sysfs: &Path) -> bool {
    let Ok(devices) = fs::read_dir(sysfs.join("bus/pci/devices")) else { return false };
    devices.flatten().any(|device| {
        let number = |name: &str| {
            let text = fs::read_to_string(device.path().join(name)).ok()?;
            u32::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()
        };
        number("vendor") == Some(NVIDIA)
            && number("class").is_some_and(|class| DISPLAY.contains(&(class >> 8)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_shown_with(vendor: &str, class: &str) -> bool {
        let sysfs = tempfile::Builder::new().prefix("nixl-transfer-sysfs-").tempdir().unwrap();
        let device = sysfs.path().join("bus/pci/devices/0000:00:06.0");
        fs::create_dir_all(&device).unwrap();
        fs::write(device.join("vendor"), vendor).unwrap();
        fs::write(device.join("class"), class).unwrap();
        is_shown(sysfs.path())
    }

    #[test]
    fn a_gpu_is_a_display_controller_of_nvidia() {
        for (vendor, class, expected) in [
            ("0x10de\n", "0x030200\n", true),  // H200
            ("0x10de\n", "0x030000\n", true),  // with outputs
            ("0x10de\n", "0x040300\n", false), // its sound
            ("0x1002\n", "0x030000\n", false), // another maker's
            ("10de\n", "0x030200\n", false),
            ("", "", false),
        ] {
            assert_eq!(is_shown_with(vendor, class), expected, "{vendor} {class}");
        }
        assert!(!is_shown(Path::new("/nonexistent")));
    }
}
