//! Many operations in a row, each on memory of its own: a vector, mapped memory, and five ranges that are lent, hardly one
//! of which has the place and the size of an earlier one. One operation at a time.
//!
//! `offer KIND NUMBER` (gives the metadata) · `settle` (waits for what was offered, compares, drops it) ·
//! `move KIND NUMBER METADATA` (begins, waits, compares, drops) · `weigh`

use nixl_connect::{Connector, Descriptor, Device, RdmaMetadata, Refused};

use super::held::{Held, hold};
use super::memory;
use super::role::{Answer, Failure, after, library, mistake, obey};
use crate::Outcome;

/// Ranges of one operation. So many that the session's memory of its peer's ranges is full before the series ends.
const LENT: usize = 5;
/// Room for one of them.
const STEP: usize = 700;
/// Operations after which the same places are used again.
const PLACES: usize = 16;

struct Series {
    connector: Connector,
    /// Memory that is lent, one half to copy from and one to copy into. It lives as long as the process.
    pool: &'static mut [u8],
    offered: Option<(Box<dyn Held>, usize, bool)>,
}

pub fn run() -> Outcome {
    let connector = Connector::start_named("series", &library()?)?;
    let pool = vec![1; 2 * PLACES * LENT * STEP].leak();
    let mut series = Series { connector, pool, offered: None };
    obey(|words| series.obey(words))
}

impl Series {
    fn obey(&mut self, words: &[&str]) -> Answer {
        match *words {
            ["offer", kind, number] => {
                let (number, source) = (number.parse().map_err(mistake)?, kind == "readable");
                let memory = self.memory(number, source)?;
                let operation = if source {
                    hold(self.connector.create_readable(memory).blocking()?)
                } else {
                    hold(self.connector.create_writable(memory).blocking()?)
                };
                let metadata = operation.metadata().ok_or_else(|| mistake("it offers nothing"))?;
                self.offered = Some((operation, number, source));
                return Ok(metadata);
            }
            ["settle"] => {
                let (operation, number, source) = self.offered.take().ok_or_else(|| mistake("no offer"))?;
                self.finish(operation, number, source)?;
            }
            ["move", kind, number, metadata] => {
                let (number, source) = (number.parse().map_err(mistake)?, kind == "write");
                let (remote, memory) = (RdmaMetadata::parse(metadata)?, self.memory(number, source)?);
                let operation = if source {
                    hold(self.connector.begin_write(memory, remote).blocking()?)
                } else {
                    hold(self.connector.begin_read(remote, memory).blocking()?)
                };
                self.finish(operation, number, source)?;
            }
            ["weigh"] => {
                let now = self.connector.statistics()?;
                let held = now.endpoints + now.regions + now.in_flight;
                let (foreign, ranges) = (now.foreign_notifications, now.peer_regions);
                return Ok(format!("{held} {foreign} {ranges} {} {}", resident()?, open_files()?));
            }
            _ => return Err(mistake(format!("no such command: {words:?}"))),
        }
        Ok("ok".to_owned())
    }

    /// New memory, filled if the operation copies from it.
    fn memory(&mut self, number: usize, source: bool) -> Answer<Vec<Descriptor>> {
        let sizes = format!("{},{}", 1 + number * 37 % 30_011, 1 + number % 5000);
        let mut memory = memory::make(&sizes, if source { "1" } else { "0" })?;
        for (index, (start, size)) in ranges(number, source).into_iter().enumerate() {
            let room = &mut self.pool[start..start + STEP];
            room.fill(0);
            if source {
                room[..size].fill(content(number, index));
            }
            let start = room.as_mut_ptr();
            // SAFETY: the pool is leaked, and nobody looks at this part of it before the operation is over.
            #[allow(unsafe_code)] // lending memory is what is tested
            let lent = unsafe { Descriptor::from_raw_parts(Device::Cpu, start, size, ()) };
            memory.push(lent?);
        }
        Ok(memory)
    }

    fn finish(&self, operation: Box<dyn Held>, number: usize, source: bool) -> Answer<()> {
        operation.wait(after("30000")?)?;
        let memory = operation.take().map_err(|_| mistake("a complete operation keeps its memory"))?;
        memory::compare(&memory[..memory.len() - LENT], "1")?;
        for (index, (start, size)) in ranges(number, source).into_iter().enumerate() {
            let (inside, outside) = self.pool[start..start + STEP].split_at(size);
            if inside.iter().any(|byte| *byte != content(number, index))
                || outside.iter().any(|byte| *byte != 0)
            {
                return Err(mistake(format!("lent range {index} of operation {number} differs")));
            }
        }
        Ok(())
    }
}

fn content(number: usize, index: usize) -> u8 {
    1 + ((number * LENT + index) % 255) as u8
}

/// Where the lent ranges of an operation begin in the pool, and their sizes.
fn ranges(number: usize, source: bool) -> [(usize, usize); LENT] {
    let place = 2 * (number % PLACES) + usize::from(source);
    std::array::from_fn(|index| ((place * LENT + index) * STEP, 1 + (number * 7 + index) % (STEP - 1)))
}

impl<D> From<Refused<D>> for Failure {
    fn from(refused: Refused<D>) -> Self {
        refused.error.into()
    }
}

/// KiB of memory that this process has.
fn resident() -> Answer<usize> {
    let status = std::fs::read_to_string("/proc/self/status").map_err(mistake)?;
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or_else(|| mistake("no VmRSS"))?;
    line.trim().trim_end_matches(" kB").parse().map_err(mistake)
}

fn open_files() -> Answer<usize> {
    Ok(std::fs::read_dir("/proc/self/fd").map_err(mistake)?.count())
}
