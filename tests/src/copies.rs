//! Copies of our kinds in another group that nobody else watches: to measure what the API server takes for the same writes
//! when nothing is decided or moved.

use anyhow::{Context, Result};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject},
};
use serde_json::{Value, json};

use crate::cluster::{Cluster, NAMESPACE};

const GROUP: &str = "floor.nixl-transfer.io";

/// Objects of a copied kind.
pub type Objects = Api<DynamicObject>;

/// Makes the copies known to the API server, with the schemas and rules of the real kinds.
pub fn define(cluster: &Cluster) -> Result<()> {
    for definition in nixl_transfer_crds::definitions() {
        let mut definition = serde_json::to_value(definition)?;
        let plural = definition["spec"]["names"]["plural"].as_str().context("a plural")?.to_owned();
        let name = format!("{plural}.{GROUP}");
        definition["metadata"]["name"] = json!(name);
        definition["spec"]["group"] = json!(GROUP);
        // The real ones have the short names.
        definition["spec"]["names"]["shortNames"] = json!([]);
        definition["spec"]["names"]["categories"] = json!([]);
        cluster.plane.apply_text(&definition.to_string())?;
        let established = ["wait", "--for=condition=Established", "--timeout=30s", "crd"];
        cluster.plane.kubectl(&[&established[..], &[name.as_str()]].concat())?;
    }
    Ok(())
}

/// The copies of a kind in the tests' namespace.
pub fn objects(client: Client, kind: &str) -> Objects {
    let plural = format!("{}s", kind.to_lowercase());
    let api_version = format!("{GROUP}/v1alpha1");
    let resource = ApiResource {
        group: GROUP.into(),
        version: "v1alpha1".into(),
        api_version,
        kind: kind.into(),
        plural,
    };
    Api::namespaced_with(client, NAMESPACE, &resource)
}

/// A new object with the labels and the spec of a real one.
pub fn object(kind: &str, name: &str, like: &Value) -> Result<DynamicObject> {
    let labels = &like["metadata"]["labels"];
    Ok(serde_json::from_value(json!({
        "apiVersion": format!("{GROUP}/v1alpha1"),
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
        "spec": like["spec"],
    }))?)
}
