//! Any sequence of events ends, once events stop and time passes, Complete, Failed or Suspended; what must never happen
//! is checked by the model at every write.

use nixl_transfer_crds::{FanOut, TransferJob, condition, names::node_label, task::SideState};
use proptest::prelude::*;
use serde_json::json;
use transfer_operator::plan::plan_unwanted;

use crate::model::{Behaviour, World, at, everywhere, halves, job, path, redirect};

#[derive(Clone, Debug)]
enum Event {
    Operate { writes: usize },
    Agents,
    Report { task: usize, target: bool, state: SideState, reason: &'static str },
    Lose(&'static str),
    Kill(&'static str),
    Slots(&'static str, u32),
    Find { node: &'static str, restarted: bool },
    Leave(&'static str),
    Join(&'static str),
    Behave(&'static str, Behaviour),
    Drain(&'static str, bool),
    Suspend(bool),
    Trigger,
    NewPath,
    BackoffLimit(i32),
    ActiveDeadline(Option<i64>),
    DeleteTask(usize),
    ForgetEverything,
    Pass(i64),
}

/// The source is `a`.
const NODES: [&str; 5] = ["a", "b", "c", "d", "e"];

const REASONS: [&str; 8] = [
    "PeerLost",
    "WorkerLost",
    "SourceNotFound",
    "IoError",
    "DestinationBusy",
    "IntegrityError",
    "ProgressDeadlineExceeded",
    "SomethingNew",
];

fn event() -> impl Strategy<Value = Event> {
    let node = || prop::sample::select(NODES.to_vec());
    let reason = || prop::sample::select(REASONS.to_vec());
    let state = || {
        prop::sample::select(vec![
            SideState::Pending,
            SideState::Prepared,
            SideState::Active,
            SideState::Succeeded,
            SideState::Failed,
            SideState::Cancelled,
        ])
    };
    prop_oneof![
        6 => prop_oneof![Just(usize::MAX), 0..4usize].prop_map(|writes| Event::Operate { writes }),
        4 => Just(Event::Agents),
        6 => (0..9usize, any::<bool>(), state(), reason()).prop_map(|(task, target, state, reason)| Event::Report { task, target, state, reason }),
        2 => node().prop_map(Event::Lose),
        3 => node().prop_map(Event::Kill),
        1 => (node(), 1..5u32).prop_map(|(node, slots)| Event::Slots(node, slots)),
        3 => (node(), any::<bool>()).prop_map(|(node, restarted)| Event::Find { node, restarted }),
        1 => node().prop_map(Event::Leave),
        2 => node().prop_map(Event::Join),
        2 => (node(), prop_oneof![Just(Behaviour::Works), Just(Behaviour::Hangs), reason().prop_map(Behaviour::Fails)]).prop_map(|(node, behaviour)| Event::Behave(node, behaviour)),
        1 => (node(), any::<bool>()).prop_map(|(node, drained)| Event::Drain(node, drained)),
        2 => any::<bool>().prop_map(Event::Suspend),
        1 => Just(Event::Trigger),
        1 => Just(Event::NewPath),
        1 => (0..4i32).prop_map(Event::BackoffLimit),
        1 => prop::option::of(1..900i64).prop_map(Event::ActiveDeadline),
        1 => (0..9usize).prop_map(Event::DeleteTask),
        1 => Just(Event::ForgetEverything),
        4 => prop_oneof![0..20i64, 20..1000i64].prop_map(Event::Pass),
    ]
}

fn happen(world: &mut World, event: Event) {
    world.log.push(format!("{} {event:?}", world.now));
    match event {
        Event::Operate { writes } => {
            world.operate(writes);
        }
        Event::Agents => {
            world.agents(true);
        }
        Event::Report { task, target, state, reason } => {
            let Some(name) = world.tasks.keys().nth(task).cloned() else { return };
            let task = &world.tasks[&name];
            let (node, open) = halves(task)[usize::from(target)].clone();
            let instance = if target { &task.spec.target.instance } else { &task.spec.source.instance };
            let view = world.cluster.nodes.get(&node);
            let lives = view.is_some_and(|view| {
                !view.is_gone() && view.agent.as_ref().is_some_and(|agent| agent.instance == *instance)
            });
            let before = task.status.as_ref().and_then(|status| {
                if target {
                    status.target.as_ref().map(|half| half.state)
                } else {
                    status.source.as_ref().map(|half| half.state)
                }
            });
            if open && lives && Some(state) >= before {
                world.report(&name, target, state, (state == SideState::Failed).then_some(reason));
            }
        }
        Event::Lose(node) => world.lose(node),
        Event::Kill(node) => world.kill(node),
        Event::Slots(node, slots) => world.agent(node, |agent| agent.slots = slots),
        Event::Find { node, restarted } => world.find(node, restarted),
        Event::Leave(node) => {
            world.cluster.nodes.remove(node);
        }
        Event::Join(node) => {
            if !world.cluster.nodes.contains_key(node) {
                world.join(node);
            }
        }
        Event::Behave(node, behaviour) => {
            world.behaviour.insert(node.into(), behaviour);
        }
        Event::Drain(node, drained) => {
            world.agent(node, |agent| agent.unready = drained.then(|| "it is drained".into()));
        }
        Event::Suspend(suspend) => world.edit(|job| job.spec.suspend = suspend),
        Event::Trigger => world.edit(|job| job.spec.trigger.push('x')),
        Event::NewPath => world.edit(|job| redirect(job, |path| format!("{path}x"))),
        Event::BackoffLimit(limit) => world.edit(|job| job.spec.backoff_limit = limit),
        Event::ActiveDeadline(seconds) => world.edit(|job| job.spec.active_deadline_seconds = seconds),
        Event::DeleteTask(task) => {
            let now = world.now;
            if let Some(task) = world.tasks.values_mut().nth(task)
                && task.metadata.deletion_timestamp.is_none()
            {
                task.metadata.deletion_timestamp =
                    Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
            }
        }
        Event::ForgetEverything => world.memory = Default::default(),
        Event::Pass(seconds) => world.pass(seconds),
    }
}

fn destinations() -> impl Strategy<Value = serde_json::Value> {
    prop_oneof![
        Just(json!([at("one", "b")])),
        Just(json!([at("one", "b"), at("two", "c")])),
        Just(json!([everywhere("all", "from")])),
        Just(json!([everywhere("all", "to"), at("one", "c")])),
        Just(json!([everywhere("all", "from"), at("one", "c")])),
    ]
}

/// A job from one node, or from any that has the data. Where the data is, is one node only in the model's check of nodes
/// that serve themselves, so a selector is not combined with a destination that is the source.
fn any_job() -> impl Strategy<Value = TransferJob> {
    let flags =
        || (prop::bool::weighted(0.3), prop::bool::weighted(0.2), prop::bool::weighted(0.3), any::<bool>());
    (destinations(), flags()).prop_map(|(destinations, (selected, direct, follow, label_nodes))| {
        let mut job = job(destinations);
        (job.spec.follow, job.spec.label_nodes) = (follow, label_nodes);
        if direct {
            job.spec.transport.fan_out = FanOut::Direct;
        }
        if selected && job.spec.destinations.iter().all(|to| path(to) != "from") {
            let selector = json!({"selector": {"matchLabels": {"role": "data"}}});
            job.spec.source.node = serde_json::from_value(selector).unwrap();
        }
        job
    })
}

/// A thousand sequences, or as many as PROPTEST_CASES says when that is more.
fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig {
        cases: default.cases.max(1_000),
        max_shrink_iters: 4_000,
        failure_persistence: None,
        ..default
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_sequence_of_events_ends_well(
        job in any_job(),
        events in prop::collection::vec(event(), 0..60),
    ) {
        let mut world = World::with(job, &NODES);
        for event in events {
            happen(&mut world, event);
        }
        world.settle();
        let labelled = |world: &World| {
            let key = node_label("ns", "job");
            world.cluster.nodes.iter().filter(|(_, view)| view.labels.contains_key(&key)).map(|(name, _)| name.clone()).collect::<Vec<_>>()
        };
        for node in labelled(&world) {
            let holds = |task: &nixl_transfer_crds::TransferTask| {
                let target = task.status.as_ref().and_then(|status| status.target.as_ref());
                Some(&task.spec.target.node_uid) == world.cluster.nodes[&node].uid.as_ref() && target.is_some_and(|half| half.state == SideState::Succeeded)
            };
            prop_assert!(node == "a" || world.tasks.values().any(holds), "labelled, and {node} has nothing: {:#?}", world.log);
        }
        // What follows has been Complete before, perhaps, and is behind for good.
        let end = if world.job.as_ref().is_some_and(|job| job.spec.follow) { condition::READY } else { condition::COMPLETE };
        let ended = [end, condition::FAILED, condition::SUSPENDED].map(|kind| world.is(kind));
        prop_assert_eq!(ended.iter().filter(|ended| **ended).count(), 1, "{:#?}", world.log);
        prop_assert_eq!(world.status().observed_generation, world.job.as_ref().unwrap().metadata.generation);
        for task in world.tasks.values() {
            let over = halves(task).iter().all(|(node, open)| !open || world.cluster.is_gone(node));
            let hop = |task: &nixl_transfer_crds::TransferTask| (task.spec.target.destination.clone(), task.spec.target.node_uid.clone());
            let of_hop = world.tasks.values().filter(|other| hop(other) == hop(task)).count();
            prop_assert_eq!((of_hop, task.spec.run), (1, world.status().run), "only the latest attempt stays: {:#?}", world.log);
            prop_assert!(over || !world.is(condition::FAILED), "{:#?}", world.log);
            let succeeded = task.status.as_ref().and_then(|status| status.target.as_ref()).is_some_and(|half| half.state == SideState::Succeeded);
            prop_assert!(succeeded || task.spec.discard || !world.is(condition::FAILED), "left behind: {:#?}", world.log);
        }

        // Then the job is deleted, and nothing stays.
        world.job = None;
        for action in plan_unwanted(&node_label("ns", "job"), &world.cluster).actions {
            world.write(action);
        }
        world.settle();
        prop_assert!(labelled(&world).is_empty());
        prop_assert!(world.tasks.is_empty(), "{:#?}", world.log);
    }
}
