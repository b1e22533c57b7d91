//! Memory as an end of a job: what stands in the way, what the task says, what becomes of a region that goes.

use nixl_transfer_crds::{Reason, condition, job::status::Phase, region::Access, task::SideState};
use serde_json::{Value, json};
use transfer_operator::cluster::RegionView;

use crate::model::{World, at, catch_up, job};
use crate::tables::only_task;

const MIB: u64 = 1 << 20;

fn region(world: &mut World, name: &str, node: &str, change: impl FnOnce(&mut RegionView)) {
    let agent = world.cluster.nodes[node].agent.as_ref().expect("every node of these worlds has one");
    let mut view = RegionView {
        uid: format!("uid-of-{name}"),
        created: Some(world.now),
        node: node.into(),
        access: Access::ReadWrite,
        external: false,
        unverified: false,
        unready: None,
        instance: agent.instance.clone(),
        size: MIB,
        content: Some(MIB),
    };
    change(&mut view);
    world.cluster.regions.insert(("ns".into(), name.into()), view);
}

fn to_memory(name: &str) -> Value {
    json!([{"name": "one", "memory": {"name": name}}])
}

/// A job from node a's file, or from a region, to `destinations`.
fn from(memory: Option<&str>, destinations: Value) -> World {
    let mut job = job(destinations);
    if let Some(name) = memory {
        job.spec.source = serde_json::from_value(json!({"memory": {"name": name}})).unwrap();
    }
    World::new(job)
}

fn run(world: &mut World) {
    world.operate(usize::MAX);
    while world.agents(true) {
        world.operate(usize::MAX);
    }
    catch_up(world);
}

#[test]
fn memory_is_found_by_its_name_and_the_task_says_which_one_of_that_name() {
    let mut world = from(Some("from"), json!([{"name": "one", "memory": {"name": "to"}}, at("two", "b")]));
    region(&mut world, "from", "a", |_| {});
    region(&mut world, "to", "c", |_| {});
    run(&mut world);
    assert!(world.is(condition::COMPLETE), "{:#?}", world.log);
    for task in world.tasks.values() {
        let spec = serde_json::to_value(&task.spec).unwrap();
        assert_eq!(spec["source"]["memory"], json!({"name": "from", "uid": "uid-of-from"}));
        assert!(spec["source"].get("volume").is_none());
        match task.spec.target.destination.as_str() {
            "one" => {
                assert_eq!(spec["target"]["memory"], json!({"name": "to", "uid": "uid-of-to"}));
                assert_eq!(task.spec.target.node_name, "c");
            }
            _ => assert_eq!(task.spec.target.node_name, "b"),
        }
    }
}

#[test]
fn what_stands_in_the_way_of_memory_is_said() {
    type Change = fn(&mut RegionView);
    let same: Change = |_| {};
    let refused: [(&str, Option<&str>, Value, Change, Reason); 13] = [
        ("another name", None, to_memory("other"), same, Reason::RegionNotFound),
        ("another source", Some("other"), json!([at("one", "b")]), same, Reason::RegionNotFound),
        (
            "on another node than said",
            None,
            json!([{"name": "one", "node": {"name": "b"}, "memory": {"name": "r"}}]),
            same,
            Reason::RegionNotFound,
        ),
        (
            "on no node of the selector",
            None,
            json!([{"name": "one", "node": {"selector": {"matchLabels": {"role": "none"}}}, "memory": {"name": "r"}}]),
            same,
            Reason::RegionNotFound,
        ),
        (
            "not ready",
            None,
            to_memory("r"),
            |r| r.unready = Some((Reason::RegionNotReady, "no pod".into())),
            Reason::RegionNotReady,
        ),
        (
            "no such device",
            None,
            to_memory("r"),
            |r| r.unready = Some((Reason::NoSuchDevice, "cuda:9".into())),
            Reason::NoSuchDevice,
        ),
        (
            "of an agent that is gone",
            None,
            to_memory("r"),
            |r| r.instance = "older".into(),
            Reason::RegionNotReady,
        ),
        ("empty", Some("r"), json!([at("one", "b")]), |r| r.content = None, Reason::RegionNotReady),
        (
            "not to be read",
            Some("r"),
            json!([at("one", "b")]),
            |r| r.access = Access::Writable,
            Reason::InvalidSpec,
        ),
        ("not to be written", None, to_memory("r"), |r| r.access = Access::Readable, Reason::InvalidSpec),
        ("itself", Some("r"), to_memory("r"), same, Reason::SameEndpoint),
        (
            "external, to two",
            Some("r"),
            json!([at("one", "b"), at("two", "c")]),
            |r| r.external = true,
            Reason::InvalidSpec,
        ),
        (
            "external, to a selector",
            Some("r"),
            json!([{"name": "one", "node": {"selector": {}}, "volume": {"name": "v"}}]),
            |r| r.external = true,
            Reason::InvalidSpec,
        ),
    ];
    for (what, source, destinations, change, reason) in refused {
        let mut world = from(source, destinations);
        region(&mut world, "r", "c", change);
        catch_up(&mut world);
        world.pass(2);
        catch_up(&mut world);
        assert!(world.tasks.is_empty(), "{what}: {:#?}", world.log);
        let status = world.status();
        let ready = condition::find(&status.conditions, condition::READY).unwrap();
        let final_ = reason.class() == nixl_transfer_crds::reason::Class::Final;
        assert_eq!(ready.reason, reason.as_str(), "{what}: {}", ready.message);
        assert_eq!(world.is(condition::FAILED), final_, "{what}: {}", ready.message);
    }
}

#[test]
fn lengths_are_compared_before_anything_starts() {
    type Sizes = (Option<u64>, u64, bool);
    let cases: [(Sizes, bool); 5] = [
        ((Some(MIB), MIB, false), true),
        ((Some(MIB - 1), MIB, false), true),
        ((Some(MIB + 1), MIB, false), false),
        ((Some(MIB), MIB, true), true),
        ((Some(MIB - 1), MIB, true), false),
    ];
    for ((content, size, external), fits) in cases {
        let mut world = from(Some("from"), to_memory("to"));
        region(&mut world, "from", "a", |region| region.content = content);
        region(&mut world, "to", "b", |region| (region.size, region.external) = (size, external));
        catch_up(&mut world);
        let reason = world.status().conditions.iter().find(|c| c.type_ == "Ready").unwrap().reason.clone();
        assert_eq!(
            world.tasks.len(),
            usize::from(fits),
            "{content:?} into {size}, external {external}: {reason}"
        );
        assert_eq!(reason == "LengthMismatch", !fits, "{reason}");
    }
}

#[test]
fn a_region_that_is_deleted_ends_the_attempt_and_one_made_again_is_another() {
    let mut world = from(None, to_memory("r"));
    region(&mut world, "r", "b", |_| {});
    catch_up(&mut world);
    let first = only_task(&world);
    let old = world.cluster.regions.remove(&("ns".to_string(), "r".to_string())).unwrap();
    catch_up(&mut world);
    world.agents(false);
    world.pass(2);
    catch_up(&mut world);
    assert!(world.tasks.get(&first).is_none_or(|task| task.spec.cancel), "{:#?}", world.log);
    let status = world.status();
    assert_eq!(status.phase, Some(Phase::Pending));
    assert_eq!(condition::find(&status.conditions, condition::READY).unwrap().reason, "RegionNotFound");

    region(&mut world, "r", "b", |region| region.uid = format!("{}-again", old.uid));
    run(&mut world);
    assert!(world.is(condition::COMPLETE), "{:#?}", world.log);
    let task = world.tasks.values().max_by_key(|task| task.spec.attempt).unwrap();
    let memory = task.spec.target.place.memory().unwrap();
    assert_eq!(memory.uid, "uid-of-r-again");
}

#[test]
fn what_an_external_region_gave_without_a_digest_is_complete_and_unverified() {
    for unverified in [false, true] {
        let mut world = from(Some("r"), json!([at("one", "b")]));
        region(&mut world, "r", "a", |region| (region.external, region.unverified) = (true, unverified));
        run(&mut world);
        assert!(world.is(condition::COMPLETE), "{:#?}", world.log);
        let status = world.status();
        let expected = if unverified { "Unverified" } else { "Succeeded" };
        assert_eq!(condition::find(&status.conditions, condition::READY).unwrap().reason, expected);
        assert_eq!(status.destinations[0].reason.as_deref(), unverified.then_some("Unverified"));
    }
}

#[test]
fn a_region_made_again_after_its_success_is_not_served_by_it() {
    let mut world = from(None, json!([{"name": "m", "memory": {"name": "r"}}, at("f", "c")]));
    world.job.as_mut().unwrap().spec.transport.fan_out = nixl_transfer_crds::FanOut::Direct;
    world.behaviour.insert("c".into(), crate::model::Behaviour::Hangs);
    region(&mut world, "r", "b", |_| {});
    run(&mut world);
    world.pass(6);
    catch_up(&mut world);
    assert_eq!(world.status().nodes.unwrap().succeeded, 1, "{:#?}", world.log);
    world.pass(700);
    region(&mut world, "r", "b", |region| region.uid = "another".into());
    run(&mut world);
    let into: Vec<_> = world.tasks.values().filter(|task| task.spec.target.destination == "m").collect();
    let last = into.iter().max_by_key(|task| task.spec.attempt).unwrap();
    assert_eq!((last.spec.attempt, last.spec.failures), (1, 0), "{:#?}", world.log);
    assert_eq!(last.spec.target.place.memory().unwrap().uid, "another");
}

#[test]
fn what_a_region_has_received_stays_received_and_shown_when_it_is_gone() {
    let mut world = from(None, to_memory("r"));
    region(&mut world, "r", "b", |_| {});
    world.operate(usize::MAX);
    while world.agents(true) {}
    world.cluster.regions.clear();
    catch_up(&mut world);
    assert!(world.is(condition::COMPLETE), "{:#?}", world.log);
    let status = world.status();
    assert_eq!(status.nodes.unwrap().succeeded, 1);
    assert_eq!(status.destinations[0].node, "b");
}

#[test]
fn a_region_that_goes_late_in_a_run_is_waited_for_from_then_on() {
    let mut world = from(None, to_memory("r"));
    region(&mut world, "r", "b", |_| {});
    catch_up(&mut world);
    world.pass(90);
    world.edit(|job| job.spec.progress_deadline_seconds = 10_000);
    catch_up(&mut world);
    world.pass(500);
    let gone = world.cluster.regions.remove(&("ns".to_string(), "r".to_string())).unwrap();
    catch_up(&mut world);
    world.agents(false);
    catch_up(&mut world);
    world.pass(20);
    catch_up(&mut world);
    assert!(!world.is(condition::FAILED), "{:#?}", world.log);
    region(&mut world, "r", "b", |region| region.uid = format!("{}-again", gone.uid));
    run(&mut world);
    assert!(world.is(condition::COMPLETE), "{:#?}", world.log);
}

#[test]
fn an_attempt_that_has_run_for_hours_has_time_to_end_when_its_region_goes() {
    for agent_is_gone in [false, true] {
        let mut world = from(None, to_memory("r"));
        world.edit(|job| job.spec.progress_deadline_seconds = 100_000);
        region(&mut world, "r", "b", |_| {});
        catch_up(&mut world);
        let task = only_task(&world);
        for target in [false, true] {
            world.report(&task, target, SideState::Active, None);
        }
        catch_up(&mut world);
        world.pass(7_200);
        world.cluster.regions.clear();
        if agent_is_gone {
            world.lose("b");
        }
        catch_up(&mut world);
        world.pass(1);
        catch_up(&mut world);
        assert!(world.tasks[&task].spec.cancel && !world.is(condition::FAILED), "{:#?}", world.log);
        world.agents(false);
        catch_up(&mut world);
        region(&mut world, "r", "b", |region| region.uid = "another".into());
        world.find("b", agent_is_gone);
        world.cluster.regions.values_mut().for_each(|region| {
            region.instance = world.cluster.nodes["b"].agent.as_ref().unwrap().instance.clone();
        });
        world.settle();
        assert!(world.is(condition::COMPLETE), "{:#?}", world.log);
    }
}
