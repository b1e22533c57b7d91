//! The place of a run's partial files: the name of their directory in the reserved one. All attempts of one hop share it,
//! so that the next one finds what the last one left. Pure.

use nixl_transfer_crds::Reason;
use xxhash_rust::xxh3::xxh3_128;

use crate::protocol::Failure;

/// Bytes that a UID and a destination's name may have: the API's schema says the same.
const MAX_PART: usize = 64;

/// What a partial file belongs to: never to an attempt, since the next one goes on with it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RunPlace {
    /// UID of the TransferJob.
    pub job_uid: String,
    /// Its run.
    pub run: i64,
    /// Name of the destination in the job.
    pub destination: String,
    /// UID of the node that receives: several may publish one file system that they share.
    pub node_uid: String,
}

impl RunPlace {
    /// Name of the directory, `<job uid>.<run>.<destination>.<node uid>`: no part holds a dot, so it reads back in one way only, and
    /// no name of an earlier layout (UIDs of tasks; places without the node) is one.
    ///
    /// # Errors
    /// `InvalidSpec` when a part is no name. The API server lets no such task in.
    pub fn key(&self) -> Result<String, Failure> {
        if ![&self.job_uid, &self.destination, &self.node_uid].into_iter().all(|part| is_name(part))
            || self.run < 0
        {
            let message = "the task's job UID, run, destination or node UID cannot name a directory";
            return Err(Failure::new(Reason::InvalidSpec, message));
        }
        Ok(format!("{}.{}.{}.{}", self.job_uid, self.run, self.destination, self.node_uid))
    }

    /// The place that a directory's name says; `None` when we have not made it.
    pub fn parse(name: &str) -> Option<Self> {
        let mut parts = name.splitn(4, '.');
        let (job_uid, run, destination, node_uid) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let place = Self {
            job_uid: job_uid.into(),
            run: run.parse().ok()?,
            destination: destination.into(),
            node_uid: node_uid.into(),
        };
        // Numbers can be written in several ways; only ours counts.
        place.key().is_ok_and(|key| key == name).then_some(place)
    }
}

/// Name of the partial file of a manifest's entry. By its path: the next attempt's manifest may have other files before
/// it. Two paths with one hash, made on purpose, meet in the lock of the one file, or in the digest of its bytes.
pub(super) fn partial_name(path: &[u8]) -> String {
    format!("{:032x}", xxh3_128(path))
}

fn is_name(part: &str) -> bool {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    !part.is_empty() && part.len() <= MAX_PART && part.bytes().all(safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(job_uid: &str, run: i64, destination: &str, node_uid: &str) -> RunPlace {
        RunPlace { job_uid: job_uid.into(), run, destination: destination.into(), node_uid: node_uid.into() }
    }

    #[test]
    fn keys_read_back_and_nothing_else_does() {
        let longest = "x".repeat(MAX_PART);
        let cases = [
            place("0f6e5c1a-uid", 1, "decode", "n-1"),
            place("a-1", 2, "x", "n"),
            place("a", 1, "2-x", "n"),
            place("a", 1, "2-x", "m"),
            place(&longest, i64::MAX, &longest, &longest),
        ];
        for place in &cases {
            let key = place.key().unwrap();
            assert_eq!(RunPlace::parse(&key).as_ref(), Some(place), "{key}");
            assert!(key.len() <= 255, "{key}");
        }
        for odd in [
            "",
            ".",
            "..",
            "0f6e5c1a-uid",
            "u.1",
            "u.1.d",
            "u.1.d.",
            "u.1..n",
            ".1.d.n",
            "u.01.d.n",
            "u.+1.d.n",
            "u.-1.d.n",
            "u.1.d.n.",
            "u.1.d.n.e",
        ] {
            assert_eq!(RunPlace::parse(odd), None, "{odd}");
        }
    }

    #[test]
    fn what_could_lead_elsewhere_is_no_key() {
        let long = "x".repeat(MAX_PART + 1);
        for part in ["", "..", "a/b", "a\0", "a.b", " ", &long] {
            for place in [place(part, 1, "d", "n"), place("u", 1, part, "n"), place("u", 1, "d", part)] {
                assert_eq!(place.key().unwrap_err().reason, Reason::InvalidSpec, "{part:?}");
            }
        }
        assert!(place("u", -1, "d", "n").key().is_err());
    }

    #[test]
    fn partial_names_are_those_of_paths_alone() {
        assert_eq!(partial_name(b""), "99aa06d3014798d86001c324468d497f");
        assert_ne!(partial_name(b"a/b"), partial_name(b"a/c"));
    }
}
