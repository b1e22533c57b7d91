//! What `/proc` says about processes: start times (a pid alone is no identity), descendants, group members. Reads only.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// One process, identified by pid and start time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    pub pid: i32,
    pub parent: i32,
    pub group: i32,
    /// Clock ticks since boot.
    pub start_time: u64,
    /// `R`, `S`, `T` (stopped), `Z` (ended, not yet waited for), …
    pub state: char,
    /// The arguments, as the process was started.
    pub arguments: Vec<String>,
}

/// The process `pid`, when it exists.
pub fn look_up(pid: i32) -> Option<ProcessInfo> {
    let directory = Path::new("/proc").join(pid.to_string());
    let mut info = parse_stat(&fs::read_to_string(directory.join("stat")).ok()?)?;
    let arguments = fs::read(directory.join("cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&arguments);
    info.arguments = text.split_terminator('\0').map(str::to_owned).collect();
    Some(info)
}

/// All processes that this user can see.
pub(crate) fn all() -> Vec<ProcessInfo> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| look_up(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// Everything that `pid` started, and what that started, parents before children. `pid` itself is not in the list.
pub fn descendants(pid: i32) -> Vec<ProcessInfo> {
    below(pid, all())
}

fn below(root: i32, processes: Vec<ProcessInfo>) -> Vec<ProcessInfo> {
    let mut found: Vec<ProcessInfo> = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for process in processes.iter().filter(|process| process.parent == parent) {
            parents.push(process.pid);
            found.push(process.clone());
        }
    }
    found
}

/// `/proc/<pid>/stat`: the name in parentheses may itself hold spaces and parentheses.
fn parse_stat(stat: &str) -> Option<ProcessInfo> {
    let (pid, rest) = stat.split_once(" (")?;
    let (_, fields) = rest.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    Some(ProcessInfo {
        pid: pid.parse().ok()?,
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        start_time: fields.get(19)?.parse().ok()?,
        arguments: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_with_an_odd_name() {
        let stat = "42 (a) b (c) S 7 40 40 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 98765 1 1";
        let info = parse_stat(stat).unwrap();
        assert_eq!((info.pid, info.state, info.parent, info.group, info.start_time), (42, 'S', 7, 40, 98765));
        assert_eq!(parse_stat("42 (a"), None);
        assert_eq!(parse_stat("42 (a) S 7"), None);
    }

    #[test]
    fn this_process_is_found() {
        let me = look_up(std::process::id() as i32).unwrap();
        assert!(me.start_time > 0 && !me.arguments.is_empty());
    }

    #[test]
    fn descendants_are_a_closure() {
        let process =
            |pid, parent| ProcessInfo { pid, parent, group: 1, start_time: 1, state: 'S', arguments: vec![] };
        let table = vec![process(2, 1), process(3, 2), process(4, 9), process(5, 3)];
        let mut pids: Vec<i32> = below(1, table).iter().map(|process| process.pid).collect();
        pids.sort_unstable();
        assert_eq!(pids, [2, 3, 5]);
    }
}
