//! Puts an operator together and runs it until it is told to stop. Several can live in one process.

use std::{future::Future, path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use kube::{
    Api, Client,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};

use crate::{
    apply::writer::Writer,
    config::Config,
    control::{Control, Message},
    events::Events,
    leader::{self, Timing, decide::Loss, elect::Candidate, fence::Fence},
    metrics::Metrics,
    observe,
    serve::{self, Health},
};

/// Messages that may wait for the one thread; watches pause when it is behind. Each holds an object.
const QUEUE: usize = 128;

/// The client that the command line asks for.
pub async fn client(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
    let config = match kubeconfig {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path)
                .with_context(|| format!("--kubeconfig {}: cannot be read", path.display()))?;
            kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("--kubeconfig {}", path.display()))?
        }
        None => kube::Config::infer()
            .await
            .context("no cluster to talk to: give --kubeconfig, or run in a pod with a service account")?,
    };
    Client::try_from(config).context("the client cannot be made from the kubeconfig")
}

/// Runs until `shutdown` resolves. `listener` is where metrics and health are served.
pub async fn run(
    config: &Config,
    client: Client,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let metrics = Metrics::new().context("metrics")?;
    let health = Arc::new(Health::default());
    let (sender, receiver) = mpsc::channel(QUEUE);
    let (stop, stopped) = watch::channel(());

    let mut watches = JoinSet::new();
    observe::start(&mut watches, &client, &config.namespace, &sender, &health, &metrics);

    tracing::info!(address = %listener.local_addr()?, "serving /metrics, /healthz, /readyz");
    let server = serve::serve(listener, health.clone(), metrics.clone(), client.clone(), async move {
        let mut stopped = stopped;
        // An error means that the sender is gone, which is a stop as well.
        let _ = stopped.changed().await;
    });
    let server = tokio::spawn(server);

    let timing = Timing::of(Duration::from_secs(config.leader_lease_seconds));
    let fence = if config.leader_elect { Fence::closed(timing.deadline) } else { Fence::open() };
    let exit_after = config.exit_after_writes;
    let writer =
        Writer::new(client.clone(), config.writers.into(), fence.clone(), metrics.clone(), exit_after);
    let events = Events::new(client.clone(), fence.clone());
    let control = Control::new(writer, events, metrics.clone(), health.clone(), config, sender.clone());

    let lost = if config.leader_elect {
        let leases = Api::namespaced(client.clone(), &config.namespace);
        let candidate =
            Candidate::new(leases, leader::identity(config.identity.as_deref()), timing, fence, metrics);
        let (release, released) = oneshot::channel();
        // A task of its own: planning must not keep it from renewing.
        let mut leading = JoinSet::new();
        let linger = Duration::from_secs(config.linger_when_lost_seconds);
        leading.spawn(async move {
            let ended = lead(candidate, released, client, sender, health).await;
            if ended.is_err() {
                tokio::time::sleep(linger).await; // none but in a test
            }
            ended
        });
        tokio::select! {
            finished = control.run(receiver, shutdown) => {
                // An error means that it has ended, which the next line finds.
                let _ = release.send(finished);
                leading.join_next().await
            }
            // What is under way ends with `control`, at once: what was not sent yet never is.
            ended = leading.join_next() => ended,
        }
    } else {
        metrics.leader.set(1);
        control.run(receiver, shutdown).await;
        None
    };

    watches.shutdown().await;
    drop(stop);
    let served = tokio::time::timeout(Duration::from_secs(5), server).await;
    if let Some(ended) = lost {
        let ended = ended.context("the leader election ended unexpectedly")?;
        ended.map_err(|loss| anyhow::anyhow!("this operator has lost the Lease: {loss}"))?;
    }
    match served {
        Ok(ended) => ended.context("the HTTP server ended unexpectedly")?.context("HTTP server"),
        Err(_) => Ok(()),
    }
}

/// Waits until this operator leads, has everything read again and planning begin, and renews the Lease until the end.
async fn lead(
    candidate: Candidate,
    release: oneshot::Receiver<bool>,
    client: Client,
    messages: mpsc::Sender<Message>,
    health: Arc<Health>,
) -> Result<(), Loss> {
    let (acquired, leads) = oneshot::channel();
    let candidacy = candidate.run(acquired, release);
    tokio::pin!(candidacy);
    let begin = async {
        // An error means that it ended without ever having led.
        if leads.await.is_ok() && observe::catch_up(&client, &messages, &health).await {
            // The receiver is gone only when the operator stops.
            let _ = messages.send(Message::Leading).await;
        }
    };
    tokio::select! {
        biased;
        ended = &mut candidacy => return ended,
        () = begin => {}
    }
    candidacy.await
}
