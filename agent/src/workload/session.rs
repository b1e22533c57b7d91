//! One connection from its first message to its end.

use std::{collections::HashMap, os::fd::OwnedFd, sync::Arc, time::Duration};

use nixl_transfer_client::wire::{FromAgent, Ipc, ToAgent, VERSION};
use nixl_transfer_crds::Reason;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until, timeout},
};
use tracing::debug;

use super::{
    Desk, Holder, Identity, Pod, Refusal, Request,
    apart::{Apart, apart},
    desk::Gone,
    doors::{Admitted, OfPod, too_many},
    line::Line,
};
use crate::{
    control::gpus::Gpus,
    protocol::{DeviceMemory, Failure, IpcHandle, hex},
    region::{GpuMemory, HostMemory, Memory, device},
    volume::path::shortened,
};

/// Regions that one connection may hold.
const MAX_REGIONS: usize = 64;
/// Events that may wait for a workload.
const EVENTS: usize = 256;
/// How long a connection may take to say who it is.
const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// How long the keeper may take, and a transfer to let go of memory.
const DONE_WITHIN: Duration = Duration::from_secs(30);

/// Longest name of an object, in bytes.
const MAX_NAME: usize = 253;
/// From one message of a connection to the next: nobody keeps the agent busy.
const PACE: Duration = Duration::from_millis(50);
/// How long a worker may take to open memory of a GPU.
const OPENED_WITHIN: Duration = Duration::from_secs(30);
/// Length of a CUDA IPC handle.
const HANDLE_BYTES: usize = 64;
/// How long a look at what was handed over may take.
const LOOKED_AT_WITHIN: Duration = Duration::from_secs(5);

/// What every connection needs.
pub(super) struct Session {
    pub(super) identity: Arc<Identity>,
    pub(super) desk: Desk,
    pub(super) gpus: Gpus,
    /// Whether CUDA IPC handles are taken.
    pub(super) takes_ipc: bool,
    pub(super) node: String,
}

/// A connection of a pod.
struct Guest<'a> {
    session: &'a Session,
    holder: Holder,
    counted: Arc<OfPod>,
    held: HashMap<String, Gone>,
    /// What it has sent cannot be closed: it may send no more.
    stuck: bool,
}

impl Session {
    /// Serves one connection until it is closed, or breaks the protocol. The keeper sees its end by itself.
    pub(super) async fn run(&self, mut line: Line, mut admitted: Admitted) {
        let number = admitted.number;
        let greeted = match self.greet(&mut line, &mut admitted).await {
            Ok(Some(pod)) => admitted.known_as(&pod).map(|counted| (pod, Arc::new(counted))),
            Ok(None) => return,
            Err(refusal) => Err(refusal),
        };
        let (pod, counted) = match greeted {
            Ok(greeted) => greeted,
            Err(refusal) => return refuse(&line, refusal).await,
        };
        line.counts_as(Arc::clone(&counted));
        let (holder, mut events, mut too_slow) = Holder::new(number, pod, EVENTS);
        let Pod { namespace, name: pod, .. } = holder.pod.clone();
        debug!(namespace, pod, "a workload has connected");
        let welcome = FromAgent::Welcome { version: VERSION, node: self.node.clone(), namespace, pod };
        let mut guest = Guest { session: self, holder, counted, held: HashMap::new(), stuck: false };
        let mut alive = line.say(&welcome).await;
        let mut next_at = Instant::now() + PACE;
        while alive {
            let message = async {
                sleep_until(next_at).await;
                line.next().await
            };
            tokio::select! {
                message = message => match message {
                    Ok(Some((message, descriptor))) => {
                        let answer = guest.answer(message, descriptor).await;
                        next_at = Instant::now() + PACE;
                        let closes = matches!(answer, FromAgent::Refused { region: None, .. });
                        alive = line.say(&answer).await && !closes;
                    }
                    Ok(None) => alive = false,
                    Err(refusal) => return refuse(&line, refusal).await,
                },
                Some(event) = events.recv() => {
                    guest.heed(&event).await;
                    alive = line.say(&event).await;
                }
                Ok(()) = too_slow.changed() => {
                    let message = format!("{EVENTS} events were not read");
                    return refuse(&line, Refusal::new("TooSlow", message)).await;
                }
            }
        }
    }

    /// Who is there; `None` when the other end is closed before it said so.
    async fn greet(&self, line: &mut Line, admitted: &mut Admitted) -> Result<Option<Pod>, Refusal> {
        let first = tokio::select! {
            first = timeout(HELLO_WITHIN, line.next()) => first.map_err(|_| {
                let message = format!("`hello` did not come within {} s", HELLO_WITHIN.as_secs());
                Refusal::new("ProtocolError", message)
            })??,
            Ok(()) = &mut admitted.pushed => {
                return Err(too_many("too many connections have not said who they are; say `hello` at once"));
            }
        };
        match first {
            None => Ok(None),
            Some((ToAgent::Hello { version: VERSION, token }, _)) => {
                admitted.asks()?;
                self.identity.of(&token).await.map(Some)
            }
            Some((ToAgent::Hello { version, .. }, _)) => {
                let message =
                    format!("version {version} of the protocol; this agent speaks version {VERSION}");
                Err(Refusal::new("WrongVersion", message))
            }
            Some(_) => Err(Refusal::new("ProtocolError", "the first message must be `hello`")),
        }
    }

    async fn ask<T>(&self, request: Request, answered: oneshot::Receiver<T>) -> Result<T, Refusal> {
        let ending = || Refusal::new("Unavailable", "the agent is ending; connect again later");
        let asked = async {
            self.desk.send(request).await.map_err(|_| ending())?;
            answered.await.map_err(|_| ending())
        };
        timeout(DONE_WITHIN, asked).await.unwrap_or_else(|_| {
            Err(Refusal::new("Unavailable", "the agent did not get to it in time; try again"))
        })
    }
}

impl Guest<'_> {
    async fn answer(&mut self, message: ToAgent, descriptor: Option<Apart<OwnedFd>>) -> FromAgent {
        let (region, result) = match message {
            ToAgent::Hello { .. } => return broken("`hello` came twice"),
            ToAgent::Offer { region, .. } | ToAgent::Withdraw { region } if region.len() > MAX_NAME => {
                return broken("the name of a region is too long");
            }
            ToAgent::Offer { region, size, device, ipc } => {
                let taken = self.offer(&region, size, (&device, ipc), descriptor).await;
                (region.clone(), taken.map(|()| FromAgent::Accepted { region }))
            }
            ToAgent::Withdraw { region } => {
                let given_back = self.withdraw(&region).await;
                (region.clone(), given_back.map(|()| FromAgent::Withdrawn { region }))
            }
        };
        result.unwrap_or_else(|why| refusal(Some(region).filter(|_| !self.stuck), why))
    }

    async fn offer(
        &mut self,
        region: &str,
        size: u64,
        (device, ipc): (&str, Option<Ipc>),
        descriptor: Option<Apart<OwnedFd>>,
    ) -> Result<(), Refusal> {
        // What the agent has let go of by itself is no longer held.
        self.held.retain(|_, gone| matches!(gone.try_recv(), Err(oneshot::error::TryRecvError::Empty)));
        if self.held.len() >= MAX_REGIONS {
            return Err(too_many(&format!(
                "a connection may hold {MAX_REGIONS} regions; withdraw one first"
            )));
        }
        let (memory, gone) = match (device, descriptor, ipc) {
            ("cpu", Some(memory), None) => {
                let (memory, gone) =
                    self.look_at(memory, move |memory| HostMemory::adopt(memory, size)).await?;
                (Memory::Host(Arc::new(memory)), gone)
            }
            ("cpu", _, Some(_)) => {
                return Err(unfit("a CUDA IPC handle is memory of a GPU: say its UUID as the device"));
            }
            (_, None, None) => {
                let message = "an offer needs the descriptor of the memory with it";
                return Err(Refusal::new("DescriptorMissing", message));
            }
            (_, _, Some(_)) if !self.session.takes_ipc => {
                let message = "CUDA IPC handles are not taken here: share a descriptor of cuMemExportToShareableHandle, or have the \
                               administrator set memory.cudaIpc in the agent's configuration";
                return Err(Refusal::new("HandleForbidden", message));
            }
            (_, Some(_), Some(_)) => return Err(unfit("give a descriptor or a CUDA IPC handle, not both")),
            (gpu, descriptor, ipc) => {
                // A look costs a worker: nobody gets one for a region that there is not.
                let (answer, answered) = oneshot::channel();
                let request = Request::Ask { holder: self.holder.clone(), region: region.to_owned(), answer };
                self.session.ask(request, answered).await??;
                self.look_at_gpu(gpu, size, descriptor, ipc).await?
            }
        };
        let (answer, answered) = oneshot::channel();
        let request =
            Request::Offer { holder: self.holder.clone(), region: region.to_owned(), memory, answer };
        self.session.ask(request, answered).await??;
        self.held.insert(region.to_owned(), gone);
        Ok(())
    }

    /// Whether it is memory as it must be. As long as that takes, and the closing of what is not, the connection counts.
    async fn look_at<T: Send + 'static>(
        &mut self,
        memory: Apart<OwnedFd>,
        look: impl FnOnce(OwnedFd) -> Result<T, String> + Send + 'static,
    ) -> Result<T, Refusal> {
        let counted = Arc::clone(&self.counted);
        let looked = apart(move || {
            let found = memory.take().ok_or_else(|| "the descriptor is gone".to_owned()).and_then(look);
            drop(counted);
            found
        });
        match timeout(LOOKED_AT_WITHIN, looked).await {
            Ok(Ok(found)) => found.map_err(unfit),
            Ok(Err(_)) => Err(Refusal::new("Unavailable", "the agent could not look at it; try again")),
            Err(_) => {
                self.stuck = true;
                Err(Refusal::new(
                    "MemoryUnfit",
                    "the descriptor does not let itself be closed; hand over a memfd",
                ))
            }
        }
    }

    /// Whether it is memory of that GPU, as long as is said: only a worker can tell, and one that it harms is not missed.
    async fn look_at_gpu(
        &mut self,
        gpu: &str,
        size: u64,
        descriptor: Option<Apart<OwnedFd>>,
        ipc: Option<Ipc>,
    ) -> Result<(Memory, Gone), Refusal> {
        let refused = |failure: Failure| match failure.reason {
            Reason::NoSuchDevice => Refusal::new("NoSuchDevice", failure.message),
            Reason::AgentNotReady | Reason::IoError => Refusal::new("Unavailable", failure.message),
            // Also when what was handed over has killed the worker.
            _ => unfit(failure.message),
        };
        let found = self.session.gpus.by_uuid(&shortened(gpu)).map_err(refused)?;
        let descriptor = match descriptor {
            Some(descriptor) => Some(self.look_at(descriptor, device::check_descriptor).await?),
            None => None,
        };
        let handle = ipc.map(handle).transpose()?;
        let memory = DeviceMemory { gpu: found.uuid, bytes: size, handle };
        let name = format!("cuda:{}", found.index);
        let (memory, gone) = GpuMemory::lent(name, memory, descriptor)
            .ok_or_else(|| unfit("give a descriptor or a CUDA IPC handle, one of both"))?;
        let (to_open, descriptors) = memory.to_open().map_err(refused)?;
        match timeout(OPENED_WITHIN, self.session.gpus.look(to_open, descriptors)).await {
            Ok(Ok(())) => Ok((Memory::Gpu(Arc::new(memory)), gone)),
            Ok(Err(failure)) => Err(refused(failure)),
            Err(_) => Err(Refusal::new("Unavailable", "no worker could look at it in time; try again")),
        }
    }

    async fn withdraw(&mut self, region: &str) -> Result<(), Refusal> {
        if !self.held.contains_key(region) {
            return Err(Refusal::new("NotHeld", "this connection has handed over no such region"));
        }
        let (answer, answered) = oneshot::channel();
        let request = Request::Withdraw { holder: self.holder.clone(), region: region.to_owned(), answer };
        self.session.ask(request, answered).await?;
        if self.is_gone(region).await {
            return Ok(());
        }
        let message = format!(
            "a transfer still uses the memory after {} s; leave it be, and withdraw again",
            DONE_WITHIN.as_secs()
        );
        Err(Refusal::new("Busy", message))
    }

    /// What a region had is the workload's again when it hears that the region has ended, not before.
    async fn heed(&mut self, event: &FromAgent) {
        if let FromAgent::Ended { region, .. } = event {
            self.is_gone(region).await;
        }
    }

    /// Waits until nobody can reach the memory; false when that takes too long.
    async fn is_gone(&mut self, region: &str) -> bool {
        let Some(gone) = self.held.get_mut(region) else { return true };
        let in_time = timeout(DONE_WITHIN, gone).await.is_ok();
        if in_time {
            self.held.remove(region);
        }
        in_time
    }
}

/// The handle of a message.
fn handle(Ipc { handle, allocation, offset }: Ipc) -> Result<IpcHandle, Refusal> {
    let bytes = hex::decode(&handle).filter(|bytes| bytes.len() == HANDLE_BYTES);
    let bytes = bytes.ok_or_else(|| {
        let (digits, needed) = (handle.len(), 2 * HANDLE_BYTES);
        unfit(format!(
            "`ipc.handle` has {digits} characters; give the handle's 64 bytes as {needed} hexadecimal digits"
        ))
    })?;
    Ok(IpcHandle { bytes, allocation, offset })
}

fn unfit(why: impl Into<String>) -> Refusal {
    Refusal::new("MemoryUnfit", why)
}

fn broken(what: &str) -> FromAgent {
    refusal(None, Refusal::new("ProtocolError", format!("{what}; see docs/workload-memory.md")))
}

fn refusal(region: Option<String>, Refusal { reason, message }: Refusal) -> FromAgent {
    FromAgent::Refused { region, reason: reason.to_owned(), message }
}

async fn refuse(line: &Line, why: Refusal) {
    // Whoever can connect can cause this as often as it likes, so it is no line of the log by default.
    debug!(reason = why.reason, message = why.message, "a workload is refused");
    line.say(&refusal(None, why)).await;
}
