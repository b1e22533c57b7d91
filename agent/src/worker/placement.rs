//! Puts the worker on the processors near its devices. Memory that it touches from then on is theirs too: the kernel gives each
//! thread memory of the NUMA node it runs on.

use std::{fs, io};

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

/// Sets the processors of every thread that there is; those to come inherit them.
pub(super) fn run_on(cpus: &[u32]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus.iter().filter_map(|cpu| usize::try_from(*cpu).ok()) {
        if cpu < CpuSet::MAX_CPU {
            set.set(cpu);
        }
    }
    for thread in fs::read_dir("/proc/self/task")? {
        let name = thread?.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        // One that has ended meanwhile needs no place.
        match sched_setaffinity(pid, &set) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
