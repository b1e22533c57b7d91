//! An agent that keeps no rules: it notifies whom and what it is told to, through nixl-sys alone.
//!
//! `load METADATA` (of an operation; gives the agent's name) · `notify AGENT HEX` · `agent` · `name`

use nixl_connect::{Encoding, RdmaMetadata, encode_agent_metadata};
use nixl_sys::{Agent, NixlError};

use super::role::{Answer, Failure, library, mistake, obey};
use crate::Outcome;

pub fn run() -> Outcome {
    library()?;
    let name = format!("rogue-{}", std::process::id());
    // NIXL's own thread makes progress; nothing else here does.
    let agent = Agent::new(&name)?;
    let (_, parameters) = agent.get_plugin_params("UCX")?;
    let _backend = agent.create_backend("UCX", &parameters)?;
    obey(|words| match *words {
        ["load", metadata] => {
            let remote = RdmaMetadata::parse(metadata)?;
            Ok(agent.load_remote_md(&remote.agent().parsed().to_bytes())?)
        }
        ["notify", to, hex] => {
            agent.send_notification(to, &bytes(hex)?, None)?;
            Ok("ok".to_owned())
        }
        ["agent"] => Ok(encode_agent_metadata(&agent.get_local_md()?, Encoding::Base64)?),
        ["name"] => Ok(name.clone()),
        _ => Err(mistake(format!("no such command: {words:?}"))),
    })
}

fn bytes(hex: &str) -> Answer<Vec<u8>> {
    let places = (0..hex.len()).step_by(2);
    places.map(|at| u8::from_str_radix(hex.get(at..at + 2).unwrap_or(hex), 16).map_err(mistake)).collect()
}

impl From<NixlError> for Failure {
    fn from(error: NixlError) -> Self {
        mistake(error)
    }
}
