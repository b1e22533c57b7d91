//! When a job that is over is deleted, and what is said when it is not.

use nixl_transfer_crds::condition;
use serde_json::json;
use transfer_operator::plan::Action;

use crate::model::{Behaviour, World, at, catch_up, job};

fn bounded(seconds: i64) -> World {
    let mut job = job(json!([at("one", "b")]));
    job.spec.ttl_seconds_after_finished = Some(seconds);
    World::new(job)
}

fn track(world: &mut World, by: &[(&str, &str)]) {
    let labels = by.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    world.job.as_mut().unwrap().metadata.labels = Some(labels.collect());
}

#[test]
fn a_job_goes_so_many_seconds_after_its_end_and_its_tasks_with_it() {
    for (reason, ends_as) in [(None, condition::COMPLETE), (Some("SourceNotFound"), condition::FAILED)] {
        let mut world = bounded(90);
        if let Some(reason) = reason {
            world.behaviour.insert("b".into(), Behaviour::Fails(reason));
        }
        while !world.is(ends_as) {
            world.agents(true);
            catch_up(&mut world);
        }
        world.agents(true);
        catch_up(&mut world);
        world.pass(89);
        catch_up(&mut world);
        assert!(world.job.is_some(), "{ends_as}: too early");
        world.pass(1);
        catch_up(&mut world);
        assert!(world.job.is_none(), "{ends_as}: too late");
        world.settle();
        assert!(world.tasks.is_empty());
    }
    let mut at_once = bounded(0);
    at_once.settle();
    assert!(at_once.job.is_none() && at_once.tasks.is_empty(), "{:#?}", at_once.log);
    let mut never = bounded(0);
    never.job.as_mut().unwrap().spec.ttl_seconds_after_finished = None;
    never.settle();
    never.pass(1_000_000);
    never.settle();
    assert!(never.job.is_some());
}

#[test]
fn what_followed_goes_so_long_after_it_does_not_any_more() {
    let mut world = bounded(90);
    world.job.as_mut().unwrap().spec.follow = true;
    world.settle();
    world.pass(1_000_000);
    world.settle();
    assert!(world.job.is_some() && world.is(condition::COMPLETE));
    world.edit(|job| job.spec.follow = false);
    catch_up(&mut world);
    world.pass(80);
    catch_up(&mut world);
    assert!(world.job.is_some(), "it counts from its first copy");
    world.pass(20);
    catch_up(&mut world);
    assert!(world.job.is_none());
}

#[test]
fn nothing_that_runs_waits_or_is_tracked_is_deleted_and_that_is_said_once() {
    let mut suspended = bounded(0);
    suspended.edit(|job| job.spec.suspend = true);
    suspended.settle();
    assert!(suspended.job.is_some() && suspended.is(condition::SUSPENDED));

    let mut world = bounded(0);
    track(&mut world, &[("kustomize.toolkit.fluxcd.io/name", "apps")]);
    let mut said = Vec::new();
    for _ in 0..20 {
        let plan = world.plan();
        said.extend(plan.notes.into_iter().filter(|note| note.reason.as_str() == "TTLIgnored"));
        world.operate(usize::MAX);
        world.agents(true);
    }
    assert!(world.is(condition::COMPLETE) && world.job.is_some());
    assert_eq!(said.len(), 1, "{said:#?}");
    assert!(said[0].message.contains("kustomize.toolkit.fluxcd.io/name") && said[0].news && said[0].warning);
    // Whoever starts anew reads in the status that it was said.
    world.memory = Default::default();
    world.pass(3600);
    assert!(world.plan().is_empty());

    // Tracked no more, and deleted: but never in one step with a status that is still to be written.
    track(&mut world, &[]);
    let plan = world.plan();
    assert!(plan.status.is_some() && !plan.actions.iter().any(|it| matches!(it, Action::Expire { .. })));
    world.settle();
    assert!(world.job.is_none());
}

#[test]
fn a_new_run_begins_before_the_old_one_expires() {
    let mut world = bounded(60);
    while !world.is(condition::COMPLETE) {
        world.agents(true);
        catch_up(&mut world);
    }
    world.pass(120);
    world.edit(|job| job.spec.trigger = "again".into());
    world.operate(usize::MAX);
    assert_eq!((world.job.is_some(), world.status().run), (true, 2));
    world.settle();
    assert!(world.job.is_none());
}
