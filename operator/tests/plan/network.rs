//! The network that a transfer used, and when it is news that it was not the best.

use nixl_transfer_crds::{condition, task::SideState};
use serde_json::json;

use crate::model::{World, at, job};
use crate::tables::only_task;

/// Sets the network that each task's target reports.
fn use_network(world: &mut World, network: &str, fallback: Option<&str>) {
    for task in world.tasks.values_mut() {
        let half = task.status.as_mut().and_then(|status| status.target.as_mut());
        if let Some(used) = half.and_then(|half| half.transport.as_mut()) {
            used.network = network.into();
            used.fallback_reason = fallback.map(Into::into);
        }
    }
}

#[test]
fn a_better_network_that_lay_idle_is_an_event_once_and_one_that_is_not_there_is_none() {
    for (reason, source_has_rdma, events) in [
        (None, true, 0),
        (Some("NoRdmaDevice"), true, 0),
        (Some("LinkDown"), true, 1),
        (Some("MemlockTooSmall"), true, 1),
        (Some("NoCommonBackend"), true, 1),
        // What receives has RDMA and what sends has none: that is what these machines are like.
        (Some("NoCommonBackend"), false, 0),
        (Some("LinkDown"), false, 1),
    ] {
        let mut world = World::new(job(json!([at("one", "b")])));
        world.agent("a", |agent| agent.rdma = source_has_rdma);
        world.operate(usize::MAX);
        let task = only_task(&world);
        let mut notes = Vec::new();
        for round in 0..6 {
            let state = if round == 5 { SideState::Succeeded } else { SideState::Active };
            world.report(&task, false, state, None);
            world.report(&task, true, state, None);
            // Told right after a write, so that the next is not due.
            use_network(&mut world, "tcp", reason.filter(|_| round > 0));
            let mut looked = vec![world.plan()];
            assert!(round != 1 || looked[0].status.is_none(), "{reason:?}: shows nothing");
            world.pass(6);
            looked.push(world.plan());
            let found = looked.into_iter().flat_map(|plan| plan.notes);
            notes.extend(found.filter(|note| note.action == "UseNetwork"));
            world.operate(usize::MAX);
        }
        assert!(world.is(condition::COMPLETE));
        let shown = world.status().transport.unwrap().fallback_reason;
        assert_eq!((notes.len(), shown.as_deref()), (events, reason), "{reason:?}: {notes:#?}");
        for note in notes {
            assert!(note.news && Some(note.reason.as_str()) == reason, "{note:?}");
            assert!(note.message.contains(" b ") && note.message.contains("over tcp"), "{note:?}");
        }
    }
}
