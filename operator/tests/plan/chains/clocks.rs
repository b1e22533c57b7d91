//! When a chain does not move: whose clock runs.

use nixl_transfer_crds::{condition, task::SideState};

use crate::model::catch_up;

use super::{World, both, counts, name, next, of, to_all, verdict};

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
fn a_change_anywhere_in_the_chain_gives_all_of_it_more_time() {
    for changes in ["b", "c", "d"] {
        let mut world = to_all(&["a", "b", "c", "d"]);
        catch_up(&mut world);
        for node in ["b", "c", "d"] {
            both(&mut world, node, SideState::Prepared);
        }
        catch_up(&mut world);
        world.pass(100);
        let task = name(of(&world, changes));
        world.report(&task, false, SideState::Active, None);
        catch_up(&mut world);
        world.pass(149);
        catch_up(&mut world);
        let verdicts = ["b", "c", "d"].map(|node| verdict(&world, node));
        assert_eq!(verdicts, [None, None, None], "{changes}");
        world.pass(1);
        catch_up(&mut world);
        assert!(verdict(&world, "b").is_some());
    }
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
fn how_long_a_node_waits_is_counted_from_when_it_began_to() {
    let mut world = to_all(&["a", "b", "c"]);
    catch_up(&mut world);
    world.pass(30);
    let waits = name(of(&world, "b"));
    world.report(&waits, true, SideState::Pending, Some("DestinationBusy"));
    catch_up(&mut world);
    assert_eq!(verdict(&world, "b"), None, "it has only just begun to");
    world.pass(9);
    catch_up(&mut world);
    assert_eq!(verdict(&world, "b"), None);
    world.pass(1);
    catch_up(&mut world);
    assert_eq!(verdict(&world, "b").as_deref(), Some("DestinationBusy"));
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
