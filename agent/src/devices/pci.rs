//! Places of PCI functions: the address, and the chain of bridges from the host bridge down, as the link below
//! `bus/pci/devices` has it. The names `pciBusID` and `pcieRoot` are those of `resource.kubernetes.io`.

use std::{
    fmt,
    path::{Component, Path, PathBuf},
};

use super::sysfs::Sysfs;

const DEVICES: &str = "bus/pci/devices";

/// The address of a PCI function. Sorted as machines number them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    domain: u32,
    bus: u8,
    device: u8,
    function: u8,
}

impl Address {
    /// Takes `0000:0f:00.0`, and NVML's `00000000:0F:00.0`.
    pub fn parse(text: &str) -> Option<Self> {
        let (domain, rest) = text.split_once(':')?;
        let (bus, rest) = rest.split_once(':')?;
        let (device, function) = rest.split_once('.')?;
        let lengths =
            (4..=8).contains(&domain.len()) && (bus.len(), device.len(), function.len()) == (2, 2, 1);
        let plain = [domain, bus, device, function]
            .iter()
            .all(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()));
        if !lengths || !plain {
            return None;
        }
        let byte = |part: &str, most: u8| u8::from_str_radix(part, 16).ok().filter(|number| *number <= most);
        Some(Self {
            domain: u32::from_str_radix(domain, 16).ok()?,
            bus: byte(bus, 0xff)?,
            device: byte(device, 0x1f)?,
            function: byte(function, 7)?,
        })
    }
}

impl fmt::Display for Address {
    /// As the kernel writes it: four digits of domain, or as many as it needs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{}", self.domain, self.bus, self.device, self.function)
    }
}

/// Where a PCI function is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its address.
    pub address: Address,
    /// The host bridge, `pci0000:07`.
    pub root: Option<String>,
    /// Bridges from the root port down, without the function itself.
    pub bridges: Vec<Address>,
    /// NUMA node, if the machine tells.
    pub numa: Option<u32>,
}

impl Place {
    /// The place of a function; `None` if there is none of this address.
    pub(super) fn read(sysfs: &Sysfs<'_>, address: Address) -> Option<Self> {
        let link = Path::new(DEVICES).join(address.to_string());
        let target = sysfs.link(&link)?;
        let mut place = Self::of(address, &target)?;
        // -1 means that the firmware does not tell.
        place.numa = sysfs.number(&target.join("numa_node"));
        Some(place)
    }

    /// The place that a path below `devices` tells, without the NUMA node.
    fn of(address: Address, path: &Path) -> Option<Self> {
        let mut place = Self { address, root: None, bridges: Vec::new(), numa: None };
        for name in names(path) {
            // Beside PCI there can be other buses above (ACPI, Hyper-V), and a second host bridge below the first (VMD).
            match Address::parse(name) {
                Some(bridge) if place.root.is_some() => place.bridges.push(bridge),
                _ if place.root.is_none() && is_root(name) => place.root = Some(name.to_owned()),
                _ => {}
            }
        }
        (place.bridges.pop() == Some(address)).then_some(place)
    }
}

/// The function that carries a device: the last in its path, for virtio and others put a device of their own in between.
pub(super) fn carrier(device: &Path) -> Option<Address> {
    names(device).filter_map(Address::parse).last()
}

fn names(path: &Path) -> impl Iterator<Item = &str> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => name.to_str(),
        _ => None,
    })
}

/// `pci`, a domain, a bus.
fn is_root(name: &str) -> bool {
    let digits = |text: &str, least, most| {
        (least..=most).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    name.strip_prefix("pci")
        .and_then(|rest| rest.split_once(':'))
        .is_some_and(|(domain, bus)| digits(domain, 4, 8) && digits(bus, 2, 2))
}

/// What kind of function it is.
pub(super) struct Function {
    pub(super) address: Address,
    pub(super) vendor: u32,
    pub(super) device: u32,
    pub(super) class: u32,
}

/// All functions that tell their kind, sorted by address.
pub(super) fn functions(sysfs: &Sysfs<'_>) -> Vec<Function> {
    let kind = |name: String| {
        let target: PathBuf = sysfs.link(&Path::new(DEVICES).join(&name))?;
        let number = |file| sysfs.hex(&target.join(file));
        Some(Function {
            address: Address::parse(&name)?,
            vendor: number("vendor")?,
            device: number("device")?,
            class: number("class")?,
        })
    };
    let mut functions: Vec<Function> = sysfs.names(DEVICES.as_ref()).into_iter().filter_map(kind).collect();
    functions.sort_by_key(|function| function.address);
    functions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, expected) in [
            ("0000:0f:00.0", Some("0000:0f:00.0")),
            ("00000000:0F:00.0", Some("0000:0f:00.0")),
            ("00000009:06:1f.7", Some("0009:06:1f.7")),
            ("10000:e0:06.0", Some("10000:e0:06.0")),
            ("0000:0f:20.0", None),
            ("0000:0f:00.8", None),
            ("0000:0f:00", None),
            ("0f:00.0", None),
            ("000:0f:00.0", None),
            ("000000000:0f:00.0", None),
            ("0000:+f:00.0", None),
            ("0000:0f:00.0 ", None),
            ("pci0000:07", None),
            ("", None),
        ] {
            assert_eq!(
                Address::parse(text).map(|address| address.to_string()).as_deref(),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn places_from_paths() {
        for (path, expected) in [
            ("devices/pci0000:00/0000:00:06.0", Some(("pci0000:00", vec![]))),
            (
                "devices/pci0000:07/0000:07:01.0/0000:08:00.0/0000:00:06.0",
                Some(("pci0000:07", vec!["0000:07:01.0", "0000:08:00.0"])),
            ),
            (
                "devices/LNXSYSTM:00/VMBUS:00/47505500-0001/pci0001:00/0000:00:06.0",
                Some(("pci0001:00", vec![])),
            ),
            (
                "devices/pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:1d.0/0000:00:06.0",
                Some(("pci0000:00", vec!["0000:00:0e.0", "10000:e0:1d.0"])),
            ),
            ("devices/pci0000:00/0000:00:07.0", None),
            ("devices/platform/0000:00:06.0", None),
            ("devices", None),
        ] {
            let place = Place::of(Address::parse("0000:00:06.0").unwrap(), path.as_ref());
            let found = place.map(|place| {
                (place.root.unwrap(), place.bridges.iter().map(Address::to_string).collect::<Vec<_>>())
            });
            let expected = expected.map(|(root, bridges)| {
                (root.to_owned(), bridges.into_iter().map(str::to_owned).collect::<Vec<_>>())
            });
            assert_eq!(found, expected, "{path}");
        }
    }

    #[test]
    fn a_device_is_carried_by_the_last_function_above_it() {
        let carrier = |path: &str| carrier(path.as_ref()).map(|address| address.to_string());
        assert_eq!(carrier("devices/pci0000:00/0000:00:03.0/virtio2").as_deref(), Some("0000:00:03.0"));
        assert_eq!(carrier("devices/pci0000:00/0000:00:01.1/0000:01:00.0").as_deref(), Some("0000:01:00.0"));
        assert_eq!(carrier("devices/virtual/net/lo"), None);
    }
}
