//! Follows the jobs with `kubectl get --watch` until all have ended, and shows how far they are.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use devcluster::ControlPlane;
use serde_json::{Deserializer, Value};

use super::jobs::{Job, Key, has_ended, key};
use super::start::Running;
use crate::interrupt;
use crate::progress::Step;

/// A job whose object does not change for so long is stuck: the product's own deadline for a hop without progress is as long.
const SILENCE: Duration = Duration::from_secs(120);

pub fn until_ended(running: &Running, expected: &[Key], applied: Instant) -> Result<Vec<Job>> {
    let mut step = Step::start(format!("moving: {} jobs", expected.len()));
    let (mut watch, objects) = watch(&running.plane)?;
    let mut jobs: BTreeMap<Key, Job> = BTreeMap::new();
    let mut last_change = Instant::now();
    let result = loop {
        if let Err(error) = interrupt::check().and_then(|()| running.all_alive()) {
            break Err(error);
        }
        match objects.recv_timeout(Duration::from_millis(200)) {
            Ok(object) => {
                last_change = Instant::now();
                note(&mut jobs, expected, object, applied.elapsed());
            }
            Err(RecvTimeoutError::Timeout) if last_change.elapsed() > SILENCE => {
                break Ok(false);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                break Err(anyhow::anyhow!("kubectl get --watch ended (is the API server still there?)"));
            }
        }
        step.tick(&jobs.values().map(Job::progress).collect::<Vec<_>>().join(" · "));
        if expected.iter().all(|key| jobs.get(key).is_some_and(|job| has_ended(&job.object))) {
            break Ok(true);
        }
    };
    // The watch has no end of its own; its process is this function's.
    let _ = watch.kill();
    let _ = watch.wait();
    let ended = result?;
    let complete = jobs.values().filter(|job| job.is_complete()).count();
    let summary = format!("{complete} of {} complete", expected.len());
    if complete == expected.len() {
        step.done(&summary);
    } else if ended {
        step.failed(&summary);
    } else {
        step.failed(&format!("{summary}; nothing changed for {} s", SILENCE.as_secs()));
    }
    if jobs.len() < expected.len() {
        bail!("kubectl showed {} of {} jobs", jobs.len(), expected.len());
    }
    Ok(jobs.into_values().collect())
}

/// Keeps the newest state; the time stands still once the job has ended.
fn note(jobs: &mut BTreeMap<Key, Job>, expected: &[Key], object: Value, elapsed: Duration) {
    let Some(key) = key(&object).filter(|key| expected.contains(key)) else { return };
    let ended_at = jobs.get(&key).filter(|job| has_ended(&job.object)).map(|job| job.took);
    jobs.insert(key.clone(), Job { key, object, took: ended_at.unwrap_or(elapsed) });
}

fn watch(plane: &ControlPlane) -> Result<(Child, Receiver<Value>)> {
    let mut command = plane.admin().command();
    command.args(["get", "transferjobs", "--all-namespaces", "--watch", "--output=json"]);
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start kubectl")?;
    let output = child.stdout.take().context("kubectl has no output")?;
    let (objects, inbox) = channel();
    // Ends with kubectl's output, and so with the watch.
    thread::spawn(move || {
        let stream = Deserializer::from_reader(BufReader::new(output)).into_iter::<Value>();
        for object in stream.map_while(Result::ok) {
            if objects.send(object).is_err() {
                return;
            }
        }
    });
    Ok((child, inbox))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn time_stops_when_a_job_has_ended() {
        let key = ("ml".to_owned(), "job".to_owned());
        let object = |status: Value| json!({"metadata": {"namespace": "ml", "name": "job", "generation": 1}, "status": status});
        let done = json!({"observedGeneration": 1, "conditions": [{"type": "Complete", "status": "True"}]});
        let mut jobs = BTreeMap::new();
        let expected = [key.clone()];
        note(&mut jobs, &expected, object(json!({"phase": "Preparing"})), Duration::from_secs(1));
        assert!(!has_ended(&jobs[&key].object));
        note(&mut jobs, &expected, object(done.clone()), Duration::from_secs(2));
        note(&mut jobs, &expected, object(done), Duration::from_secs(9));
        assert_eq!(jobs[&key].took, Duration::from_secs(2));
        note(&mut jobs, &[], object(json!({})), Duration::from_secs(9));
        assert_eq!(jobs.len(), 1);
    }
}
