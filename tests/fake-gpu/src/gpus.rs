//! The GPUs that there are not: the list beside the library. Reads that file, and nothing else.

use std::{
    ffi::{CStr, OsStr, c_char, c_void},
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// What both libraries call each of them.
pub const MODEL: &str = "Fake GPU";
/// The file with the list.
const FILE: &str = "gpus";

/// A GPU.
#[derive(Debug, PartialEq, Eq)]
pub struct Gpu {
    /// PCI address, as the list has it.
    pub address: String,
    /// The parts of the address.
    pub pci: Pci,
    /// Memory in bytes.
    pub bytes: usize,
}

/// The parts of a PCI address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pci {
    pub domain: u32,
    pub bus: u32,
    pub device: u32,
    pub function: u32,
}

impl Gpu {
    /// The same in every process: a hash (FNV-1a) of the address.
    pub fn uuid(&self) -> [u8; 16] {
        let mut hash = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128;
        for byte in self.address.to_ascii_lowercase().bytes() {
            hash = (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
        hash.to_be_bytes()
    }
}

/// All of them in NVML's order; `None` when the file is missing or makes no sense. Once found, the list stays as it is.
pub fn list() -> Option<&'static [Gpu]> {
    static LIST: OnceLock<Vec<Gpu>> = OnceLock::new();
    if let Some(list) = LIST.get() {
        return Some(list);
    }
    let found = found()?;
    Some(LIST.get_or_init(|| found))
}

/// Whether the test wants this fault now: a file of its name lies beside the list.
pub fn has_fault(name: &str) -> bool {
    !cfg!(test) && directory().is_some_and(|directory| directory.join(name).exists())
}

#[cfg(not(test))]
fn found() -> Option<Vec<Gpu>> {
    read(&directory()?)
}

/// The unit tests' own.
#[cfg(test)]
fn found() -> Option<Vec<Gpu>> {
    parse("0000:0f:00.0 16777216\n0000:1C:00.0 8388608\n").ok()
}

/// Where the library was opened, links and all.
fn directory() -> Option<PathBuf> {
    let own = directory as *const c_void;
    let mut info = libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: std::ptr::null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: std::ptr::null_mut(),
    };
    // SAFETY: takes any address, and writes `info`.
    if unsafe { libc::dladdr(own, &raw mut info) } == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: the linker's own text, which stays while the library is loaded.
    let path = unsafe { CStr::from_ptr(info.dli_fname) };
    Some(Path::new(OsStr::from_bytes(path.to_bytes())).parent()?.to_owned())
}

#[cfg_attr(test, allow(dead_code))]
fn read(directory: &Path) -> Option<Vec<Gpu>> {
    let path = directory.join(FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => return complain(&path, &error.to_string()),
    };
    match parse(&text) {
        Ok(gpus) => Some(gpus),
        Err(line) => complain(&path, &format!("no address and bytes: {line:?}")),
    }
}

/// To whoever has written the test. That a process has no standard error is no reason to stop.
#[cfg_attr(test, allow(dead_code))]
fn complain<T>(path: &Path, why: &str) -> Option<T> {
    let _ = io::Write::write_fmt(&mut io::stderr(), format_args!("fake GPU: {}: {why}\n", path.display()));
    None
}

/// # Errors
/// The line that is none.
fn parse(text: &str) -> Result<Vec<Gpu>, &str> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| gpu(line).ok_or(line)).collect()
}

fn gpu(line: &str) -> Option<Gpu> {
    let (address, bytes) = line.split_once(' ')?;
    Some(Gpu { address: address.to_owned(), pci: pci(address)?, bytes: bytes.trim().parse().ok()? })
}

fn pci(address: &str) -> Option<Pci> {
    let (domain, rest) = address.split_once(':')?;
    let (bus, rest) = rest.split_once(':')?;
    let (device, function) = rest.split_once('.')?;
    let number = |part: &str, length: usize| {
        (part.len() == length).then(|| u32::from_str_radix(part, 16).ok()).flatten()
    };
    Some(Pci {
        domain: number(domain, 4)?,
        bus: number(bus, 2)?,
        device: number(device, 2)?,
        function: number(function, 1)?,
    })
}

/// Writes a text with its NUL to a buffer of C; whether it has fitted.
///
/// # Safety
/// `length` bytes from `to` on can be written.
pub unsafe fn put_text(to: *mut c_char, length: usize, text: &str) -> bool {
    if text.len() >= length {
        return false;
    }
    // SAFETY: the text and one byte more are at most `length`.
    unsafe {
        to.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), text.len());
        to.add(text.len()).write(0);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_and_one_with_a_bad_line_is_none() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read(directory.path()), None);
        let write = |text: &str| fs::write(directory.path().join(FILE), text).unwrap();
        write("0000:0f:00.0 268435456\n\n  0000:1c:00.1 4194304 \n");
        let gpus = read(directory.path()).unwrap();
        assert_eq!(gpus.len(), 2);
        assert_eq!((gpus[1].address.as_str(), gpus[1].bytes), ("0000:1c:00.1", 4 << 20));
        assert_eq!(gpus[1].pci, Pci { domain: 0, bus: 0x1c, device: 0, function: 1 });
        assert_ne!(gpus[0].uuid(), gpus[1].uuid());
        for bad in ["0000:0f:00.0", "0000:0f:00.0 many", "0f:00.0 1", "00000000:0f:00.0 1"] {
            write(bad);
            assert_eq!(read(directory.path()), None, "{bad}");
        }
    }

    #[test]
    fn the_directory_is_that_of_what_runs() {
        let own = std::env::current_exe().unwrap();
        assert_eq!(directory().unwrap().canonicalize().unwrap(), own.parent().unwrap());
    }
}
