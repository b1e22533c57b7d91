//! Where the nodes of the measured cluster are: two on the loopback device, or each in a network namespace that somebody
//! else holds.

use std::{collections::BTreeMap, net::IpAddr, path::Path};

use anyhow::{Context, Result, ensure};
use devcluster::Volume;
use nixl_transfer_tests::{Cluster, Setup};
use serde_json::{Value, json};

/// The names of the nodes, the source first.
pub struct Place {
    pub names: Vec<String>,
    /// By node: its address for control, and the words that enter its namespace.
    entries: BTreeMap<String, (IpAddr, Vec<String>)>,
    control: Option<IpAddr>,
    device: Option<String>,
}

impl Place {
    /// `{"control": ADDRESS, "device": NAME, "nodes": [{"name", "address", "enter": [WORD]}]}`; nothing: `a` and `b` on the
    /// loopback device.
    pub fn parse(text: Option<&str>) -> Result<Self> {
        let Some(text) = text else {
            let names = ["a", "b"].map(str::to_owned).to_vec();
            return Ok(Self { names, entries: BTreeMap::new(), control: None, device: None });
        };
        let value: Value = serde_json::from_str(text).context("the place")?;
        let text =
            |value: &Value| value.as_str().map(str::to_owned).context("a text is missing in the place");
        let (mut names, mut entries) = (Vec::new(), BTreeMap::new());
        for node in value["nodes"].as_array().context("no nodes")? {
            let name = text(&node["name"])?;
            let enter =
                node["enter"].as_array().context("no words")?.iter().map(text).collect::<Result<_>>()?;
            entries.insert(name.clone(), (text(&node["address"])?.parse()?, enter));
            names.push(name);
        }
        ensure!(names.len() > 1, "one node is no cluster");
        let control = Some(text(&value["control"])?.parse()?);
        Ok(Self { names, entries, control, device: Some(text(&value["device"])?) })
    }

    /// Starts the cluster; each node's volume `data` is the directory of its name.
    pub async fn start(&self, directory: &Path) -> Result<Cluster> {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let mut setup = Setup::nodes(&names);
        if let Some(address) = self.control {
            setup = setup.control_address(address);
        }
        for name in &names {
            let mut config = json!({"memory": {"host": "64Gi"}});
            let mut volume = Volume::new("data");
            volume.path = Some(directory.join(name));
            setup = setup.volumes(name, vec![volume]);
            if let (Some((address, enter)), Some(device)) = (self.entries.get(*name), &self.device) {
                setup = setup.agent_place(name, *address, enter.clone());
                // A slot for each receiver, so that none waits for another.
                config["network"] = json!({"devices": [device]});
                config["slots"] = json!(names.len().max(4));
            }
            setup = setup.agent_config(name, config);
        }
        setup.start().await
    }
}
