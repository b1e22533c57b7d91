//! Which pod a token is: asked of the API server, by TokenReview. What a token says of itself is read only to refuse it
//! sooner and in clearer words.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use kube::{Api, Client, api::PostParams};
use nixl_transfer_client::AUDIENCE;
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::Pod;
use crate::volume::path::shortened;

/// Questions to the API server at once.
const AT_ONCE: usize = 4;
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);
/// How long an answer counts, so that a pod that connects again and again is asked about once. As long as the API server's
/// own memory of tokens: a pod that was deleted is known no longer than both together.
const REMEMBERED_FOR: Duration = Duration::from_secs(10);
const MAX_REMEMBERED: usize = 1024;
/// Longest token that is looked at.
const MAX_TOKEN: usize = 16 << 10;

/// Why something is refused: a word for programs, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// One word.
    pub reason: &'static str,
    /// What is wrong, and what to do.
    pub message: String,
}

impl Refusal {
    /// A refusal with its message.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// Asks who a token is.
pub struct Identity {
    reviews: Api<TokenReview>,
    node: String,
    questions: Semaphore,
    known: Mutex<HashMap<blake3::Hash, (Pod, Instant)>>,
}

/// What a token says of itself.
#[derive(Debug, Default, Deserialize)]
struct Claims {
    #[serde(default)]
    aud: Audiences,
    exp: Option<i64>,
    #[serde(rename = "kubernetes.io", default)]
    kubernetes: Kubernetes,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Many(Vec<String>),
}

impl Default for Audiences {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

#[derive(Debug, Default, Deserialize)]
struct Kubernetes {
    pod: Option<Object>,
    node: Option<Object>,
}

#[derive(Debug, Deserialize)]
struct Object {
    name: String,
}

impl Identity {
    /// Asks by this client, for pods of this node.
    pub fn new(client: Client, node: &str) -> Self {
        let questions = Semaphore::new(AT_ONCE);
        Self { reviews: Api::all(client), node: node.to_owned(), questions, known: Mutex::default() }
    }

    /// The pod that a token is bound to.
    ///
    /// # Errors
    /// Why the token is not good.
    pub async fn of(&self, token: &str) -> Result<Pod, Refusal> {
        look(token, &self.node, jiff::Timestamp::now().as_second())?;
        let hash = blake3::hash(token.as_bytes());
        if let Some(pod) = self.remembered(&hash) {
            return Ok(pod);
        }
        let unreachable = |why: String| Refusal::new("Unavailable", format!("{why}; connect again later"));
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: Some(vec![AUDIENCE.to_owned()]),
            },
            ..TokenReview::default()
        };
        let asked = tokio::time::timeout(ANSWERED_WITHIN, async {
            let _one_of_few = self.questions.acquire().await;
            self.reviews.create(&PostParams::default(), &review).await
        });
        let answer = asked
            .await
            .map_err(|_| unreachable("the API server did not say in time whether the token is good".into()))?
            .map_err(|error| {
                unreachable(format!("the API server cannot be asked about the token: {error}"))
            })?;
        let status = answer.status.unwrap_or_default();
        if status.authenticated != Some(true) {
            let why = status.error.unwrap_or_else(|| "no reason given".into());
            return Err(Refusal::new(
                "TokenRejected",
                format!("the API server does not accept the token: {why}"),
            ));
        }
        // One that knows no audiences would accept tokens that are for others.
        if !status.audiences.unwrap_or_default().iter().any(|audience| audience == AUDIENCE) {
            return Err(Refusal::new(
                "WrongAudience",
                format!("the API server does not say that the token is for {AUDIENCE}"),
            ));
        }
        let pod = pod(status.user.unwrap_or_default(), &self.node)?;
        self.remember(hash, pod.clone());
        Ok(pod)
    }

    fn remembered(&self, hash: &blake3::Hash) -> Option<Pod> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (pod, at) = known.get(hash)?;
        (at.elapsed() < REMEMBERED_FOR).then(|| pod.clone())
    }

    fn remember(&self, hash: blake3::Hash, pod: Pod) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (_, at)| at.elapsed() < REMEMBERED_FOR);
        if known.len() < MAX_REMEMBERED {
            known.insert(hash, (pod, Instant::now()));
        }
    }
}

/// Refuses what cannot be good.
fn look(token: &str, node: &str, now: i64) -> Result<(), Refusal> {
    let remedy = format!(
        "mount a projected service-account token with the audience {AUDIENCE} and send what its file holds now"
    );
    let malformed = |what: &str| Refusal::new("TokenMalformed", format!("the token {what}; {remedy}"));
    if token.is_empty() {
        return Err(Refusal::new("TokenMissing", format!("there is no token; {remedy}")));
    }
    if token.len() > MAX_TOKEN {
        return Err(malformed("is longer than any"));
    }
    let mut parts = token.split('.');
    let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(malformed("is no service-account token"));
    };
    let claims: Option<Claims> =
        URL_SAFE_NO_PAD.decode(payload).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let claims = claims.ok_or_else(|| malformed("is no service-account token"))?;
    let named = match &claims.aud {
        Audiences::One(one) => std::slice::from_ref(one),
        Audiences::Many(many) => many.as_slice(),
    };
    if !named.iter().any(|audience| audience == AUDIENCE) {
        let named = shortened(&format!("{named:?}"));
        return Err(Refusal::new("WrongAudience", format!("the token is for {named}; {remedy}")));
    }
    if claims.exp.is_some_and(|exp| exp <= now) {
        return Err(Refusal::new("TokenExpired", format!("the token has expired; {remedy}")));
    }
    if claims.kubernetes.pod.is_none() {
        return Err(Refusal::new("TokenNotBound", format!("the token is bound to no pod; {remedy}")));
    }
    match claims.kubernetes.node {
        Some(other) if other.name != node => Err(wrong_node(&other.name, node)),
        _ => Ok(()),
    }
}

fn wrong_node(found: &str, node: &str) -> Refusal {
    let message = format!(
        "the token is of a pod on node {:?}, and this is the agent of {node}; use the socket of the pod's node",
        shortened(found)
    );
    Refusal::new("WrongNode", message)
}

/// The pod that the API server found.
fn pod(user: UserInfo, node: &str) -> Result<Pod, Refusal> {
    let extra = user.extra.unwrap_or_default();
    let one =
        |key: &str| extra.get(&format!("authentication.kubernetes.io/{key}")).and_then(|all| all.first());
    let (Some(name), Some(uid)) = (one("pod-name"), one("pod-uid")) else {
        return Err(Refusal::new(
            "TokenNotBound",
            "the API server knows of no pod that the token is bound to",
        ));
    };
    match one("node-name") {
        Some(found) if found == node => {}
        Some(found) => return Err(wrong_node(found, node)),
        None => {
            let message =
                "the API server does not say on which node the pod is; it must be of version 1.32 or later";
            return Err(Refusal::new("WrongNode", message));
        }
    }
    let username = user.username.unwrap_or_default();
    let namespace = username.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    let Some((namespace, _)) = namespace else {
        return Err(Refusal::new("TokenNotBound", "the token is of no service account"));
    };
    Ok(Pod { namespace: namespace.to_owned(), name: name.clone(), uid: uid.clone() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn token(claims: &serde_json::Value) -> String {
        format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    #[test]
    fn what_cannot_be_good_is_refused_without_a_question() {
        let good = json!({"aud": [AUDIENCE], "exp": 100, "kubernetes.io": {"pod": {"name": "p"}, "node": {"name": "n"}}});
        let with = |key: &str, value: serde_json::Value| {
            let mut claims = good.clone();
            claims[key] = value;
            token(&claims)
        };
        for (token, expected) in [
            (token(&good), None),
            (with("aud", json!(AUDIENCE)), None),
            (with("kubernetes.io", json!({"pod": {"name": "p"}})), None),
            (String::new(), Some("TokenMissing")),
            ("garbage".into(), Some("TokenMalformed")),
            ("a.b.c".into(), Some("TokenMalformed")),
            (format!("{}.more", token(&good)), Some("TokenMalformed")),
            ("x".repeat(MAX_TOKEN + 1), Some("TokenMalformed")),
            (with("aud", json!(["https://kubernetes.default.svc"])), Some("WrongAudience")),
            (with("aud", json!(null)), Some("TokenMalformed")),
            (with("exp", json!(99)), Some("TokenExpired")),
            (with("kubernetes.io", json!({})), Some("TokenNotBound")),
            (with("kubernetes.io", json!({"pod": {"name": "p"}, "node": {"name": "m"}})), Some("WrongNode")),
        ] {
            let found = look(&token, "n", 99).err().map(|refusal| refusal.reason);
            assert_eq!(found, expected, "{}", token.chars().take(40).collect::<String>());
        }
    }

    #[test]
    fn the_pod_is_the_one_that_the_api_server_names() {
        let user = |username: &str, extra: serde_json::Value| -> UserInfo {
            serde_json::from_value(json!({"username": username, "extra": extra})).unwrap()
        };
        let key = |name: &str| format!("authentication.kubernetes.io/{name}");
        let all = json!({key("pod-name"): ["p"], key("pod-uid"): ["u"], key("node-name"): ["n"]});
        let found = pod(user("system:serviceaccount:ml:default", all.clone()), "n").unwrap();
        assert_eq!(found, Pod { namespace: "ml".into(), name: "p".into(), uid: "u".into() });
        let unbound = json!({key("node-name"): ["n"]});
        let nowhere = json!({key("pod-name"): ["p"], key("pod-uid"): ["u"]});
        for (username, extra, node, reason) in [
            ("system:serviceaccount:ml:default", all.clone(), "m", "WrongNode"),
            ("system:serviceaccount:ml:default", unbound, "n", "TokenNotBound"),
            ("system:serviceaccount:ml:default", nowhere, "n", "WrongNode"),
            ("somebody", all, "n", "TokenNotBound"),
        ] {
            assert_eq!(pod(user(username, extra), node).unwrap_err().reason, reason);
        }
    }
}
