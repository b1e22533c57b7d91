//! What went wrong, as one sentence with a remedy and an exit code. Pure: from the client's error to the sentence.

use std::{fmt, time::Duration};

use kube::Error;

/// What `--help` says about exit codes.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done; of `watch`: the job is complete; of `doctor`: nothing is broken
  1  the job failed, something is broken, or another error
  2  the command line, or the kubeconfig, cannot be used
  3  the API server cannot be reached, or is too slow (--request-timeout)
  4  the API server forbids it, or does not know who asks
  5  nixl-transfer is not installed in the cluster: its CRDs are missing
  6  `watch --timeout` was over before the job was";

/// The kind of failure, which is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A failed job, a broken cluster, and anything without a code of its own.
    Other = 1,
    /// The command line or the kubeconfig.
    Usage = 2,
    /// No answer in time.
    Unreachable = 3,
    /// Not allowed, or not known.
    Forbidden = 4,
    /// No CRDs.
    NotInstalled = 5,
    /// `watch --timeout`.
    TimedOut = 6,
}

/// Why a command failed. The message is for people and says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its kind.
    pub kind: Kind,
    /// What happened and what to do; empty when everything was said already.
    pub message: String,
    /// The object that was asked for is not there.
    pub missing: bool,
}

/// What was asked of the API server.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// As it follows "to" or "may not": `list TransferJobs in namespace ml`.
    pub what: &'a str,
    /// Where the API server is.
    pub server: &'a str,
    /// How long it had.
    pub within: Duration,
}

impl Failure {
    /// A failure of that kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), missing: false }
    }

    /// Any other failure.
    pub fn other(message: impl Into<String>) -> Self {
        Self::new(Kind::Other, message)
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        self.kind as u8
    }

    /// No answer in time.
    pub fn slow(asked: &Asked<'_>) -> Self {
        let Asked { what, server, within } = asked;
        Self::new(
            Kind::Unreachable,
            format!(
                "the API server at {server} did not answer within {} s when asked to {what}; look at the network to it, or \
                 give it longer with --request-timeout",
                within.as_secs_f64()
            ),
        )
    }

    /// What the client's error means for the one who asked.
    pub fn of(error: &Error, asked: &Asked<'_>) -> Self {
        let Asked { what, server, .. } = asked;
        match error {
            Error::Api(status) => of_status(status, asked),
            Error::Service(_) | Error::HyperError(_) | Error::ReadEvents(_) | Error::RustlsTls(_) => {
                Self::new(
                    Kind::Unreachable,
                    format!(
                        "the API server at {server} cannot be reached: {}; is that the right cluster (--context, --kubeconfig), \
                     and does it run?",
                        root(error)
                    ),
                )
            }
            Error::Auth(_) => Self::new(
                Kind::Forbidden,
                format!("no credentials for {server}: {}; log in again as for kubectl", root(error)),
            ),
            Error::SerdeError(_) => Self::other(format!(
                "the answer to {what} cannot be read: {}; the cluster's nixl-transfer and this plugin may be of different \
                 versions",
                root(error)
            )),
            _ => Self::other(format!("{what}: {}", root(error))),
        }
    }
}

fn of_status(status: &kube::core::Status, asked: &Asked<'_>) -> Failure {
    let Asked { what, server, .. } = asked;
    let name = status.details.as_ref().map(|details| details.name.as_str()).unwrap_or_default();
    let said = status.message.trim();
    match status.code {
        401 => Failure::new(
            Kind::Forbidden,
            format!(
                "the API server at {server} does not accept the credentials; log in again as for kubectl"
            ),
        ),
        403 => Failure::new(
            Kind::Forbidden,
            format!(
                "you may not {what}: {said}; ask an administrator for the role `view` (or `edit`, to make and change jobs), \
                 which nixl-transfer extends"
            ),
        ),
        404 if name.is_empty() => Failure::new(
            Kind::NotInstalled,
            format!(
                "the API server at {server} knows no nixl-transfer.io/v1alpha1: its CRDs are not installed; install the chart \
                 nixl-transfer, or choose another cluster with --context"
            ),
        ),
        404 if status.details.as_ref().is_some_and(|details| details.kind == "namespaces") => {
            Failure::other(format!(
                "there is no namespace {name}; make it with kubectl create namespace {name}, or give another with -n"
            ))
        }
        404 => Failure {
            missing: true,
            ..Failure::other(format!(
                "there is no such object: {said}; `kubectl transfer get -A` lists all jobs"
            ))
        },
        409 => Failure::other(format!(
            "{said}; choose another name with --name, or run that one again: kubectl transfer rerun {name}"
        )),
        429 | 500..=599 => Failure::new(
            Kind::Unreachable,
            format!("the API server at {server} is overloaded or broken, asked to {what}: {said}; try again"),
        ),
        _ => Failure::other(said.to_owned()),
    }
}

/// The innermost cause; the outer ones are words of libraries.
fn root(error: &Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Writing to standard output failed.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            // Who read it has had enough.
            return Self::other("");
        }
        Self::other(format!("the output cannot be written: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use kube::core::{Status, response::StatusDetails};

    use super::*;

    const ASKED: Asked<'_> = Asked {
        what: "list TransferJobs in namespace ml",
        server: "https://k",
        within: Duration::from_secs(30),
    };

    fn status(code: u16, message: &str, name: &str) -> Failure {
        let details: StatusDetails = serde_json::from_value(serde_json::json!({"name": name})).unwrap();
        let status = Status { code, message: message.into(), details: Some(details), ..Status::default() };
        Failure::of(&Error::Api(Box::new(status)), &ASKED)
    }

    #[test]
    fn each_answer_has_its_code_and_a_remedy() {
        let cases = [
            (401, "Unauthorized", "", 4, "log in again"),
            (403, "User \"x\" cannot list", "", 4, "the role `view`"),
            (404, "404 page not found", "", 5, "CRDs are not installed"),
            (404, "transferjobs \"x\" not found", "x", 1, "transfer get -A"),
            (409, "transferjobs \"x\" already exists", "x", 1, "kubectl transfer rerun x"),
            (422, "spec.destinations: too many", "x", 1, "too many"),
            (429, "slow down", "", 3, "try again"),
            (504, "etcd timeout", "", 3, "etcd timeout"),
        ];
        for (code, message, name, exit, remedy) in cases {
            let failure = status(code, message, name);
            assert_eq!(failure.code(), exit, "{code}: {failure}");
            assert!(failure.message.contains(remedy), "{code}: {failure}");
        }
        let slow = Failure::slow(&ASKED);
        assert_eq!(slow.code(), 3);
        assert!(slow.message.contains("within 30 s") && slow.message.contains("--request-timeout"), "{slow}");
    }

    #[test]
    fn a_broken_connection_names_its_innermost_cause() {
        let refused = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "Connection refused");
        let failure = Failure::of(&Error::Service(Box::new(refused)), &ASKED);
        assert_eq!(failure.code(), 3);
        assert!(failure.message.contains("https://k cannot be reached: Connection refused"), "{failure}");
        // What is no answer of ours is no word about CRDs.
        let json = serde_json::from_str::<u8>("<html>").unwrap_err();
        assert_eq!(Failure::of(&Error::SerdeError(json), &ASKED).code(), 1);
    }
}
