//! Removes everything that a record names, in whatever state it was left; what is gone already is no error.

use std::time::Instant;

use anyhow::Result;

use super::record::{Place, Record};
use super::space::{self, SOON};
use super::{cgroups, network};
use crate::progress::Step;

/// `cargo xtask cluster down`
pub fn run(place: &Place) -> Result<()> {
    match place.record()? {
        Some(record) => clear(place, &record),
        None => {
            // Nothing was made before the first record; there may be its directory.
            place.remove()?;
            println!("No cluster is up.");
            Ok(())
        }
    }
}

pub fn clear(place: &Place, record: &Record) -> Result<()> {
    let step = Step::start("ending the cluster");
    let deadline = Instant::now() + SOON + SOON;
    // With the first process of a space the kernel ends all others in it. The one that started it follows by itself.
    for (_, process) in record.processes.iter().rev() {
        space::end(process, deadline)?;
    }
    network::remove(record)?;
    cgroups::remove(&record.tag, deadline)?;
    place.remove()?;
    step.done("nothing is left");
    Ok(())
}
