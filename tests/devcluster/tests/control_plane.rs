//! The real control plane: starts, serves each user, survives the loss of its API server, leaves nothing behind.

use std::process::Command;
use std::time::Instant;

use devcluster::{ADMIN, Assets, ClusterDir, ControlPlane, ControlPlaneOptions, agent_user, descendants};

fn cluster(name: &str) -> ClusterDir {
    ClusterDir::create(&std::env::temp_dir().join("nixl-transfer-devcluster"), name).unwrap()
}

#[test]
fn starts_serves_pauses_resumes_and_ends() {
    let assets = Assets::find().unwrap();
    let cluster = cluster("plane");
    let directory = cluster.path().to_owned();
    let started = Instant::now();
    let options = ControlPlaneOptions::new(assets).node("node-a", &[("role", "source")]);
    let mut plane = ControlPlane::start(&cluster, options).unwrap();
    println!("control plane ready after {:.1} s", started.elapsed().as_secs_f64());

    assert_eq!(plane.kubectl(&["get", "nodes", "-l", "role=source", "-o", "name"]).unwrap(), "node/node-a\n");
    let me = plane.kubectl_as(&agent_user("node-a")).run(&["auth", "whoami", "-o", "json"]).unwrap();
    assert!(me.contains("nixl-transfer:agent:node-a") && me.contains("nixl-transfer:agents"), "{me}");

    plane.pause();
    assert!(plane.kubectl(&["get", "nodes", "--request-timeout=2s"]).is_err());
    let started = Instant::now();
    plane.resume().unwrap();
    println!("API server back after {:.1} s", started.elapsed().as_secs_f64());
    assert_eq!(plane.kubectl(&["get", "nodes", "-o", "name"]).unwrap(), "node/node-a\n");

    let verified = Command::new("curl")
        .args(["--silent", "--fail", "--cacert"])
        .arg(directory.join("control-plane/ca.crt"))
        .arg(format!("https://127.0.0.1:{}/version", plane.port()))
        .output();
    if let Ok(output) = verified {
        assert!(output.status.success(), "curl does not accept the certificate: {output:?}");
    }
    assert!(plane.kubeconfig(ADMIN).is_file());

    let pids = plane.pids();
    assert_eq!(pids.len(), 2);
    plane.stop();
    drop(cluster);
    assert!(!directory.exists());
    let left = descendants(std::process::id() as i32);
    assert!(pids.values().all(|pid| left.iter().all(|process| process.pid != *pid)), "{left:?}");
}

#[test]
fn a_broken_server_is_reported_with_its_log() {
    let mut assets = Assets::find().unwrap();
    assets.kube_apiserver = assets.etcd.clone();
    let cluster = cluster("broken");
    let error = ControlPlane::start(&cluster, ControlPlaneOptions::new(assets)).unwrap_err().to_string();
    assert!(error.starts_with("kube-apiserver ended before it was ready\nlast lines of "), "{error}");
    assert!(error.contains("etcd --config-file"), "{error}");
}
