//! The clocks of a run and of its tasks, and how often progress is written.

use nixl_transfer_crds::{condition, task::SideState};
use serde_json::json;

use crate::model::{World, at, catch_up, job};
use crate::tables::{only_task, target};

#[test]
fn suspension_stops_the_clocks() {
    let mut world = World::new(job(json!([at("one", "nowhere")])));
    catch_up(&mut world);
    world.pass(400);
    world.edit(|job| job.spec.suspend = true);
    catch_up(&mut world);
    assert!(world.is(condition::SUSPENDED) && !world.is(condition::RECONCILING));
    world.pass(100_000);
    catch_up(&mut world);
    assert!(world.is(condition::SUSPENDED));
    world.edit(|job| job.spec.suspend = false);
    catch_up(&mut world);
    assert!(!world.is(condition::SUSPENDED) && world.is(condition::RECONCILING));
    world.pass(199);
    catch_up(&mut world);
    assert!(!world.is(condition::FAILED));
    world.pass(1);
    catch_up(&mut world);
    assert!(world.is(condition::FAILED));
}

#[test]
fn deadlines_of_a_task_and_of_the_run() {
    // Never ready.
    let mut world = World::new(job(json!([at("one", "b")])));
    catch_up(&mut world);
    let task = only_task(&world);
    world.report(&task, true, SideState::Pending, Some("DestinationBusy"));
    world.pass(601);
    catch_up(&mut world);
    let verdict = world.tasks[&task].status.clone().unwrap().verdict.unwrap();
    assert_eq!(verdict.reason, "DeadlineExceeded");
    assert!(verdict.message.contains("DestinationBusy"), "{}", verdict.message);

    // Ready, and nothing moves: the agents have 30 s more to say so themselves.
    let mut world = World::new(job(json!([at("one", "b")])));
    catch_up(&mut world);
    let task = only_task(&world);
    for target in [false, true] {
        world.report(&task, target, SideState::Active, None);
    }
    catch_up(&mut world);
    world.pass(149);
    catch_up(&mut world);
    assert!(!world.tasks[&task].spec.cancel);
    world.report(&task, true, SideState::Active, None);
    assert_eq!(target(&world, &task).bytes_done, Some(2), "a byte in time");
    catch_up(&mut world);
    world.pass(149);
    catch_up(&mut world);
    assert!(!world.tasks[&task].spec.cancel);
    world.pass(2);
    catch_up(&mut world);
    assert_eq!(
        world.tasks[&task].status.clone().unwrap().verdict.unwrap().reason,
        "ProgressDeadlineExceeded"
    );

    // The run as a whole.
    let mut world = World::new(job(json!([at("one", "b")])));
    world.job.as_mut().unwrap().spec.active_deadline_seconds = Some(30);
    catch_up(&mut world);
    let task = only_task(&world);
    world.pass(30);
    catch_up(&mut world);
    assert!(world.tasks[&task].spec.cancel && !world.is(condition::FAILED), "first everything ends");
    world.agents(false);
    catch_up(&mut world);
    assert!(world.is(condition::FAILED));
    assert_eq!(world.reason(), "DeadlineExceeded");
}

#[test]
fn progress_is_written_rarely_and_changes_soon() {
    let mut world = World::new(job(json!([at("one", "b")])));
    catch_up(&mut world);
    let task = only_task(&world);
    let mut written = Vec::new();
    for second in 0..21 {
        for target in [false, true] {
            world.report(&task, target, SideState::Active, None);
        }
        if world.operate(usize::MAX).0 {
            written.push(second);
        }
        world.pass(1);
    }
    assert_eq!(written, [1, 6, 11, 16], "{:#?}", world.log);
    let rate = world.status().progress.unwrap();
    assert_eq!((rate.bytes_per_second, rate.rate.as_str()), (1, "1.0 B/s"));
}
