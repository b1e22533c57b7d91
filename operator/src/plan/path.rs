//! Paths in volumes as planning compares them: by components, without `.` and empty ones. Pure; what a path really is on
//! a disk only the agent knows.

/// How two directories or files of one volume lie to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// The same.
    Same,
    /// One is inside the other.
    Nested,
    /// Neither.
    Apart,
}

fn components(path: &str) -> Vec<&str> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".").collect()
}

/// Compares two paths of one volume.
pub fn overlap(a: &str, b: &str) -> Overlap {
    let (a, b) = (components(a), components(b));
    let shorter = a.len().min(b.len());
    match a[..shorter] == b[..shorter] {
        true if a.len() == b.len() => Overlap::Same,
        true => Overlap::Nested,
        false => Overlap::Apart,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_compared_by_components() {
        let cases = [
            ("a/b", "a/b", Overlap::Same),
            ("a/b/", "./a//b", Overlap::Same),
            ("", ".", Overlap::Same),
            ("", "a", Overlap::Nested),
            ("a", "a/b", Overlap::Nested),
            ("a/b", "a", Overlap::Nested),
            ("a", "ab", Overlap::Apart),
            ("a/b", "a/c", Overlap::Apart),
        ];
        for (a, b, expected) in cases {
            assert_eq!(overlap(a, b), expected, "{a:?} {b:?}");
        }
    }
}
