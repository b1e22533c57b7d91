//! One connection from its first message to its end.

use std::{collections::HashMap, os::fd::OwnedFd, sync::Arc, time::Duration};

use nixl_transfer_client::wire::{FromAgent, ToAgent, VERSION};
use tokio::sync::oneshot;
use tracing::info;

use super::{Desk, Holder, Identity, Pod, Refusal, Request, desk::Gone, line::Line, listen::Admitted};

/// Regions that one connection may hold.
const MAX_REGIONS: usize = 64;
/// Events that may wait for a workload.
const EVENTS: usize = 256;
/// How long a connection may take to say who it is.
const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// How long the keeper may take, and a transfer to let go of memory.
const DONE_WITHIN: Duration = Duration::from_secs(30);

/// What every connection needs.
pub(super) struct Session {
    pub(super) identity: Arc<Identity>,
    pub(super) desk: Desk,
    pub(super) node: String,
}

impl Session {
    /// Serves one connection until it is closed, or breaks the protocol.
    pub(super) async fn run(&self, mut line: Line, mut admitted: Admitted) {
        let pod = match self.greet(&mut line, &mut admitted).await {
            Ok(Some(pod)) => pod,
            Ok(None) => return,
            Err(refusal) => return refuse(&line, None, refusal).await,
        };
        let connection = match admitted.as_pod(&pod) {
            Ok(connection) => connection,
            Err(refusal) => return refuse(&line, None, refusal).await,
        };
        let (holder, mut events, mut too_slow) = Holder::new(connection.number(), pod, EVENTS);
        let Pod { namespace, name, .. } = holder.pod.clone();
        let welcome = FromAgent::Welcome {
            version: VERSION,
            node: self.node.clone(),
            namespace: namespace.clone(),
            pod: name.clone(),
        };
        info!(namespace, pod = name, "a workload has connected");
        let mut held: HashMap<String, Gone> = HashMap::new();
        let mut alive = line.say(&welcome).await;
        while alive {
            tokio::select! {
                message = line.next() => match message {
                    Ok(Some((message, descriptor))) => {
                        let answer = self.answer(&holder, &mut held, message, descriptor).await;
                        alive = line.say(&answer).await;
                    }
                    Ok(None) => alive = false,
                    Err(refusal) => {
                        refuse(&line, None, refusal).await;
                        alive = false;
                    }
                },
                Some(event) = events.recv() => alive = line.say(&event).await,
                Ok(()) = too_slow.changed() => {
                    let message = format!("{EVENTS} events were not read");
                    refuse(&line, None, Refusal::new("TooSlow", message)).await;
                    alive = false;
                }
            }
        }
        info!(namespace, pod = name, regions = held.len(), "a workload has gone");
        // When the keeper is gone, so is all memory.
        let _ = self.desk.send(Request::Left { holder }).await;
    }

    /// Who is there; `None` when the other end is closed before it said so.
    async fn greet(&self, line: &mut Line, admitted: &mut Admitted) -> Result<Option<Pod>, Refusal> {
        let late = |_| {
            let message = format!("`hello` did not come within {} s", HELLO_WITHIN.as_secs());
            Refusal::new("ProtocolError", message)
        };
        match tokio::time::timeout(HELLO_WITHIN, line.next()).await.map_err(late)?? {
            None => Ok(None),
            Some((ToAgent::Hello { version: VERSION, token }, None)) => {
                admitted.asks()?;
                self.identity.of(&token).await.map(Some)
            }
            Some((ToAgent::Hello { version, .. }, None)) => {
                let message =
                    format!("version {version} of the protocol; this agent speaks version {VERSION}");
                Err(Refusal::new("WrongVersion", message))
            }
            Some(_) => {
                Err(Refusal::new("ProtocolError", "the first message must be `hello`, without a descriptor"))
            }
        }
    }

    async fn answer(
        &self,
        holder: &Holder,
        held: &mut HashMap<String, Gone>,
        message: ToAgent,
        descriptor: Option<OwnedFd>,
    ) -> FromAgent {
        let (region, result) = match message {
            ToAgent::Hello { .. } => {
                return refusal(None, Refusal::new("ProtocolError", "`hello` came twice"));
            }
            ToAgent::Offer { region, size, device } => {
                let taken = self.offer(holder, held, &region, (size, device), descriptor).await;
                (region.clone(), taken.map(|()| FromAgent::Accepted { region }))
            }
            ToAgent::Withdraw { region } => {
                let given_back = self.withdraw(holder, held, &region).await;
                (region.clone(), given_back.map(|()| FromAgent::Withdrawn { region }))
            }
        };
        result.unwrap_or_else(|why| refusal(Some(region), why))
    }

    async fn offer(
        &self,
        holder: &Holder,
        held: &mut HashMap<String, Gone>,
        region: &str,
        (size, device): (u64, String),
        descriptor: Option<OwnedFd>,
    ) -> Result<(), Refusal> {
        if device != "cpu" {
            let message =
                format!("memory of device {device:?} cannot be handed over to this agent, only \"cpu\"");
            return Err(Refusal::new("NoSuchDevice", message));
        }
        let memory = descriptor.ok_or_else(|| {
            Refusal::new("DescriptorMissing", "an offer needs the descriptor of the memory with it")
        })?;
        // What the agent has let go of by itself is no longer held.
        held.retain(|_, gone| matches!(gone.try_recv(), Err(oneshot::error::TryRecvError::Empty)));
        if held.len() >= MAX_REGIONS {
            let message = format!("a connection may hold {MAX_REGIONS} regions; withdraw one first");
            return Err(Refusal::new("TooMany", message));
        }
        let (answer, answered) = oneshot::channel();
        let request =
            Request::Offer { holder: holder.clone(), region: region.to_owned(), memory, size, answer };
        let gone = self.ask(request, answered).await??;
        held.insert(region.to_owned(), gone);
        Ok(())
    }

    async fn withdraw(
        &self,
        holder: &Holder,
        held: &mut HashMap<String, Gone>,
        region: &str,
    ) -> Result<(), Refusal> {
        let gone = held
            .remove(region)
            .ok_or_else(|| Refusal::new("NotHeld", "this connection has handed over no such region"))?;
        let (answer, answered) = oneshot::channel();
        self.ask(Request::Withdraw { holder: holder.clone(), region: region.to_owned(), answer }, answered)
            .await?;
        tokio::time::timeout(DONE_WITHIN, gone).await.map(drop).map_err(|_| {
            let message = format!(
                "a transfer still uses the memory after {} s; leave it be until `ended`",
                DONE_WITHIN.as_secs()
            );
            Refusal::new("Busy", message)
        })
    }

    async fn ask<T>(&self, request: Request, answered: oneshot::Receiver<T>) -> Result<T, Refusal> {
        let ending = || Refusal::new("Unavailable", "the agent is ending; connect again later");
        self.desk.send(request).await.map_err(|_| ending())?;
        match tokio::time::timeout(DONE_WITHIN, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(ending()),
            Err(_) => Err(Refusal::new("Unavailable", "the agent did not get to it in time; try again")),
        }
    }
}

fn refusal(region: Option<String>, Refusal { reason, message }: Refusal) -> FromAgent {
    FromAgent::Refused { region, reason: reason.to_owned(), message }
}

async fn refuse(line: &Line, region: Option<String>, why: Refusal) {
    info!(reason = why.reason, message = why.message, "a workload is refused");
    line.say(&refusal(region, why)).await;
}
