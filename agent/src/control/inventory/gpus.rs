//! What is known of the node's GPUs: when NVML is asked again, and what is said about it once. No I/O but the log.

use std::time::{Duration, Instant};

use tracing::{debug, warn};

use crate::devices::{Absent, Address, Gpu};

/// GPUs do not change; asking wakes those that sleep. One that has failed is seen after this time.
const ASK_AGAIN: Duration = Duration::from_secs(600);

/// The last answer of NVML.
#[derive(Debug, Default)]
pub struct Gpus {
    /// The GPUs; none while NVML is absent or fails.
    pub known: Vec<Gpu>,
    /// What an administrator should know.
    pub trouble: Option<String>,
    answered: Option<Answered>,
    said: String,
}

#[derive(Debug)]
struct Answered {
    at: Instant,
    well: bool,
    /// The GPUs that sysfs showed then.
    displays: Vec<Address>,
}

impl Gpus {
    /// Whether NVML has answered, well or not.
    pub fn is_answered(&self) -> bool {
        self.answered.is_some()
    }

    /// Whether NVML shall be asked: at first, after a failure (the driver may have been installed), when sysfs shows other
    /// GPUs, and now and then.
    pub fn shall_ask(&self, displays: &[Address], now: Instant) -> bool {
        self.answered.as_ref().is_none_or(|last| {
            !last.well || last.displays != displays || now.saturating_duration_since(last.at) >= ASK_AGAIN
        })
    }

    /// Takes an answer in. `displays` are the GPUs that sysfs shows.
    pub fn take(&mut self, answer: Result<Vec<Gpu>, Absent>, displays: &[Address], now: Instant) {
        let well = answer.is_ok();
        self.answered = Some(Answered { at: now, well, displays: displays.to_vec() });
        self.trouble = None;
        let count = displays.len();
        match answer {
            Ok(gpus) => {
                self.known = gpus;
                self.said.clear();
            }
            Err(Absent::NoLibrary(error)) => {
                self.known.clear();
                if count == 0 {
                    self.say(|| debug!(error, "no NVML, and no GPUs of NVIDIA in sysfs"), "no GPUs");
                } else {
                    self.say(
                        || {
                            warn!(
                                count,
                                error,
                                "sysfs shows GPUs of NVIDIA, but NVML cannot be loaded here, so none is listed; give the agent NVIDIA's driver libraries (capability `utility`)"
                            );
                        },
                        &format!("no NVML, {count} GPUs"),
                    );
                }
            }
            Err(failed @ Absent::Failed(_)) => {
                self.known.clear();
                let text = failed.to_string();
                self.say(|| warn!(count, "{text}; no GPU is listed"), &text);
                // Without a GPU a library that finds no driver is nobody's trouble.
                self.trouble = (count > 0).then_some(text);
            }
        }
    }

    /// Says it, unless it was the last thing that was said.
    fn say(&mut self, say: impl FnOnce(), what: &str) {
        if self.said != what {
            say();
            what.clone_into(&mut self.said);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu() -> Gpu {
        Gpu { index: 0, uuid: "GPU-fake".into(), model: "Fake".into(), memory: None, address: None }
    }

    #[test]
    fn nvml_is_asked_when_something_may_be_new() {
        let (one, two) = (Address::parse("0000:01:00.0").unwrap(), Address::parse("0000:02:00.0").unwrap());
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        let mut gpus = Gpus::default();
        assert!(gpus.shall_ask(&[one], start), "at first");
        gpus.take(Ok(vec![gpu()]), &[one], start);
        assert!(!gpus.shall_ask(&[one], later(599)));
        assert!(gpus.shall_ask(&[one], later(600)), "now and then");
        assert!(gpus.shall_ask(&[one, two], later(1)), "another GPU in sysfs");
        assert!(gpus.shall_ask(&[], later(1)), "a GPU is pulled");
        for absent in [Absent::NoLibrary("no such file".into()), Absent::Failed("lost".into())] {
            gpus.take(Err(absent), &[one], later(1));
            assert!(gpus.shall_ask(&[one], later(2)), "after a failure");
            assert!(gpus.known.is_empty());
        }
    }

    #[test]
    fn a_failure_is_trouble_only_where_there_are_gpus_and_ends_with_a_good_answer() {
        let one = Address::parse("0000:01:00.0").unwrap();
        let now = Instant::now();
        let mut gpus = Gpus::default();
        gpus.take(Err(Absent::NoLibrary("no such file".into())), &[one], now);
        assert_eq!(gpus.trouble, None);
        gpus.take(Err(Absent::Failed("driver not loaded".into())), &[], now);
        assert_eq!(gpus.trouble, None);
        gpus.take(Err(Absent::Failed("driver not loaded".into())), &[one], now);
        assert!(gpus.trouble.as_ref().unwrap().contains("driver not loaded"));
        gpus.take(Ok(vec![gpu()]), &[one], now);
        assert_eq!((gpus.trouble.as_deref(), gpus.known.len()), (None, 1));
    }
}
