//! `watch`: follows one job until it is over. A lost connection is tried again for a minute; what cannot pass ends it at once. Not by
//! the crate `follow`, which never gives up and keeps to itself why it had to begin again: here that is an exit code.

use std::{
    io::{Write, stderr},
    time::Duration,
};

use futures::StreamExt;
use kube::api::{DynamicObject, WatchEvent};
use nixl_transfer_crds::TransferJob;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::Context;
use crate::{
    cli::{Global, Watch},
    cluster::{Cluster, WATCH_SECONDS, typed, value},
    failure::{Failure, Kind},
    next,
    render::{
        clean,
        watch::{frame, line, verdict, words},
    },
};

/// For so long an API server that was there may be away.
const AWAY: Duration = Duration::from_secs(60);
/// Between two attempts to reach it.
const PAUSE: Duration = Duration::from_secs(1);
/// No watch is silent for longer than it lives, and a little.
const SILENCE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 10);
/// After two watches in a row that ended sooner the next one waits.
const BRIEF: Duration = Duration::from_secs(3);
/// Times run on a terminal, without news.
const TICK: Duration = Duration::from_secs(1);

pub(super) async fn watch(
    arguments: &Watch,
    global: &Global,
    context: &mut Context<'_>,
) -> Result<(), Failure> {
    let cluster = Cluster::open(global).await?;
    follow(&cluster, &arguments.name, arguments.timeout, context).await
}

/// Shows the job until it is over: an error unless it is complete then.
pub(super) async fn follow(
    cluster: &Cluster,
    name: &str,
    limit: Option<Duration>,
    context: &mut Context<'_>,
) -> Result<(), Failure> {
    let mut screen = Screen { context, drawn: 0, said: String::new() };
    let ended = async { until_over(cluster, name, &mut screen).await };
    let job = match limit {
        None => ended.await?,
        Some(limit) => timeout(limit, ended).await.map_err(|_| {
            let message = format!(
                "{name} is not over after {} s (--timeout); it goes on by itself",
                limit.as_secs_f64()
            );
            Failure::new(Kind::TimedOut, message)
        })??,
    };
    let now = screen.context.now();
    let text = verdict(&job, (screen.context.look)().style, now);
    screen.context.print(&text)?;
    // What failed was said.
    if next::ended(&job) == Some(true) { Ok(()) } else { Err(Failure::other("")) }
}

async fn until_over(
    cluster: &Cluster,
    name: &str,
    screen: &mut Screen<'_, '_>,
) -> Result<TransferJob, Failure> {
    let mut away: Option<Instant> = None;
    let mut known: Option<String> = None;
    let mut hasty = false;
    loop {
        let begun = Instant::now();
        match once(cluster, name, screen, &mut known, &mut away).await {
            Ok(Some(job)) => return Ok(job),
            Ok(None) => {
                // A proxy may end each watch as soon as it has begun.
                let brief = begun.elapsed() < BRIEF;
                if brief && hasty {
                    sleep(PAUSE).await;
                }
                hasty = brief;
            }
            Err(failure) if failure.kind == Kind::Unreachable && known.is_some() => {
                if away.is_none() {
                    screen.leave();
                    writeln!(
                        stderr(),
                        "lost the API server, trying again for {} s: {}",
                        AWAY.as_secs(),
                        clean(&failure.message)
                    )?;
                }
                if away.get_or_insert_with(Instant::now).elapsed() > AWAY {
                    return Err(failure);
                }
                sleep(PAUSE).await;
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// The job as it is, and one watch from there. Nothing when the watch has ended and the job goes on.
async fn once(
    cluster: &Cluster,
    name: &str,
    screen: &mut Screen<'_, '_>,
    known: &mut Option<String>,
    away: &mut Option<Instant>,
) -> Result<Option<TransferJob>, Failure> {
    let object = match cluster.job(name).await {
        Err(failure) if known.is_some() && failure.missing => return Err(gone(name)),
        answer => answer?,
    };
    let uid = object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    // Another one of that name is not what was to be followed.
    if known.get_or_insert_with(|| uid.clone()) != &uid {
        return Err(gone(name));
    }
    *away = None;
    let version = object["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
    let mut job: TransferJob = typed(object)?;
    screen.show(&job)?;
    if next::ended(&job).is_some() {
        return Ok(Some(job));
    }
    let mut events = cluster.watch(name, &version).await?;
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    loop {
        tokio::select! {
            event = events.next() => match read(event) {
                Event::Is(changed) => {
                    job = typed(value(*changed)?)?;
                    heard = Instant::now();
                    screen.show(&job)?;
                    if next::ended(&job).is_some() {
                        return Ok(Some(job));
                    }
                }
                Event::Gone => return Err(gone(name)),
                Event::Nothing => heard = Instant::now(),
                // It is asked for anew, which tells whether anything is wrong.
                Event::Ended => return Ok(None),
            },
            _ = tick.tick() => {
                if heard.elapsed() > SILENCE {
                    return Ok(None);
                }
                screen.tick(&job)?;
            }
        }
    }
}

enum Event {
    Is(Box<DynamicObject>),
    Gone,
    Nothing,
    Ended,
}

fn read(event: Option<kube::Result<WatchEvent<DynamicObject>>>) -> Event {
    match event {
        Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object))) => Event::Is(Box::new(object)),
        Some(Ok(WatchEvent::Deleted(_))) => Event::Gone,
        Some(Ok(WatchEvent::Bookmark(_))) => Event::Nothing,
        Some(Ok(WatchEvent::Error(_)) | Err(_)) | None => Event::Ended,
    }
}

fn gone(name: &str) -> Failure {
    Failure::other(format!("{name} was deleted while it was watched; what it had not finished is cleaned up"))
}

/// Where it is shown: bars that are drawn over, or a line for each change.
struct Screen<'a, 'b> {
    context: &'a mut Context<'b>,
    /// Lines that stand there.
    drawn: usize,
    /// The last line that was written.
    said: String,
}

impl Screen<'_, '_> {
    fn show(&mut self, job: &TransferJob) -> Result<(), Failure> {
        if (self.context.look)().redraws {
            return self.draw(job);
        }
        let said = words(job);
        if said == self.said {
            return Ok(());
        }
        let text = line(job, self.context.now()) + "\n";
        self.said = said;
        self.context.print(&text)
    }

    fn tick(&mut self, job: &TransferJob) -> Result<(), Failure> {
        if (self.context.look)().redraws { self.draw(job) } else { Ok(()) }
    }

    fn draw(&mut self, job: &TransferJob) -> Result<(), Failure> {
        let lines = frame(job, (self.context.look)().style, self.context.now());
        // Up to the first of our lines, and away with what stands from there on.
        let over = if self.drawn > 0 { format!("\x1b[{}A\x1b[J", self.drawn) } else { String::new() };
        self.drawn = lines.len();
        self.context.print(&format!("{over}{}\n", lines.join("\n")))
    }

    /// What stands there stays.
    fn leave(&mut self) {
        self.drawn = 0;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{render::Style, terminal::Terminal};

    fn job(phase: &str, bytes: i64) -> TransferJob {
        let progress =
            json!({"bytesTotal": 100, "bytesDone": bytes, "summary": format!("{bytes}% 0/1 nodes")});
        serde_json::from_value(json!({
            "metadata": {"name": "j", "generation": 1},
            "spec": {"source": {"memory": {"name": "x"}}, "destinations": []},
            "status": {"observedGeneration": 1, "run": 1, "phase": phase, "progress": progress},
        }))
        .unwrap()
    }

    fn shown(look: fn() -> Terminal, jobs: &[TransferJob]) -> String {
        let mut out = Vec::new();
        let mut context = Context { out: &mut out, look, fixed: Some(jiff::Timestamp::UNIX_EPOCH) };
        let mut screen = Screen { context: &mut context, drawn: 0, said: String::new() };
        for job in jobs {
            screen.show(job).unwrap();
            screen.tick(job).unwrap();
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_terminal_is_drawn_over_and_a_pipe_gets_each_change_once() {
        let jobs = [job("Preparing", 0), job("Transferring", 50), job("Transferring", 50)];
        let pipe = || Terminal { redraws: false, style: Style { width: None, colour: false } };
        let lines = shown(pipe, &jobs);
        assert_eq!(
            lines,
            "1970-01-01T00:00:00Z Preparing 0% 0/1 nodes 0/100 B\n1970-01-01T00:00:00Z Transferring 50% 0/1 nodes 50/100 B\n"
        );
        let terminal = || Terminal { redraws: true, style: Style { width: Some(60), colour: false } };
        let frames = shown(terminal, &jobs);
        // Each frame has two lines, and all but the first go over the one before.
        assert_eq!(frames.matches("\x1b[2A\x1b[J").count(), 5, "{frames:?}");
        assert_eq!(frames.matches("j  Transferring  run 1").count(), 4, "{frames:?}");
    }
}
