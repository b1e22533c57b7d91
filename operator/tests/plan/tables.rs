//! Single decisions, each by name: what is written, when, and in which words.

use nixl_transfer_crds::{
    condition,
    job::status::{DestinationState, Phase},
    task::{SideState, status::TargetSide},
};
use serde_json::{Value, json};
use transfer_operator::{cluster::Liveness, plan::Action};

use crate::model::{Behaviour, World, at, catch_up, everywhere, job, redirect};

pub fn only_task(world: &World) -> String {
    assert_eq!(world.tasks.len(), 1, "{:#?}", world.log);
    world.tasks.keys().next().unwrap().clone()
}

pub fn target(world: &World, task: &str) -> TargetSide {
    world.tasks[task].status.clone().unwrap().target.unwrap()
}

#[test]
fn a_quick_job_costs_a_first_status_a_task_and_a_last_status() {
    let mut world = World::new(job(json!([at("one", "b")])));
    let first = world.plan();
    let status = first.status.clone().unwrap();
    let ready = condition::find(&status.conditions, condition::READY).unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("Unknown", "Pending"));
    assert!(condition::is_true(&status.conditions, condition::RECONCILING));
    assert_eq!((status.run, status.source.unwrap().node.as_str()), (1, "a"));
    assert!(matches!(first.actions[..], [Action::Create(_)]));

    world.operate(usize::MAX);
    while world.agents(true) {
        world.operate(usize::MAX);
    }
    catch_up(&mut world);
    assert!(world.is(condition::COMPLETE));
    let writes: Vec<_> =
        world.log.iter().filter(|line| line.contains(" status ") || line.contains("Create(")).collect();
    assert_eq!(writes.len(), 3, "{writes:#?}");
    assert_eq!(world.status().phase, Some(Phase::Complete));
    assert_eq!(world.status().progress.unwrap().summary, "100% 1/1 nodes");
}

#[test]
fn what_stands_in_the_way_is_said_and_ends_in_time_or_at_once() {
    let volume =
        |name: &str| json!([{"name": "one", "node": {"name": "b"}, "volume": {"name": name, "path": "to"}}]);
    let nowhere = json!([{"name": "one", "node": {"selector": {"matchLabels": {"role": "none"}}}, "volume": {"name": "v"}}]);
    type Change = fn(&mut World);
    let nothing: Change = |_| {};
    let waiting: [(Value, Change, &str); 7] = [
        (json!([at("one", "nowhere")]), nothing, "NodeNotFound"),
        (nowhere, nothing, "NoNodeMatches"),
        (volume("absent"), nothing, "VolumeNotFound"),
        (json!([at("one", "b")]), |world| world.lose("b"), "AgentNotReady"),
        (json!([at("one", "b")]), |world| world.lose("a"), "AgentNotReady"),
        (
            json!([at("one", "b")]),
            |world| world.cluster.nodes.get_mut("b").unwrap().lease = Liveness::Unproven,
            "AgentNotReady",
        ),
        (
            json!([at("one", "b")]),
            |world| {
                world.cluster.nodes.get_mut("b").unwrap().agent.as_mut().unwrap().unready =
                    Some("drained".into());
            },
            "AgentNotReady",
        ),
    ];
    for (destinations, change, reason) in waiting {
        let mut world = World::new(job(destinations));
        change(&mut world);
        catch_up(&mut world);
        world.pass(2);
        catch_up(&mut world);
        assert_eq!((world.reason().as_str(), world.status().phase), (reason, Some(Phase::Pending)));
        assert!(world.tasks.is_empty());
        world.pass(597);
        catch_up(&mut world);
        assert!(!world.is(condition::FAILED), "{reason}: too early");
        world.pass(1);
        catch_up(&mut world);
        assert!(world.is(condition::FAILED), "{reason}: too late");
        assert_eq!(world.reason(), "DeadlineExceeded");
        let message = condition::find(&world.status().conditions, condition::READY).unwrap().message.clone();
        assert!(message.contains(reason) && message.contains("pendingDeadlineSeconds"), "{message}");
    }
    let inside =
        |path: &str| json!([{"name": "one", "node": {"name": "a"}, "volume": {"name": "v", "path": path}}]);
    let at_once = [
        (volume("private"), "VolumeForbidden"),
        (volume("read-only"), "VolumeReadOnly"),
        (inside("./from/"), "SameEndpoint"),
        (inside("from/deeper"), "SameEndpoint"),
        (inside(""), "SameEndpoint"),
    ];
    for (destinations, reason) in at_once {
        let mut world = World::new(job(destinations));
        catch_up(&mut world);
        assert!(world.is(condition::FAILED) && world.is(condition::STALLED));
        assert_eq!(world.reason(), reason);
        assert!(world.tasks.is_empty());
    }
}

#[test]
fn the_sources_own_node_is_served_when_it_is_one_of_many() {
    let mut world = World::new(job(json!([everywhere("all", "from")])));
    world.settle();
    assert!(world.is(condition::COMPLETE));
    let nodes = world.status().nodes.unwrap();
    assert_eq!((nodes.desired, nodes.succeeded, world.tasks.len()), (3, 3, 2));

    let mut alone = World::new(job(json!([everywhere("all", "from")])));
    alone.cluster.nodes.retain(|name, _| name == "a");
    alone.settle();
    assert_eq!(alone.reason(), "SameEndpoint");
}

#[test]
fn a_failed_half_fences_before_the_next_attempt() {
    let mut world = World::new(job(json!([at("one", "b")])));
    catch_up(&mut world);
    let first = only_task(&world);
    world.report(&first, true, SideState::Failed, Some("IoError"));
    catch_up(&mut world);
    assert!(world.tasks[&first].spec.cancel, "the other half is asked to end");
    world.pass(60);
    catch_up(&mut world);
    assert_eq!(world.tasks.len(), 1, "and nothing starts before it has");
    world.report(&first, false, SideState::Cancelled, None);
    catch_up(&mut world);
    assert_eq!(world.tasks.len(), 1, "then a pause");
    world.pass(11);
    catch_up(&mut world);
    let second = world.tasks.values().find(|task| task.spec.attempt == 1).expect("the next attempt");
    assert_eq!((second.spec.failures, world.tasks.len()), (1, 1), "and the older one is deleted");
}

#[test]
fn success_of_the_target_counts_whatever_the_source_says() {
    for source in [None, Some(SideState::Active), Some(SideState::Failed)] {
        let mut world = World::new(job(json!([at("one", "b")])));
        catch_up(&mut world);
        let task = only_task(&world);
        if let Some(state) = source {
            world.report(&task, false, state, Some("PeerLost"));
        }
        world.report(&task, true, SideState::Succeeded, None);
        catch_up(&mut world);
        assert!(world.is(condition::COMPLETE), "{source:?}");
        assert!(!world.tasks[&task].spec.cancel, "the source ends by itself");
        world.pass(61);
        catch_up(&mut world);
        assert_eq!(
            world.tasks[&task].spec.cancel,
            source != Some(SideState::Failed),
            "or is asked to, much later"
        );
    }
}

#[test]
fn the_root_cause_is_told_and_retried_or_not() {
    let cases = [
        ("PeerLost", "SourceNotFound", "SourceNotFound"),
        ("SourceChanged", "PeerLost", "BackoffLimitExceeded"),
        ("DestinationExists", "PeerLost", "DestinationExists"),
        ("NeverHeardOf", "PeerLost", "BackoffLimitExceeded"),
    ];
    for (target, source, reason) in cases {
        let mut world = World::new(job(json!([at("one", "b")])));
        world.job.as_mut().unwrap().spec.backoff_limit = 0;
        catch_up(&mut world);
        let task = only_task(&world);
        world.report(&task, true, SideState::Failed, Some(target));
        world.report(&task, false, SideState::Failed, Some(source));
        catch_up(&mut world);
        assert_eq!(world.reason(), reason, "{target} {source}");
    }
}

#[test]
fn failures_are_counted_to_the_limit_and_cancelled_attempts_are_not() {
    let mut world = World::new(job(json!([at("one", "b"), at("two", "c")])));
    world.behaviour.insert("b".into(), Behaviour::Fails("IoError"));
    catch_up(&mut world);
    world.agents(false);
    world.edit(|job| job.spec.suspend = true);
    catch_up(&mut world);
    world.agents(true);
    catch_up(&mut world);
    assert!(world.is(condition::SUSPENDED));
    world.edit(|job| job.spec.suspend = false);
    world.settle();
    assert!(world.is(condition::FAILED));
    assert_eq!(world.reason(), "BackoffLimitExceeded");
    let last = world.tasks.values().find(|task| task.spec.target.node_name == "b").unwrap();
    assert_eq!((last.spec.failures, last.spec.attempt), (3, 4), "four failures and one cancelled attempt");
    let status = world.status();
    assert_eq!(
        status.destinations.iter().map(|entry| entry.state).collect::<Vec<_>>(),
        [DestinationState::Failed, DestinationState::Succeeded]
    );
}

#[test]
fn an_agent_that_is_gone_gets_a_verdict_once_and_the_hop_goes_on_when_it_is_back() {
    let mut world = World::new(job(json!([at("one", "b")])));
    catch_up(&mut world);
    let task = only_task(&world);
    world.agents(true);
    world.lose("b");
    catch_up(&mut world);
    let verdict = world.tasks[&task].status.clone().unwrap().verdict.unwrap();
    assert_eq!(verdict.reason, "AgentNotReady");
    assert!(world.tasks[&task].spec.cancel);
    world.pass(300);
    world.agents(true);
    catch_up(&mut world);
    assert!(world.tasks.values().all(|task| task.spec.attempt == 0), "no agent, no attempt");
    world.find("b", true);
    world.settle();
    assert!(world.is(condition::COMPLETE));
}

#[test]
fn a_source_by_selector_is_the_least_busy_and_stays() {
    let mut job = job(json!([at("one", "c")]));
    job.spec.source.node =
        serde_json::from_value(json!({"selector": {"matchLabels": {"role": "data"}}})).unwrap();
    let mut world = World::new(job);
    catch_up(&mut world);
    assert_eq!(world.status().source.unwrap().node, "a");
    let task = only_task(&world);
    world.lose("a");
    catch_up(&mut world);
    assert_eq!(world.status().source.unwrap().node, "b", "chosen again when nothing had arrived");
    assert!(world.tasks[&task].status.as_ref().unwrap().verdict.is_some());
    world.settle();
    assert!(world.is(condition::COMPLETE));
}

#[test]
fn slots_bound_what_runs_and_queued_hops_do_not_run_out_of_time() {
    let destinations: Vec<_> = (0..6)
        .map(|index| json!({"name": format!("d{index}"), "node": {"name": "b"}, "volume": {"name": "v", "path": format!("to{index}")}}))
        .collect();
    let mut world = World::new(job(json!(destinations)));
    catch_up(&mut world);
    assert_eq!(world.tasks.len(), 4);
    let plan = world.plan();
    assert_eq!((plan.blocked_on.as_slice(), plan.queued.len()), (&["a".to_string(), "a".into()][..], 2));
    for _ in 0..20 {
        world.pass(100);
        let moving: Vec<_> = world.tasks.keys().cloned().collect();
        for task in moving {
            world.report(&task, true, SideState::Active, None);
            world.report(&task, false, SideState::Active, None);
        }
        catch_up(&mut world);
    }
    assert!(!world.is(condition::FAILED) && world.tasks.len() == 4);
    let first = world.tasks.keys().next().unwrap().clone();
    world.report(&first, true, SideState::Succeeded, None);
    world.report(&first, false, SideState::Succeeded, None);
    catch_up(&mut world);
    assert_eq!(world.tasks.len(), 5);
}

#[test]
fn a_new_run_waits_for_the_old_one_and_removes_it() {
    type Change = fn(&mut nixl_transfer_crds::TransferJob);
    let changes: [Change; 2] =
        [|job| job.spec.trigger = "again".into(), |job| redirect(job, |_| "elsewhere".into())];
    for change in changes {
        let mut world = World::new(job(json!([at("one", "b")])));
        catch_up(&mut world);
        world.agents(true);
        let old = only_task(&world);
        world.edit(change);
        catch_up(&mut world);
        assert_eq!((world.status().run, only_task(&world)), (2, old.clone()), "fenced");
        assert!(world.tasks[&old].spec.cancel);
        world.settle();
        assert!(world.is(condition::COMPLETE));
        assert_eq!(world.tasks[&only_task(&world)].spec.run, 2);
    }
}

#[test]
fn tuning_starts_no_run_and_is_still_acknowledged() {
    let mut world = World::new(job(json!([at("one", "b")])));
    world.settle();
    world.pass(10);
    world.edit(|job| job.spec.backoff_limit = 7);
    catch_up(&mut world);
    let status = world.status();
    assert_eq!((status.run, status.observed_generation), (1, Some(2)));
    assert!(status.conditions.iter().all(|condition| condition.observed_generation == Some(2)));
    assert!(world.is(condition::COMPLETE));
}

#[test]
fn a_node_that_leaves_is_dropped_for_a_selector_and_a_new_one_is_served() {
    let mut world = World::new(job(json!([everywhere("all", "to")])));
    world.cluster.nodes.remove("c");
    world.behaviour.insert("a".into(), Behaviour::Hangs);
    catch_up(&mut world);
    assert_eq!(world.tasks.len(), 2);
    world.cluster.nodes.remove("b");
    world.join("c");
    world.behaviour.insert("a".into(), Behaviour::Works);
    world.settle();
    assert!(world.is(condition::COMPLETE));
    let mut nodes: Vec<_> = world.tasks.values().map(|task| task.spec.target.node_name.as_str()).collect();
    nodes.sort_unstable();
    assert_eq!(nodes, ["a", "c"]);
}

#[test]
fn an_agent_that_ends_without_being_asked_has_failed() {
    let mut world = World::new(job(json!([at("one", "b")])));
    catch_up(&mut world);
    let task = only_task(&world);
    world.report(&task, true, SideState::Cancelled, None);
    world.report(&task, false, SideState::Prepared, None);
    catch_up(&mut world);
    assert_eq!(world.tasks[&task].status.clone().unwrap().verdict.unwrap().reason, "WorkerLost");
}
