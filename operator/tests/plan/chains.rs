//! Chains, decision by decision: who is in one, how the tasks name each other, and what follows when one breaks.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use nixl_transfer_crds::{FanOut, TransferTask, condition, task::SideState};
use serde_json::{Value, json};
use transfer_operator::plan::Action;

use crate::model::{World, at, everywhere, job};

/// A world with a job from `a` to all of these nodes; `a` has the data, being the source.
fn to_all(nodes: &[&str]) -> World {
    World::with(job(json!([everywhere("all", "from")])), nodes)
}

/// Plans until nothing is written at this time.
fn catch_up(world: &mut World) {
    while world.operate(usize::MAX).0 {}
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
            assert_eq!(sends.volume, head.spec.source.volume, "what is moved is that of the job");
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
fn a_chain_holds_a_slot_at_the_source_and_two_at_each_relay() {
    let mut world = to_all(&["a", "b", "c", "d"]);
    let taken = world.plan().slots_taken();
    let count = |node: &str| taken.iter().filter(|taken| *taken == node).count();
    assert_eq!(["a", "b", "c", "d"].map(count), [1, 2, 2, 1]);
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

#[test]
fn those_behind_a_node_that_fails_go_on_at_once_as_a_chain_from_the_source() {
    let mut world = moving();
    let first = name(of(&world, "b"));
    let failed = name(of(&world, "c"));
    world.report(&failed, true, SideState::Failed, Some("IoError"));
    assert_eq!(all_at_once(&mut world), "a>d>e", "{:#?}", world.log);
    assert_eq!(counts(&world, "d"), (1, 0), "not counted");
    assert_eq!(counts(&world, "e"), (1, 0), "not counted");
    assert_eq!((name(of(&world, "b")), counts(&world, "b")), (first, (0, 0)), "what is ahead goes on");
    assert_eq!(counts(&world, "c"), (0, 0), "who failed has a pause");
    world.pass(12);
    assert_eq!(all_at_once(&mut world), "a:c");
    assert_eq!(counts(&world, "c"), (1, 1), "and is counted");
    world.settle();
    assert!(world.is(condition::COMPLETE));
}

#[test]
fn a_node_that_dies_is_cut_out_before_its_lease_is_old() {
    let mut world = moving();
    world.kill("c");
    assert_eq!(all_at_once(&mut world), "a>d>e", "{:#?}", world.log);
    assert_eq!((counts(&world, "b"), counts(&world, "d"), counts(&world, "e")), ((0, 0), (1, 0), (1, 0)));
    let cut_off =
        world.tasks.values().find(|task| task.spec.target.node_name == "d" && task.spec.attempt == 0);
    assert!(cut_off.is_some_and(|task| task.spec.cancel), "the dead node's half is still to be fenced");
    world.pass(30);
    assert_eq!(all_at_once(&mut world), "", "its own hop waits for the Lease");
    world.pass(30);
    assert_eq!(all_at_once(&mut world), "");
    assert!(
        world.tasks.values().all(|task| task.spec.target.node_name != "d" || task.spec.attempt == 1),
        "released"
    );
    world.find("c", true);
    assert_eq!(all_at_once(&mut world), "");
    world.pass(12);
    assert_eq!(all_at_once(&mut world), "a:c");
    assert_eq!(counts(&world, "c"), (1, 1));
    world.settle();
    assert!(world.is(condition::COMPLETE));
}

#[test]
fn who_is_at_fault() {
    // What is reported of which node's task (true: its target half), then attempt and failures of b, c, d, e at the end.
    type Reports = &'static [(&'static str, bool, SideState, Option<&'static str>)];
    use SideState::{Cancelled, Failed, Succeeded};
    type Counts = [(i32, i32); 4];
    let cases: [(&str, Reports, Counts); 9] = [
        ("the end of the chain", &[("e", true, Failed, Some("IoError"))], [(0, 0), (0, 0), (0, 0), (1, 1)]),
        (
            "a lost peer with everything ahead going on",
            &[("e", true, Failed, Some("PeerLost"))],
            [(0, 0), (0, 0), (0, 0), (1, 1)],
        ),
        (
            "a lost peer whose relay had everything",
            &[("d", true, Succeeded, None), ("e", true, Failed, Some("PeerLost"))],
            [(0, 0), (0, 0), (0, 0), (1, 1)],
        ),
        ("the first", &[("b", true, Failed, Some("IoError"))], [(1, 1), (1, 0), (1, 0), (1, 0)]),
        ("the relay's worker", &[("d", true, Failed, Some("WorkerLost"))], [(0, 0), (0, 0), (1, 1), (1, 0)]),
        (
            "the one behind has reasons of its own",
            &[("c", true, Failed, Some("IoError")), ("d", true, Failed, Some("IntegrityError"))],
            [(0, 0), (1, 1), (1, 1), (1, 0)],
        ),
        (
            "the relay's half of the hop that failed",
            &[("c", true, Failed, Some("AgentRestarted")), ("d", false, Failed, Some("AgentRestarted"))],
            [(0, 0), (1, 1), (1, 0), (1, 0)],
        ),
        (
            "the source's half does not touch what is ahead of it",
            &[("d", false, Failed, Some("PeerLost"))],
            [(0, 0), (0, 0), (1, 1), (1, 0)],
        ),
        (
            "an agent that ended its half unasked",
            &[("c", true, Cancelled, None)],
            [(0, 0), (1, 1), (1, 0), (1, 0)],
        ),
    ];
    for (what, reports, expected) in cases {
        let mut world = moving();
        for (node, target, state, reason) in reports {
            let task = name(of(&world, node));
            world.report(&task, *target, *state, *reason);
        }
        catch_up(&mut world);
        world.settle();
        assert!(world.is(condition::COMPLETE), "{what}");
        let got = ["b", "c", "d", "e"].map(|node| counts(&world, node));
        assert_eq!(got, expected, "{what}: {:#?}", world.log);
    }
}

#[test]
fn hops_behind_a_break_wait_a_little_to_be_one_chain_again() {
    let mut world = moving();
    let [c, d, e] = ["c", "d", "e"].map(|node| name(of(&world, node)));
    world.report(&c, true, SideState::Failed, Some("IoError"));
    catch_up(&mut world);
    assert!([&d, &e].iter().all(|task| world.tasks[*task].spec.cancel), "both end together");
    let verdict = world.tasks[&e].status.clone().unwrap().verdict.unwrap();
    assert_eq!((verdict.reason.as_str(), verdict.message.contains("node c")), ("PeerLost", true));
    world.report(&d, true, SideState::Cancelled, None);
    catch_up(&mut world);
    assert_eq!(counts(&world, "d"), (0, 0), "e is about to end");
    world.report(&e, true, SideState::Cancelled, None);
    world.report(&e, false, SideState::Cancelled, None);
    assert_eq!(next(&mut world), "a>d>e");

    let mut world = moving();
    let [c, d] = ["c", "d"].map(|node| name(of(&world, node)));
    world.report(&c, true, SideState::Failed, Some("IoError"));
    catch_up(&mut world);
    world.report(&d, true, SideState::Cancelled, None);
    catch_up(&mut world);
    world.pass(4);
    assert_eq!(next(&mut world), "");
    world.pass(1);
    assert_eq!(next(&mut world), "a:d", "but not for long");
}

#[test]
fn attempts_that_do_not_count_are_bounded() {
    let mut world = to_all(&["a", "b", "c"]);
    assert_eq!(next(&mut world), "a>b>c");
    for attempt in 0..9 {
        assert_eq!((attempt, counts(&world, "c")), (attempt, (attempt, 0)));
        // Someone ends the hop ahead again and again, which counts for nobody.
        let [ahead, behind] = ["b", "c"].map(|node| name(of(&world, node)));
        world.tasks.get_mut(&ahead).unwrap().metadata.deletion_timestamp = Some(Time(world.now));
        for target in [false, true] {
            world.report(&ahead, target, SideState::Cancelled, None);
            world.report(&behind, target, SideState::Failed, Some("PeerLost"));
        }
        match attempt {
            0..8 => assert_eq!(next(&mut world), "a>b>c", "{attempt} {:#?}", world.log),
            _ => {
                assert_eq!(next(&mut world), "a:b", "now that of c counts, and has a pause");
                world.pass(12);
                assert_eq!(next(&mut world), "a:c");
                break;
            }
        }
    }
    assert_eq!(counts(&world, "c"), (9, 1));
}

#[test]
fn the_last_attempt_depends_on_nobody_else() {
    let mut world = moving();
    world.edit(|job| job.spec.backoff_limit = 1);
    let failed = name(of(&world, "c"));
    world.report(&failed, true, SideState::Failed, Some("IoError"));
    let also = name(of(&world, "b"));
    world.report(&also, true, SideState::Failed, Some("IoError"));
    all_at_once(&mut world);
    world.pass(12);
    let mut words: Vec<_> = all_at_once(&mut world).split(' ').map(str::to_string).collect();
    words.sort();
    assert_eq!(words, ["a:b", "a:c"]);
}

#[test]
fn a_chain_that_is_written_by_halves_is_made_again() {
    for writes in 0..6 {
        let mut world = to_all(&["a", "b", "c", "d", "e"]);
        world.operate(writes);
        world.settle();
        assert!(world.is(condition::COMPLETE), "{writes}");
        for node in ["b", "c", "d", "e"] {
            assert_eq!(counts(&world, node).1, 0, "{writes}: {node}");
        }
    }
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
    // Every hop is retried straight from the source: it was a chain all the same.
    for node in ["b", "c", "d", "e"] {
        let task = name(of(&world, node));
        world.report(&task, true, SideState::Failed, Some("IoError"));
        catch_up(&mut world);
        world.settle();
    }
    assert!(world.is(condition::COMPLETE));
    assert_eq!((fan_out(&world).as_str(), world.status().source.unwrap().node.as_str()), ("Chain", "a"));
    assert_eq!(world.status().progress.unwrap().summary, "100% 5/5 nodes");

    let mut world = World::new(job(json!([at("one", "b")])));
    world.settle();
    assert_eq!(fan_out(&world), "Direct");
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
fn nobody_stands_still_while_another_of_the_chain_is_not_ready() {
    let mut world = to_all(&["a", "b", "c", "d"]);
    catch_up(&mut world);
    both(&mut world, "b", SideState::Active);
    both(&mut world, "d", SideState::Prepared);
    let waits = name(of(&world, "c"));
    world.report(&waits, true, SideState::Pending, None);
    catch_up(&mut world);
    world.pass(599);
    catch_up(&mut world);
    assert_eq!(["b", "c", "d"].map(|node| verdict(&world, node)), [None, None, None]);
    world.pass(1);
    catch_up(&mut world);
    let verdicts = ["b", "c", "d"].map(|node| verdict(&world, node));
    assert_eq!(verdicts, [None, Some("DeadlineExceeded".into()), Some("PeerLost".into())]);
    // From here on the clock of b runs: 120 s and 30 s for its agents to say it themselves.
    world.pass(149);
    catch_up(&mut world);
    assert_eq!(verdict(&world, "b"), None);
    world.pass(1);
    catch_up(&mut world);
    assert_eq!(verdict(&world, "b").as_deref(), Some("ProgressDeadlineExceeded"));
}

#[test]
fn a_node_that_waits_for_something_outside_is_taken_out_of_its_chain() {
    let mut world = to_all(&["a", "b", "c", "d", "e"]);
    catch_up(&mut world);
    let waits = name(of(&world, "c"));
    world.report(&waits, true, SideState::Pending, Some("DestinationBusy"));
    for node in ["b", "d", "e"] {
        both(&mut world, node, SideState::Prepared);
    }
    catch_up(&mut world);
    world.pass(9);
    catch_up(&mut world);
    assert_eq!(verdict(&world, "c"), None, "it may be over soon");
    world.pass(1);
    catch_up(&mut world);
    assert_eq!(verdict(&world, "c").as_deref(), Some("DestinationBusy"));
    world.agents(false);
    assert_eq!(next(&mut world), "a>d>e a:c", "{:#?}", world.log);
    let expected = [(0, 0), (1, 0), (1, 0), (1, 0)];
    assert_eq!(["b", "c", "d", "e"].map(|node| counts(&world, node)), expected, "nobody is at fault");

    // Alone it waits as long as the job allows.
    let waits = name(of(&world, "c"));
    world.report(&waits, true, SideState::Pending, Some("DestinationBusy"));
    catch_up(&mut world);
    world.pass(599);
    world.report(&waits, true, SideState::Pending, Some("DestinationBusy"));
    catch_up(&mut world);
    assert_eq!((verdict(&world, "c"), counts(&world, "c")), (None, (1, 0)));
}

#[test]
fn a_relay_that_has_every_byte_may_still_send_on() {
    let mut world = to_all(&["a", "b", "c"]);
    catch_up(&mut world);
    for node in ["b", "c"] {
        both(&mut world, node, SideState::Active);
    }
    let relay = name(of(&world, "b"));
    let all = |world: &mut World| {
        let status = world.tasks.get_mut(&relay).unwrap().status.as_mut().unwrap();
        status.target.as_mut().unwrap().bytes_done = Some(100);
    };
    all(&mut world);
    catch_up(&mut world);
    world.pass(149);
    catch_up(&mut world);
    assert_eq!([verdict(&world, "b"), verdict(&world, "c")], [None, None]);
    world.pass(1);
    catch_up(&mut world);
    let late = Some("ProgressDeadlineExceeded".to_string());
    assert_eq!([verdict(&world, "b"), verdict(&world, "c")], [None, late], "60 s more, and then some");
    world.pass(120 + 60);
    catch_up(&mut world);
    assert_eq!(verdict(&world, "b"), None);
    world.settle();
    assert!(world.is(condition::COMPLETE));
    assert_eq!((counts(&world, "b"), counts(&world, "c")), ((0, 0), (1, 1)));
}

#[test]
fn a_task_whose_relay_is_gone_for_good_is_released() {
    let mut world = moving();
    world.cluster.nodes.remove("c");
    world.settle();
    assert!(world.is(condition::COMPLETE), "{:#?}", world.log);
    let nodes: Vec<&str> = world.tasks.values().map(|task| task.spec.target.node_name.as_str()).collect();
    assert!(nodes.len() == 3 && !nodes.contains(&"c"), "{nodes:?}");
    assert_eq!(counts(&world, "d"), (1, 0));
    world.job = None;
    world.settle();
    assert!(world.tasks.is_empty());
}

#[test]
fn a_job_that_is_suspended_or_changed_ends_all_of_its_chain() {
    type Change = fn(&mut nixl_transfer_crds::TransferJob);
    let changes: [Change; 2] = [|job| job.spec.suspend = true, |job| job.spec.trigger = "again".into()];
    for change in changes {
        let mut world = moving();
        let old: Vec<String> = world.tasks.keys().cloned().collect();
        world.edit(change);
        catch_up(&mut world);
        assert!(old.iter().all(|task| world.tasks[task].spec.cancel));
        world.settle();
        world.edit(|job| job.spec.suspend = false);
        world.settle();
        assert!(world.is(condition::COMPLETE));
        assert_eq!(["b", "c", "d", "e"].map(|node| counts(&world, node).1), [0; 4], "{:#?}", world.log);
    }
}
