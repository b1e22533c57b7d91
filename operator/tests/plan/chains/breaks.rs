//! When a chain breaks: who goes on at once, who is at fault, what is released.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use nixl_transfer_crds::{condition, task::SideState};

use crate::model::catch_up;

use super::{all_at_once, counts, moving, name, next, of, to_all};

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
fn who_was_sent_everything_goes_on_whatever_becomes_of_those_ahead() {
    // The relays of b and c are done; d still gets its last bytes from c, which has them.
    let mut world = moving();
    let [b, c, d, e] = ["b", "c", "d", "e"].map(|node| name(of(&world, node)));
    world.report(&b, false, SideState::Succeeded, None);
    world.report(&c, false, SideState::Succeeded, None);
    world.report(&b, true, SideState::Failed, Some("IoError"));
    catch_up(&mut world);
    for task in [&c, &d, &e] {
        let task = &world.tasks[task];
        let verdict = task.status.as_ref().and_then(|status| status.verdict.as_ref());
        assert_eq!((task.spec.cancel, verdict), (false, None), "{:#?}", world.log);
    }
    world.settle();
    assert!(world.is(condition::COMPLETE));
    let got = ["b", "c", "d", "e"].map(|node| counts(&world, node));
    assert_eq!(got, [(1, 1), (0, 0), (0, 0), (0, 0)], "{:#?}", world.log);

    // What fails by itself after that is a break like any other.
    let mut world = moving();
    let [b, c] = ["b", "c"].map(|node| name(of(&world, node)));
    world.report(&c, false, SideState::Succeeded, None);
    world.report(&b, true, SideState::Failed, Some("IoError"));
    world.report(&c, true, SideState::Failed, Some("IoError"));
    catch_up(&mut world);
    world.settle();
    let got = ["b", "c", "d", "e"].map(|node| counts(&world, node));
    assert_eq!(got, [(1, 1), (1, 1), (1, 0), (1, 0)], "{:#?}", world.log);

    // The relay's half may come in after the verdict: then it is still nobody's fault.
    let mut world = moving();
    let [b, c] = ["b", "c"].map(|node| name(of(&world, node)));
    world.report(&b, true, SideState::Failed, Some("IoError"));
    catch_up(&mut world);
    world.report(&c, false, SideState::Succeeded, None);
    world.settle();
    assert_eq!((counts(&world, "b"), counts(&world, "c")), ((1, 1), (1, 0)), "{:#?}", world.log);
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
