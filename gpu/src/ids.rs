//! Names of GPUs that mean the same in every process: UUID and PCI address. An index does not: it follows
//! CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER. Read leniently and compared as numbers; no I/O.

use std::{fmt, str::FromStr};

/// A text that is no name of a GPU.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{shown:?} is no {what}")]
pub struct IdError {
    what: &'static str,
    shown: String,
}

impl IdError {
    fn new(what: &'static str, text: &str) -> Self {
        Self { what, shown: text.chars().take(64).collect() }
    }
}

/// A GPU's UUID. Shown as NVML and `nvidia-smi` show that of a whole GPU, `GPU-` and five groups; read with and without the
/// prefix and with `MIG-`, in any case.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uuid([u8; 16]);

impl Uuid {
    /// From what the driver says.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes, as the driver orders them.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl FromStr for Uuid {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let refused = || IdError::new("UUID of a GPU", text);
        let plain = text.strip_prefix("GPU-").or_else(|| text.strip_prefix("MIG-")).unwrap_or(text);
        let groups: Vec<&str> = plain.split('-').collect();
        let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
        let digits = groups.concat();
        if lengths != [8, 4, 4, 4, 12] || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(refused());
        }
        let number = u128::from_str_radix(&digits, 16).map_err(|_| refused())?;
        Ok(Self(number.to_be_bytes()))
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:032x}", u128::from_be_bytes(self.0));
        let (a, b, c, d, e) = (&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]);
        write!(f, "GPU-{a}-{b}-{c}-{d}-{e}")
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A PCI address. NVML writes eight digits of domain, CUDA and sysfs four (fact 33); all are read, in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PciAddress {
    domain: u32,
    bus: u8,
    device: u8,
    function: u8,
}

impl FromStr for PciAddress {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::parse(text).ok_or_else(|| IdError::new("PCI address", text))
    }
}

impl PciAddress {
    fn parse(text: &str) -> Option<Self> {
        let (domain, rest) = text.split_once(':')?;
        let (bus, rest) = rest.split_once(':')?;
        let (device, function) = rest.split_once('.')?;
        let number = |part: &str, lengths: std::ops::RangeInclusive<usize>, most: u32| {
            // `from_str_radix` takes a leading `+`.
            let plain = lengths.contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_hexdigit());
            let number = plain.then(|| u32::from_str_radix(part, 16).ok())?;
            number.filter(|number| *number <= most)
        };
        let byte = |part, length, most| {
            number(part, length..=length, most).and_then(|number| u8::try_from(number).ok())
        };
        Some(Self {
            domain: number(domain, 4..=8, u32::MAX)?,
            bus: byte(bus, 2, 0xff)?,
            device: byte(device, 2, 0x1f)?,
            function: byte(function, 1, 7)?,
        })
    }
}

impl fmt::Display for PciAddress {
    /// As the kernel writes it, in lower case.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{}", self.domain, self.bus, self.device, self.function)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_the_same_however_it_is_written() {
        let uuid = Uuid::from_bytes([
            0x0a, 0x1b, 0x2c, 0x3d, 0x4e, 0x5f, 0x60, 0x71, 0x82, 0x93, 0xa4, 0xb5, 0xc6, 0xd7, 0xe8, 0xf9,
        ]);
        let text = "GPU-0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9";
        assert_eq!(uuid.to_string(), text);
        for text in [text, &text[4..], "GPU-0A1B2C3D-4E5F-6071-8293-A4B5C6D7E8F9"] {
            assert_eq!(text.parse(), Ok(uuid));
        }
        for text in
            ["", "GPU-", "0a1b2c3d4e5f60718293a4b5c6d7e8f9", "+a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9", "GPU-é"]
        {
            assert!(text.parse::<Uuid>().is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_of_nvml_and_of_cuda_are_the_same() {
        let address: PciAddress = "00000000:0F:1c.0".parse().unwrap();
        assert_eq!(address, "0000:0f:1C.0".parse().unwrap());
        assert_eq!(address.to_string(), "0000:0f:1c.0");
        assert_eq!("00010000:00:06.1".parse::<PciAddress>().unwrap().to_string(), "10000:00:06.1");
        for text in [
            "",
            "0000:00:06",
            "0000:00:20.0",
            "0000:00:06.8",
            "0000:0:06.0",
            "+000:00:06.0",
            "000:00:06.0",
            "é:é:é.é",
        ] {
            assert!(text.parse::<PciAddress>().is_err(), "{text}");
        }
    }
}
