//! The four operations, ours with ours, over real NIXL. This process only conducts: it never loads NIXL itself, for that
//! may crash a process at its exit. Each end is this test binary again, in the role of `child`.

#[path = "operations/asynchronous.rs"]
mod asynchronous;
#[path = "operations/beginning.rs"]
mod beginning;
#[path = "operations/cancelling.rs"]
mod cancelling;
#[path = "operations/desk.rs"]
mod desk;
#[path = "operations/dropping.rs"]
mod dropping;
#[path = "operations/held.rs"]
mod held;
#[path = "operations/loss.rs"]
mod loss;
#[path = "operations/memory.rs"]
mod memory;
#[path = "operations/notifications.rs"]
mod notifications;
#[path = "operations/owning.rs"]
mod owning;
#[path = "operations/process.rs"]
mod process;
#[path = "operations/registered.rs"]
mod registered;
#[path = "operations/rogue.rs"]
mod rogue;
#[path = "operations/role.rs"]
mod role;
#[path = "operations/series.rs"]
mod series;
#[path = "operations/sharing.rs"]
mod sharing;
#[path = "operations/tasks.rs"]
mod tasks;
#[path = "operations/thousand.rs"]
mod thousand;
#[path = "operations/waiting.rs"]
mod waiting;

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Not a test of its own: the body of the processes that the others start.
#[test]
#[ignore = "a role for the processes that the other tests start"]
fn child() {
    role::run();
}
