//! When an agent is told that what it keeps for a further attempt is not needed.

use nixl_transfer_crds::{FanOut, condition, task::SideState};
use serde_json::json;

use crate::{
    model::{Behaviour, World, at, catch_up, job, redirect},
    tables::only_task,
};

#[test]
fn what_no_further_attempt_needs_is_discarded_once() {
    // A run that failed, and a hop that is given up while others go on.
    let mut world = World::new(job(json!([at("one", "b"), at("two", "c")])));
    world.job.as_mut().unwrap().spec.transport.fan_out = FanOut::Direct;
    world.behaviour.insert("c".into(), Behaviour::Hangs);
    catch_up(&mut world);
    let of = |world: &World, node: &str| {
        world.tasks.values().find(|task| task.spec.target.node_name == node).unwrap().clone()
    };
    let failed = of(&world, "b").metadata.name.unwrap();
    world.report(&failed, true, SideState::Failed, Some("DestinationExists"));
    catch_up(&mut world);
    world.agents(false);
    catch_up(&mut world);
    assert!(of(&world, "b").spec.discard, "given up for good");
    assert!(!of(&world, "c").spec.discard && !world.is(condition::FAILED));
    world.edit(|job| job.spec.backoff_limit = 0);
    world.settle();
    assert!(world.is(condition::FAILED) && of(&world, "c").spec.discard);
    let discards = |world: &World| world.log.iter().filter(|line| line.contains("Discard(")).count();
    assert_eq!(discards(&world), 2, "once each");

    // Suspension keeps everything; a run that follows discards what the suspended one has left, then deletes it.
    let mut world = World::new(job(json!([at("one", "b")])));
    catch_up(&mut world);
    world.agents(true);
    let old = only_task(&world);
    world.edit(|job| job.spec.suspend = true);
    catch_up(&mut world);
    world.agents(true);
    catch_up(&mut world);
    assert!(world.is(condition::SUSPENDED) && discards(&world) == 0);
    world.edit(|job| redirect(job, |_| "elsewhere".into()));
    world.operate(usize::MAX);
    let task = world.tasks[&old].clone();
    assert!(task.spec.discard && task.metadata.deletion_timestamp.is_none());
    catch_up(&mut world);
    assert!(!world.tasks.contains_key(&old));
    assert_eq!(discards(&world), 1);

    // A retry goes on from what the attempt before it has left; success leaves nothing.
    let mut world = World::new(job(json!([at("one", "b")])));
    catch_up(&mut world);
    let first = only_task(&world);
    world.report(&first, true, SideState::Failed, Some("IoError"));
    world.settle();
    assert!(world.is(condition::COMPLETE));
    assert_eq!(discards(&world), 0);
    world.edit(|job| job.spec.trigger = "again".into());
    world.settle();
    assert_eq!(discards(&world), 0);

    // A run that is superseded while it moves.
    let mut world = World::new(job(json!([at("one", "b")])));
    catch_up(&mut world);
    world.agents(true);
    let old = only_task(&world);
    world.edit(|job| job.spec.trigger = "again".into());
    catch_up(&mut world);
    assert!(world.tasks[&old].spec.discard && world.tasks[&old].spec.cancel);
    world.settle();
    assert!(world.is(condition::COMPLETE) && discards(&world) == 1);
}
