//! Which python3 this host has, and whether the pinned wheels of the Python peer fit it. Starts `python3`, changes nothing.

use anyhow::{Context, Result, bail};

use crate::exec;

/// CPython's minor versions for which `tools/python-peer` pins wheels.
const MINORS: std::ops::RangeInclusive<u32> = 10..=14;

/// A python3 that the peer can run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPython {
    minor: u32,
}

impl HostPython {
    pub const WANTED: &str =
        "tests with Dynamo's Python module need CPython 3.10 to 3.14, with the usual ABI";

    /// The python3 that is first on PATH, or what is wrong with it.
    pub fn find() -> Result<Self> {
        const QUESTION: &str = "import platform, sys; \
            print(platform.python_implementation(), platform.python_version(), getattr(sys, 'abiflags', ''))";
        let answer = exec::output("python3", &["-c", QUESTION]).context("python3 is needed")?;
        Self::parse(&answer)
    }

    /// As wheels name it, such as `cp311`.
    pub fn tag(self) -> String {
        format!("cp3{}", self.minor)
    }

    fn parse(answer: &str) -> Result<Self> {
        let mut words = answer.split_whitespace();
        let (kind, version, flags) = (words.next(), words.next().unwrap_or(""), words.next());
        let mut numbers = version.split('.').map(|number| number.parse::<u32>().ok());
        let (major, minor) = (numbers.next().flatten(), numbers.next().flatten());
        // With any flag, such as the t of a build without the lock, other wheels are needed.
        match (kind, major, minor, flags) {
            (Some("CPython"), Some(3), Some(minor), None) if MINORS.contains(&minor) => Ok(Self { minor }),
            _ => bail!("this host's python3 is {answer}; {}", Self::WANTED),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_python_without_wheels_is_refused_by_its_name() {
        assert_eq!(HostPython::parse("CPython 3.11.7").unwrap().tag(), "cp311");
        assert_eq!(HostPython::parse("CPython 3.14.0").unwrap().tag(), "cp314");
        assert!(HostPython::WANTED.contains(&format!("3.{} to 3.{},", MINORS.start(), MINORS.end())));
        for other in
            ["CPython 3.9.18", "CPython 3.15.0rc1", "CPython 3.13.1 t", "PyPy 3.11.0", "CPython x", ""]
        {
            let error = HostPython::parse(other).unwrap_err().to_string();
            assert!(error.contains(other) && error.contains("CPython 3.10 to 3.14"), "{error}");
        }
    }
}
