//! How many files control opens ahead of a worker. A small file is over in microseconds and its way from one end to the
//! other and back takes milliseconds, so a small window leaves both ends waiting. Pure but for the limit.

use rustix::process::{Resource, getrlimit};

use crate::protocol::OPEN_WINDOW;

/// More make nothing faster.
const MOST: usize = 1024;
/// So many hops' windows fit into the limit of open files, as they did with 256 files and a limit of 4,096. Workers have
/// the limit that control has.
const WINDOWS: u64 = 16;

/// The window of one hop in this process.
pub fn files() -> usize {
    // Raised to what is possible when the process starts.
    within(getrlimit(Resource::Nofile).current)
}

fn within(limit: Option<u64>) -> usize {
    let share = limit.map_or(MOST, |limit| usize::try_from(limit / WINDOWS).unwrap_or(MOST));
    share.clamp(OPEN_WINDOW, MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_a_share_of_the_limit_within_bounds() {
        for (limit, expected) in
            [(None, 1024), (Some(1 << 20), 1024), (Some(8192), 512), (Some(1024), 256), (Some(0), 256)]
        {
            assert_eq!(within(limit), expected, "{limit:?}");
        }
    }
}
