//! Interoperation with Dynamo's `nixl_connect`: the real Python module, unmodified, in processes of its own, in both roles,
//! on NIXL 1.5.1 and on 1.4.1. The numbers of the cases are those of the design. This process only conducts and never
//! loads NIXL; our side is the example `peer`, or this test binary again in the role of `child`.

#[path = "interop/child.rs"]
mod child_role;
#[path = "interop/command_line.rs"]
mod command_line;
#[path = "interop/contents.rs"]
mod contents;
#[path = "interop/damage.rs"]
mod damage;
#[path = "interop/directions.rs"]
mod directions;
#[path = "interop/held.rs"]
mod held;
#[path = "interop/loss.rs"]
mod loss;
#[path = "interop/mismatch.rs"]
mod mismatch;
#[path = "interop/notifications.rs"]
mod notifications;
#[path = "interop/ours.rs"]
mod ours;
#[path = "interop/process.rs"]
mod process;
#[path = "interop/python.rs"]
mod python;
#[path = "interop/remote.rs"]
mod remote;
#[path = "interop/remote_desk.rs"]
mod remote_desk;
#[path = "interop/remote_loss.rs"]
mod remote_loss;
#[path = "interop/restart.rs"]
mod restart;
#[path = "interop/sharing.rs"]
mod sharing;
#[path = "interop/wire.rs"]
mod wire;

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Not a test of its own: the body of the processes that the others start.
#[test]
#[ignore = "a role for the processes that the other tests start"]
fn child() {
    child_role::run();
}
