//! What agents write for each other into statuses that others may read: sealed to the receiver's key with the sender's (HPKE,
//! RFC 9180, mode Auth), and bound to the one task and the two agents that it is for. Pure but for random numbers.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use hpke::{
    Deserializable, Kem, OpModeR, OpModeS, Serializable, aead::ChaCha20Poly1305, kdf::HkdfSha256,
    kem::X25519HkdfSha256, single_shot_open, single_shot_seal,
};

/// Beginning of every sealed text.
pub const SEALED: &str = "sealed:";
/// Its version and our use of it; part of what it is bound to.
const PURPOSE: &str = "nixl-transfer.io metadata v1";
/// Bytes before the ciphertext: until when it counts, and the encapsulated key.
const EXPIRY: usize = 8;
const ENCAPSULATED: usize = 32;

type PublicKey = <X25519HkdfSha256 as Kem>::PublicKey;
type Encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey;

/// The keys of one start of an agent; they are never written down.
pub struct Keys {
    secret: <X25519HkdfSha256 as Kem>::PrivateKey,
    public: PublicKey,
}

/// What a sealed text is for. With another value of any of these it does not open.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    /// UID of the job.
    pub job: &'a str,
    /// Run and attempt of the task.
    pub run: i64,
    /// Attempt of the hop.
    pub attempt: i64,
    /// UID of the task, unique in the cluster and beyond.
    pub task: &'a str,
    /// Node and instance of who has sealed it.
    pub from: (&'a str, &'a str),
    /// Node and instance of whom it is for.
    pub to: (&'a str, &'a str),
}

/// A text that was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// What was sealed.
    pub text: String,
    /// Which sealing it was: the encapsulated key, made for it alone.
    pub once: [u8; ENCAPSULATED],
    /// Until when it counts, in seconds since 1970.
    pub expires: i64,
}

/// Why a text cannot be sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// A key that is none.
    #[error("the other agent's key in `status.publicKey` of its TransferNode is none")]
    Key,
    /// Not what a sealed text looks like.
    #[error("it is no sealed text of this version")]
    Malformed,
    /// Of another task, agent or key, or altered.
    #[error("it was not sealed for this task by the agent that the task names")]
    Foreign,
    /// Too late.
    #[error("it counted until {0} s after 1970, which is over; look at the clocks of both nodes")]
    Expired(i64),
}

impl Keys {
    /// New ones, from the kernel's random numbers.
    pub fn new() -> Self {
        let (secret, public) = X25519HkdfSha256::gen_keypair();
        Self { secret, public }
    }

    /// What others need to seal something for us, and to know that something is of us.
    pub fn public(&self) -> String {
        STANDARD.encode(self.public.to_bytes())
    }

    /// Seals a text for whoever has this key, until `expires`, in seconds since 1970.
    ///
    /// # Errors
    /// [`SealError::Key`].
    pub fn seal(
        &self,
        text: &str,
        key: &str,
        binding: &Binding<'_>,
        expires: i64,
    ) -> Result<String, SealError> {
        let mode = OpModeS::Auth((self.secret.clone(), self.public.clone()));
        let expiry = expires.to_be_bytes();
        let sealed = single_shot_seal::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &mode,
            &parsed(key)?,
            &binding.bytes(),
            text.as_bytes(),
            &expiry,
        );
        let (encapsulated, ciphertext) = sealed.map_err(|_| SealError::Key)?;
        let all = [&expiry[..], &encapsulated.to_bytes(), &ciphertext].concat();
        Ok(format!("{SEALED}{}", STANDARD.encode(all)))
    }

    /// Opens a text that whoever has this key has sealed for us.
    ///
    /// # Errors
    /// Every [`SealError`].
    pub fn open(&self, text: &str, key: &str, binding: &Binding<'_>, now: i64) -> Result<Opened, SealError> {
        let all = text
            .strip_prefix(SEALED)
            .and_then(|text| STANDARD.decode(text).ok())
            .ok_or(SealError::Malformed)?;
        let (expiry, rest) = all.split_first_chunk::<EXPIRY>().ok_or(SealError::Malformed)?;
        let (once, ciphertext) = rest.split_first_chunk::<ENCAPSULATED>().ok_or(SealError::Malformed)?;
        let encapsulated = Encapsulated::from_bytes(once).map_err(|_| SealError::Malformed)?;
        let mode = OpModeR::Auth(parsed(key)?);
        let opened = single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &mode,
            &self.secret,
            &encapsulated,
            &binding.bytes(),
            ciphertext,
            expiry,
        );
        let opened = opened.map_err(|_| SealError::Foreign)?;
        let expires = i64::from_be_bytes(*expiry);
        if now > expires {
            return Err(SealError::Expired(expires));
        }
        let text = String::from_utf8(opened).map_err(|_| SealError::Malformed)?;
        Ok(Opened { text, once: *once, expires })
    }
}

impl Default for Keys {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Keys").field("public", &self.public()).finish_non_exhaustive()
    }
}

fn parsed(key: &str) -> Result<PublicKey, SealError> {
    let bytes = STANDARD.decode(key).map_err(|_| SealError::Key)?;
    PublicKey::from_bytes(&bytes).map_err(|_| SealError::Key)
}

impl Binding<'_> {
    /// All of it, each part with its length, so that no two bindings are the same bytes.
    fn bytes(&self) -> Vec<u8> {
        let (run, attempt) = (self.run.to_string(), self.attempt.to_string());
        let parts =
            [PURPOSE, self.job, &run, &attempt, self.task, self.from.0, self.from.1, self.to.0, self.to.1];
        parts
            .iter()
            .flat_map(|part| [&(part.len() as u64).to_be_bytes()[..], part.as_bytes()].concat())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Binding<'_> =
        Binding { job: "j", run: 1, attempt: 0, task: "t", from: ("a", "ia"), to: ("b", "ib") };
    const SECRET: &str = "what nobody else may know";

    #[test]
    fn it_opens_for_whom_it_is_and_shows_nothing() {
        let (ours, theirs) = (Keys::new(), Keys::new());
        let sealed = ours.seal(SECRET, &theirs.public(), &GOOD, 100).unwrap();
        let opened = theirs.open(&sealed, &ours.public(), &GOOD, 100).unwrap();
        assert_eq!((opened.text.as_str(), opened.expires), (SECRET, 100));
        assert_ne!(sealed, ours.seal(SECRET, &theirs.public(), &GOOD, 100).unwrap(), "no two are alike");
        let bytes = STANDARD.decode(&sealed[SEALED.len()..]).unwrap();
        assert!(!bytes.windows(6).any(|part| part == &SECRET.as_bytes()[..6]));
        assert!(!format!("{ours:?}").contains("secret: "));
    }

    #[test]
    fn with_anything_else_it_does_not_open() {
        let (ours, theirs, other) = (Keys::new(), Keys::new(), Keys::new());
        let sealed = ours.seal(SECRET, &theirs.public(), &GOOD, 100).unwrap();
        let of = |binding: Binding<'_>| theirs.open(&sealed, &ours.public(), &binding, 0);
        for binding in [
            Binding { job: "k", ..GOOD },
            Binding { run: 2, ..GOOD },
            Binding { attempt: 1, ..GOOD },
            Binding { task: "u", ..GOOD },
            Binding { from: ("a", "ib"), ..GOOD },
            Binding { from: ("ai", "a"), ..GOOD },
            Binding { to: ("a", "ib"), ..GOOD },
            Binding { to: ("b", "ic"), ..GOOD },
        ] {
            assert_eq!(of(binding), Err(SealError::Foreign), "{binding:?}");
        }
        // Another receiver, and another sender than is said.
        assert_eq!(other.open(&sealed, &ours.public(), &GOOD, 0), Err(SealError::Foreign));
        assert_eq!(theirs.open(&sealed, &other.public(), &GOOD, 0), Err(SealError::Foreign));
        assert_eq!(theirs.open(&sealed, &ours.public(), &GOOD, 101), Err(SealError::Expired(100)));
        for key in ["", "AA==", "no key"] {
            assert_eq!(ours.seal(SECRET, key, &GOOD, 100), Err(SealError::Key));
            assert_eq!(theirs.open(&sealed, key, &GOOD, 0), Err(SealError::Key));
        }
    }

    #[test]
    fn a_text_that_was_altered_or_cut_anywhere_does_not_open() {
        let (ours, theirs) = (Keys::new(), Keys::new());
        let sealed = ours.seal(SECRET, &theirs.public(), &GOOD, 100).unwrap();
        let bytes = STANDARD.decode(&sealed[SEALED.len()..]).unwrap();
        for at in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[at] ^= 4;
            for bytes in [altered.as_slice(), &bytes[..at]] {
                let text = format!("{SEALED}{}", STANDARD.encode(bytes));
                assert!(theirs.open(&text, &ours.public(), &GOOD, 0).is_err(), "{at}");
            }
        }
        for text in ["", "sealed:", "sealed:!", "b64:AAAA", SECRET] {
            assert_eq!(theirs.open(text, &ours.public(), &GOOD, 0), Err(SealError::Malformed), "{text}");
        }
    }
}
