//! An image in OCI's layout, with all files in one layer, as one tar archive. tar and sha256sum do the work.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::exec;

/// Some hundred megabytes take seconds.
const LONGEST: Duration = Duration::from_secs(300);

/// What a runtime reads of it.
#[derive(Clone, Debug)]
pub struct Image {
    pub reference: String,
    pub entrypoint: String,
    pub user: Option<u32>,
}

/// `scratch` is made and may be removed afterwards.
pub fn write(image: &Image, root: &Path, scratch: &Path, archive: &Path) -> Result<()> {
    let blobs = scratch.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let layer = scratch.join("layer");
    // The same files make the same layer, whoever packs them when.
    let mut tar = Command::new("tar");
    tar.args([
        "--create",
        "--sort=name",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--mtime=@0",
        "--file",
    ]);
    exec::watched_within(tar.arg(&layer).arg("--directory").arg(root).arg("."), LONGEST, |_| {})?;
    let layer = keep(&blobs, &layer, "application/vnd.oci.image.layer.v1.tar")?;
    let config = document(&blobs, &config(image, &layer), "application/vnd.oci.image.config.v1+json")?;
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]});
    let mut entry = document(&blobs, &manifest, MANIFEST)?;
    entry["annotations"] = json!({"io.containerd.image.name": image.reference, "org.opencontainers.image.ref.name": image.reference});
    fs::write(scratch.join("index.json"), json!({"schemaVersion": 2, "manifests": [entry]}).to_string())?;
    fs::write(scratch.join("oci-layout"), json!({"imageLayoutVersion": "1.0.0"}).to_string())?;
    let mut tar = Command::new("tar");
    tar.arg("--create").arg("--file").arg(archive).arg("--directory").arg(scratch);
    exec::watched_within(tar.args(["oci-layout", "index.json", "blobs"]), LONGEST, |_| {})
}

fn config(image: &Image, layer: &Value) -> Value {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let path = "PATH=/usr/bin";
    let mut config = json!({"Entrypoint": [image.entrypoint], "Env": [path], "WorkingDir": "/"});
    if let Some(user) = image.user {
        config["User"] = format!("{user}:{user}").into();
    }
    json!({"architecture": architecture, "os": "linux", "config": config,
           "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}})
}

fn document(blobs: &Path, document: &Value, kind: &str) -> Result<Value> {
    let file = blobs.join("document");
    fs::write(&file, document.to_string())?;
    keep(blobs, &file, kind)
}

/// Gives a file the name of its digest, and describes it.
fn keep(blobs: &Path, file: &Path, kind: &str) -> Result<Value> {
    let said = exec::output("sha256sum", &["--", file.to_str().context("a path that is no text")?])?;
    let digest = said.split_whitespace().next().context("sha256sum said nothing")?.trim_start_matches('\\');
    let size = fs::metadata(file)?.len();
    fs::rename(file, blobs.join(digest))?;
    Ok(json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": size}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_files_make_the_same_layer_and_every_blob_is_found_by_its_digest() {
        let place = std::env::temp_dir().join(format!("nixl-transfer-layout-{}", std::process::id()));
        let layout = |name: &str| {
            let root = place.join(name).join("root");
            fs::create_dir_all(root.join("usr/bin")).unwrap();
            fs::write(root.join("usr/bin/x"), "program").unwrap();
            let image = Image { reference: "x:dev".into(), entrypoint: "/usr/bin/x".into(), user: Some(7) };
            let scratch = place.join(name).join("layout");
            write(&image, &root, &scratch, &place.join(name).join("x.tar")).unwrap();
            let read = |path: &str| -> Value {
                serde_json::from_slice(&fs::read(scratch.join(path)).unwrap()).unwrap()
            };
            let blob = |of: &Value| read(&format!("blobs/sha256/{}", &of["digest"].as_str().unwrap()[7..]));
            let manifest = blob(&read("index.json")["manifests"][0]);
            let config = blob(&manifest["config"]);
            assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
            assert_eq!(config["config"]["User"], "7:7");
            read("index.json")
        };
        assert_eq!(layout("a"), layout("b"));
        fs::remove_dir_all(place).unwrap();
    }
}
