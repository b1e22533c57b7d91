//! Chains, decision by decision: who is in one, how the tasks name each other, what the status says. What follows when
//! one breaks is in `breaks`, when one stands still in `clocks`.

mod breaks;
mod clocks;

use nixl_transfer_crds::{FanOut, TransferTask, condition, task::SideState};
use serde_json::{Value, json};
use transfer_operator::plan::Action;

use crate::model::{World, at, catch_up, everywhere, job};

/// A world with a job from `a` to all of these nodes; `a` has the data, being the source.
fn to_all(nodes: &[&str]) -> World {
    World::with(job(json!([everywhere("all", "from")])), nodes)
}

/// The latest attempt for a node.
fn of<'a>(world: &'a World, node: &str) -> &'a TransferTask {
    let tasks = world.tasks.values().filter(|task| task.spec.target.node_name == node);
    tasks.max_by_key(|task| task.spec.attempt).unwrap_or_else(|| panic!("{node}: {:#?}", world.log))
}

fn name(task: &TransferTask) -> String {
    task.metadata.name.clone().unwrap()
}

/// Who sends to whom, "a>b>c d>e" or, straight from the source, "a:b", in the tasks that the actions create; checks that
/// what belongs together names each other.
fn created(actions: &[Action]) -> String {
    let mut words = Vec::new();
    for action in actions {
        let Action::Create(tasks) = action else { continue };
        let tail_first: Vec<&TransferTask> = tasks.iter().collect();
        let head = tail_first.last().unwrap();
        assert_eq!(head.spec.source.relay, None);
        let mut word = head.spec.source.node_name.clone();
        for (at, task) in tail_first.iter().rev().enumerate() {
            let (sends, receives) = (&task.spec.source, &task.spec.target);
            let chained = tail_first.len() > 1;
            assert_eq!(task.spec.transport.fan_out, if chained { FanOut::Chain } else { FanOut::Direct });
            word = format!("{word}{}{}", if chained { ">" } else { ":" }, receives.node_name);
            assert_eq!(sends.place, head.spec.source.place, "what is moved is that of the job");
            let next = tail_first.iter().rev().nth(at + 1);
            assert_eq!(receives.forward_to, next.map(|next| name(next)));
            if let Some(next) = next {
                assert_eq!(next.spec.source.relay.as_ref().unwrap().task_name, name(task));
                assert_eq!(next.spec.source.node_name, receives.node_name);
                assert_eq!(next.spec.source.instance, receives.instance);
            }
        }
        words.push(word);
    }
    words.join(" ")
}

/// What the next plan creates; the plan is carried out.
fn next(world: &mut World) -> String {
    let actions = world.plan().actions;
    world.operate(usize::MAX);
    created(&actions)
}

fn labels(world: &mut World, node: &str, zone: &str, rack: &str) {
    let labels = &mut world.cluster.nodes.get_mut(node).unwrap().labels;
    labels.insert("topology.kubernetes.io/zone".into(), zone.into());
    labels.insert("rack".into(), rack.into());
}

/// A world in which the chain a>b>c>d>e moves bytes.
fn moving() -> World {
    let mut world = to_all(&["a", "b", "c", "d", "e"]);
    assert_eq!(next(&mut world), "a>b>c>d>e");
    // Each node's bytes move one step after those of the one before.
    for _ in 0..8 {
        let active = |node: &str| {
            let status = of(&world, node).status.clone().unwrap_or_default();
            status.target.is_some_and(|half| half.state == SideState::Active)
        };
        if ["b", "c", "d", "e"].iter().all(|node| active(node)) {
            break;
        }
        world.agents(true);
    }
    catch_up(&mut world);
    world
}

/// Attempt and failures of the latest task for a node.
fn counts(world: &World, node: &str) -> (i32, i32) {
    let task = of(world, node);
    (task.spec.attempt, task.spec.failures)
}

/// What operator and agents create until nobody has anything to do at this time.
fn all_at_once(world: &mut World) -> String {
    let mut words = Vec::new();
    for _ in 0..20 {
        let acted = world.agents(true);
        let actions = world.plan().actions;
        words.push(created(&actions));
        if !world.operate(usize::MAX).0 && !acted {
            break;
        }
    }
    words.retain(|word| !word.is_empty());
    words.join(" ")
}

/// Both halves of a node's task get to that state.
fn both(world: &mut World, node: &str, state: SideState) {
    let task = name(of(world, node));
    for target in [true, false] {
        world.report(&task, target, state, None);
    }
}

fn verdict(world: &World, node: &str) -> Option<String> {
    Some(of(world, node).status.clone()?.verdict?.reason)
}

#[test]
fn who_is_in_the_chain() {
    type Change = fn(&mut World);
    let cases: [(&str, Value, Change, &str); 12] = [
        ("one receiver", json!([at("one", "b")]), |_| {}, "a:b"),
        ("three receivers", json!([everywhere("all", "to")]), |_| {}, "a>b>c>d a:a"),
        (
            "said to be direct",
            json!([at("one", "b"), at("two", "c")]),
            |world| world.job.as_mut().unwrap().spec.transport.fan_out = FanOut::Direct,
            "a:b a:c",
        ),
        (
            "said to be a chain",
            json!([at("one", "c"), at("two", "b")]),
            |world| world.job.as_mut().unwrap().spec.transport.fan_out = FanOut::Chain,
            "a>b>c",
        ),
        (
            "two hops to one node",
            json!([at("one", "b"), {"name": "two", "node": {"name": "b"}, "volume": {"name": "v", "path": "too"}}, at("three", "c")]),
            |_| {},
            "a>b>c a:b",
        ),
        (
            "two hops to the only node",
            json!([at("one", "b"), {"name": "two", "node": {"name": "b"}, "volume": {"name": "v", "path": "too"}}]),
            |_| {},
            "a:b a:b",
        ),
        (
            "zone by zone, rack by rack",
            json!([at("one", "b"), at("two", "c"), at("three", "d")]),
            |world| {
                for (node, zone, rack) in [("a", "x", "1"), ("b", "y", "1"), ("c", "x", "2"), ("d", "x", "1")]
                {
                    labels(world, node, zone, rack);
                }
            },
            "a>d>c>b",
        ),
        (
            "who waits holds nobody back",
            json!([at("one", "b"), at("two", "c"), at("three", "d")]),
            |world| world.agent("c", |agent| agent.unready = Some("drained".into())),
            "a>b>d",
        ),
        (
            "one slot in all: a node may be a relay with the only one it has",
            json!([at("one", "b"), at("two", "c")]),
            |world| world.agent("b", |agent| agent.slots = 1),
            "a>b>c",
        ),
        (
            "no slot",
            json!([at("one", "b"), at("two", "c"), at("three", "d")]),
            |world| world.agent("b", |agent| agent.slots = 0),
            "a>c>d",
        ),
        (
            "the source needs one slot",
            json!([at("one", "b"), at("two", "c"), at("three", "d")]),
            |world| world.agent("a", |agent| agent.slots = 1),
            "a>b>c>d",
        ),
        (
            "the source has none",
            json!([at("one", "b"), at("two", "c")]),
            |world| world.agent("a", |agent| agent.slots = 0),
            "",
        ),
    ];
    for (what, destinations, change, expected) in cases {
        let mut world = World::with(job(destinations), &["a", "b", "c", "d"]);
        change(&mut world);
        assert_eq!(next(&mut world), expected, "{what}");
    }
}

#[test]
fn a_node_with_one_free_slot_is_the_end_of_the_chain_or_served_by_the_source() {
    // b and c each receive something in another run's place: of two slots one is left.
    let mut world =
        World::with(job(json!([at("one", "b"), at("two", "c"), at("three", "d")])), &["a", "b", "c", "d"]);
    for node in ["b", "c"] {
        world.agent(node, |agent| agent.slots = 2);
        world.others.push(node.into());
    }
    assert_eq!(next(&mut world), "a>d>b a:c");
    assert!(world.plan().blocked_on.is_empty());
}

#[test]
fn a_hop_that_can_start_later_forms_a_chain_with_the_others_of_its_moment() {
    let mut world = to_all(&["a", "b", "c"]);
    assert_eq!(next(&mut world), "a>b>c");
    for node in ["d", "e"] {
        world.join(node);
    }
    assert_eq!(next(&mut world), "a>d>e", "from the source, beside the first");
    world.join("f");
    assert_eq!(next(&mut world), "a:f");
    world.settle();
    assert!(world.is(condition::COMPLETE));
}

#[test]
fn a_node_that_still_receives_is_in_no_second_chain() {
    let late = json!({"name": "two", "node": {"name": "b"}, "volume": {"name": "late", "path": "to"}});
    let mut world = World::new(job(json!([at("one", "b"), late, at("three", "d")])));
    assert_eq!(next(&mut world), "a:b");
    world.agent("b", |agent| {
        let volume = agent.volumes["v"].clone();
        agent.volumes.insert("late".into(), volume);
    });
    world.join("d");
    assert_eq!(next(&mut world), "a:b a:d");
}

#[test]
fn a_chain_holds_a_slot_at_the_source_and_two_at_each_relay() {
    let mut world = to_all(&["a", "b", "c", "d"]);
    let taken = world.plan().slots_taken();
    let count = |node: &str| taken.iter().filter(|taken| *taken == node).count();
    assert_eq!(["a", "b", "c", "d"].map(count), [1, 2, 2, 1]);
}

#[test]
fn the_status_says_what_was_done() {
    let fan_out = |world: &World| world.status().transport.and_then(|used| used.fan_out).unwrap();
    let mut world = moving();
    world.pass(6);
    catch_up(&mut world);
    let status = world.status();
    assert_eq!((fan_out(&world).as_str(), status.source.unwrap().node.as_str()), ("Chain", "a"));
    let progress = status.progress.unwrap();
    assert_eq!((progress.bytes_total, progress.summary.as_str()), (400, "1% 1/5 nodes"));
    // Every hop is tried a last time straight from the source: it was a chain all the same.
    world.edit(|job| job.spec.backoff_limit = 1);
    for node in ["b", "c", "d", "e"] {
        let task = name(of(&world, node));
        world.report(&task, true, SideState::Failed, Some("IoError"));
    }
    world.settle();
    assert!(world.is(condition::COMPLETE));
    assert!(world.tasks.values().all(|task| task.spec.transport.fan_out == FanOut::Direct));
    assert_eq!((fan_out(&world).as_str(), world.status().source.unwrap().node.as_str()), ("Chain", "a"));
    assert_eq!(world.status().progress.unwrap().summary, "100% 5/5 nodes");

    let mut world = World::new(job(json!([at("one", "b")])));
    world.settle();
    assert_eq!(fan_out(&world), "Direct");
}
