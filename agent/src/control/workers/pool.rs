//! The actor that owns every worker of this node: keeps some warm, hands them out, pings them, ends those that hang, and
//! passes on the launcher's proof of their end.

mod entry;

use std::{
    collections::{HashMap, VecDeque},
    path::PathBuf,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nixl_transfer_crds::Reason;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::MissedTickBehavior,
};
use tracing::{debug, info, warn};

use self::entry::{Entry, State, Why};
use super::{NixlFacts, Order, Worker, WorkerSender, Workers, link::Link};
use crate::{
    control::connection::{Outgoing, launcher::LauncherEvent},
    metrics::Metrics,
    protocol::{Failure, FromLauncher, ToLauncher, ToWorker, WorkerName, channel::Channel},
};

/// How the pool makes workers.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// Beginning of every worker's name; unique for this start of the agent.
    pub prefix: String,
    /// Workers that wait with NIXL loaded.
    pub warm: usize,
    /// Path of NIXL's library, as workers see it.
    pub library: PathBuf,
    /// Directory of its plugins.
    pub plugins: PathBuf,
    /// NVIDIA's driver, by name or path, as workers see it.
    pub cuda: String,
    /// For tests: the chunk that every sending hop damages once.
    pub corrupt_chunk: Option<u64>,
}

/// Heartbeats go out, and hung workers are looked for, this often.
const PING_EVERY: Duration = Duration::from_secs(2);
/// A tick so late means that this process, not the workers, stood still.
const LATE: Duration = Duration::from_secs(6);
/// Until so long after one was taken, one that is warm or coming is enough: to start one takes the processor from the transfer
/// that has just begun.
const SETTLED_AFTER: Duration = Duration::from_secs(1);
/// Pause before the next try after a worker that could not start; doubled up to the other.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The pool's state.
pub struct Pool {
    options: PoolOptions,
    metrics: Metrics,
    launcher: Option<(mpsc::Sender<Outgoing<ToLauncher>>, Channel)>,
    workers: HashMap<WorkerName, Entry>,
    waiting: VecDeque<oneshot::Sender<Result<Worker, Failure>>>,
    threads: Vec<JoinHandle<()>>,
    facts: watch::Sender<Option<NixlFacts>>,
    orders: mpsc::UnboundedSender<Order>,
    made: u64,
    pings: u64,
    failures: u32,
    not_before: Instant,
    last_taken: Option<Instant>,
}

/// A pool and its handle. It does nothing until [`Pool::run`].
pub fn pool(options: PoolOptions, metrics: Metrics) -> (Workers, PoolTask) {
    let (orders, inbox) = mpsc::unbounded_channel();
    let (facts, known) = watch::channel(None);
    let workers = Workers { orders: orders.clone(), facts: known };
    let pool = Pool {
        options,
        metrics,
        launcher: None,
        workers: HashMap::new(),
        waiting: VecDeque::new(),
        threads: Vec::new(),
        facts,
        orders,
        made: 0,
        pings: 0,
        failures: 0,
        not_before: Instant::now(),
        last_taken: None,
    };
    (workers, PoolTask { pool, inbox })
}

/// The pool before it runs.
pub struct PoolTask {
    pool: Pool,
    inbox: mpsc::UnboundedReceiver<Order>,
}

impl PoolTask {
    /// Runs until `stop` is true; `beat` is told at every turn of the loop. What is left of workers then is ended by the
    /// end of the launcher's connection.
    pub async fn run(
        self,
        mut launcher: mpsc::Receiver<LauncherEvent>,
        mut stop: watch::Receiver<bool>,
        beat: impl Fn() + Send,
    ) {
        let Self { mut pool, mut inbox } = self;
        let mut tick = tokio::time::interval(PING_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = Instant::now();
        loop {
            tokio::select! {
                Some(order) = inbox.recv() => pool.obey(order),
                Some(event) = launcher.recv() => pool.launcher(event),
                _ = tick.tick() => {
                    pool.tick(last.elapsed() > LATE);
                    last = Instant::now();
                }
                _ = stop.wait_for(|stop| *stop) => return,
            }
            pool.hand_out();
            pool.refill();
            pool.show();
            beat();
        }
    }
}

impl Pool {
    fn obey(&mut self, order: Order) {
        match order {
            Order::Take(reply) => self.waiting.push_back(reply),
            Order::End(name) => self.end(&name, Why::Asked),
            Order::Loaded(name, facts) => self.loaded(&name, facts),
            Order::Closed(name, Some(fault)) => self.end(&name, Why::Fault(fault)),
            // Nearly always its exit, which will be reaped; if not, it is of no use any more.
            Order::Closed(name, None) => self.end(&name, Why::Closed),
        }
    }

    fn launcher(&mut self, event: LauncherEvent) {
        match event {
            LauncherEvent::Up { orders, socket } => self.launcher = Some((orders, socket)),
            LauncherEvent::Down(why) => self.all_gone(&why),
            LauncherEvent::Message(FromLauncher::Exited { worker, status }) => self.gone(&worker, &status),
            LauncherEvent::Message(FromLauncher::NotSpawned { worker, message }) => {
                warn!(worker = worker.0, message, "a worker could not be started");
                self.gone(&worker, &format!("it could not be started: {message}"));
            }
            LauncherEvent::Message(FromLauncher::Spawned { worker, pid }) => {
                debug!(worker = worker.0, pid, "started")
            }
            LauncherEvent::Message(FromLauncher::Hello { .. }) => {}
        }
    }

    /// Gives warm workers to those who wait; tells them at once when there can be none.
    fn hand_out(&mut self) {
        while let Some(reply) = self.waiting.front() {
            if reply.is_closed() {
                self.waiting.pop_front();
                continue;
            }
            let warm = self.workers.iter().find(|(_, entry)| entry.state == State::Warm);
            let Some(name) = warm.map(|(name, _)| name.clone()) else { break };
            let taken = self.workers.get_mut(&name).and_then(Entry::take);
            if let (Some((events, queue)), Some(reply)) = (taken, self.waiting.pop_front()) {
                let sender = WorkerSender { name: name.clone(), queue, orders: self.orders.clone() };
                // One who has stopped waiting drops the worker, which ends it.
                let _ = reply.send(Ok(Worker { name, events, sender }));
                self.last_taken = Some(Instant::now());
            }
        }
        let unusable = match &*self.facts.borrow() {
            Some(NixlFacts::Unusable(message)) => Some(message.clone()),
            _ => None,
        };
        if let Some(message) = unusable {
            for reply in self.waiting.drain(..) {
                let failure =
                    Failure::new(Reason::AgentNotReady, format!("NIXL cannot be used here: {message}"));
                let _ = reply.send(Err(failure));
            }
        }
    }

    /// Starts as many as are missing. The last ones may wait for the next tick.
    fn refill(&mut self) {
        if self.launcher.is_none() || Instant::now() < self.not_before {
            return;
        }
        let coming = self.workers.values().filter(|entry| entry.is_coming()).count();
        let since_taken = self.last_taken.map(|taken| taken.elapsed());
        for _ in coming..wanted(self.options.warm, self.waiting.len(), since_taken) {
            if let Err(error) = self.start() {
                warn!(%error, "a worker could not be started");
                return self.pause();
            }
        }
    }

    fn start(&mut self) -> Result<(), Box<dyn std::error::Error>> {
        let (ours, theirs) = Channel::pair()?;
        self.made += 1;
        let name = WorkerName(format!("{}-{}", self.options.prefix, self.made));
        // Before anything else can be queued; it waits in the socket until the worker runs.
        ours.send(
            &ToWorker::Load {
                library: self.options.library.display().to_string(),
                plugins: self.options.plugins.display().to_string(),
                cuda: self.options.cuda.clone(),
                worker: name.clone(),
                corrupt_chunk: self.options.corrupt_chunk,
            },
            &[],
        )?;
        let link = Link::start(&name, ours, self.orders.clone())?;
        let (orders, _) = self.launcher.as_ref().ok_or("there is no launcher")?;
        let spawn = (ToLauncher::Spawn { worker: name.clone() }, vec![theirs.into_fd()]);
        orders.try_send(spawn).map_err(|_| "the launcher does not take orders")?;
        let (entry, threads) = Entry::new(link);
        self.threads.extend(threads);
        self.workers.insert(name, entry);
        Ok(())
    }

    fn pause(&mut self) {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(10)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Instant::now() + pause;
    }

    fn loaded(&mut self, name: &WorkerName, facts: NixlFacts) {
        if let NixlFacts::Unusable(message) = &facts {
            warn!(worker = name.0, message, "a worker cannot use NIXL");
        } else if let Some(entry) = self.workers.get_mut(name).filter(|entry| entry.state == State::Starting)
        {
            entry.state = State::Warm;
            entry.loaded = true;
            self.failures = 0;
        }
        self.facts.send_replace(Some(facts));
    }

    /// Orders the launcher to end a worker.
    fn end(&mut self, name: &WorkerName, why: Why) {
        let Some(entry) = self.workers.get_mut(name) else { return };
        if !entry.ending(why) {
            return;
        }
        let Some((orders, socket)) = &self.launcher else { return };
        if orders.try_send((ToLauncher::Kill { worker: name.clone() }, Vec::new())).is_err() {
            warn!("the launcher does not take orders; it is ended with all its workers");
            socket.shutdown();
        }
    }

    /// The launcher has reaped it, or never started it.
    fn gone(&mut self, name: &WorkerName, status: &str) {
        let Some(entry) = self.workers.remove(name) else { return };
        let loaded = entry.loaded;
        // Counted before its owner hears of it: who looks at the metrics then finds it there.
        let lost = entry.lost();
        lost.into_iter().for_each(|cause| self.metrics.worker_lost(cause));
        let words = entry.gone(status, true);
        if lost.is_some() {
            warn!(worker = name.0, status = words, "a worker was lost");
        }
        if !loaded {
            self.pause();
            if self.facts.borrow().is_none() {
                let why = format!("a worker ended before it had loaded NIXL: {words}");
                self.facts.send_replace(Some(NixlFacts::Unusable(why)));
            }
        }
    }

    /// The launcher is gone. The kernel has killed what it had started; the proof for each is the end of its socket.
    fn all_gone(&mut self, why: &str) {
        warn!(why, workers = self.workers.len(), "the launcher is gone");
        self.launcher = None;
        for (_, entry) in self.workers.drain() {
            if entry.lost().is_some() {
                self.metrics.worker_lost("exited");
            }
            entry.gone(&format!("the launcher ended, and every worker with it: {why}"), false);
        }
        if self.facts.borrow().is_none() {
            self.facts.send_replace(Some(NixlFacts::Unusable(why.to_owned())));
        }
    }

    fn tick(&mut self, stood_still: bool) {
        self.pings += 1;
        let mut hung = Vec::new();
        let mut stuck = false;
        for (name, entry) in &self.workers {
            if stood_still {
                entry.heard.touch();
            }
            match entry.verdict() {
                entry::Verdict::Well => entry.ping(self.pings),
                entry::Verdict::Hung(cause) => hung.push((name.clone(), cause)),
                entry::Verdict::NotEnding => stuck = true,
            }
        }
        for (name, cause) in hung {
            warn!(worker = name.0, cause, "a worker hangs and is ended");
            self.end(&name, Why::Fault(cause));
        }
        if let (true, false, Some((_, socket))) = (stuck, stood_still, &self.launcher) {
            warn!("the launcher does not end a worker; it is ended with all its workers");
            socket.shutdown();
        }
        self.threads.retain(|thread| !thread.is_finished());
    }

    fn show(&self) {
        for (state, label) in State::ALL {
            let count = self.workers.values().filter(|entry| entry.state == state).count();
            self.metrics.workers(label, i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}

/// How many workers must be warm or coming.
fn wanted(warm: usize, waiting: usize, since_taken: Option<Duration>) -> usize {
    let settled = since_taken.is_none_or(|since| since >= SETTLED_AFTER);
    waiting + if settled { warm } else { warm.min(1) }
}

impl Drop for Pool {
    fn drop(&mut self) {
        info!(workers = self.workers.len(), "the pool ends");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_is_served_at_once_and_the_pool_is_filled_when_transfers_have_begun() {
        let soon = SETTLED_AFTER - Duration::from_millis(1);
        for (warm, waiting, since_taken, expected) in [
            (2, 0, None, 2), // at the start
            (2, 0, Some(soon), 1),
            (2, 3, Some(soon), 4),
            (2, 0, Some(SETTLED_AFTER), 2),
            (1, 0, Some(soon), 1),
        ] {
            assert_eq!(wanted(warm, waiting, since_taken), expected, "{warm} {waiting} {since_taken:?}");
        }
    }
}
