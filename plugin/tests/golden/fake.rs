//! An API server named fake: it serves the fixtures over plain HTTP, to the namespace `ml`, so that what the program prints is
//! known to the letter. What a real one does is shown in `tests/tests/system/plugin.rs`.

use std::{net::SocketAddr, path::PathBuf};

use axum::{
    Router,
    http::{Method, StatusCode, Uri, header::CONTENT_TYPE},
    response::IntoResponse,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fixtures;

/// The server, and a kubeconfig for it.
pub struct Fake {
    directory: TempDir,
}

const OURS: &str = "/apis/nixl-transfer.io/v1alpha1";

impl Fake {
    /// Serves until the test's runtime ends.
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().fallback(answer);
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { directory: kubeconfig(address) }
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("kubeconfig")
    }
}

/// A kubeconfig for an address, in a directory that lives as long as it is held.
pub fn kubeconfig(address: SocketAddr) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "fake",
        "clusters": [{"name": "fake", "cluster": {"server": format!("http://{address}")}}],
        "users": [{"name": "fake", "user": {}}],
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake", "namespace": "ml"}}],
    });
    std::fs::write(directory.path().join("kubeconfig"), config.to_string()).unwrap();
    directory
}

async fn answer(method: Method, uri: Uri, body: String) -> impl IntoResponse {
    let (code, object) = match object(&method, uri.path(), &body) {
        Some(object) => (StatusCode::OK, object),
        None => {
            let said = "users \"fake\" may not see it";
            let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                                "code": 403, "reason": "Forbidden", "message": said});
            (StatusCode::FORBIDDEN, status)
        }
    };
    (code, [(CONTENT_TYPE, "application/json")], object.to_string())
}

fn object(method: &Method, path: &str, body: &str) -> Option<Value> {
    let list = |items: Value| json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items});
    if path == "/version" {
        return Some(
            json!({"major": "1", "minor": "36", "gitVersion": "v1.36.0", "gitCommit": "", "gitTreeState": "",
                           "buildDate": "", "goVersion": "", "compiler": "", "platform": ""}),
        );
    }
    if method == Method::POST && path.ends_with("/selfsubjectaccessreviews") {
        return Some(json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
                           "metadata": {}, "spec": {}, "status": {"allowed": false}}));
    }
    match path.strip_prefix(OURS)? {
        "/transfernodes" => Some(list(fixtures::value("doctor/poor.yaml")["nodes"].clone())),
        "/namespaces/ml/transferjobs" => Some(list(fixtures::jobs().into_values().collect())),
        "/namespaces/ml/transfertasks" => None,
        path => {
            let name = path.strip_prefix("/namespaces/ml/transferjobs/")?;
            let mut job = fixtures::jobs().remove(name)?;
            if method == Method::PATCH {
                let patch: Value = serde_json::from_str(body).ok()?;
                job["spec"].as_object_mut()?.extend(patch["spec"].as_object()?.clone());
                job["metadata"]["resourceVersion"] = json!("100");
                let generation = job["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
                job["metadata"]["generation"] = json!(generation);
            }
            Some(job)
        }
    }
}
