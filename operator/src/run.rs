//! Puts an operator together and runs it until it is told to stop. Several can live in one process.

use std::{future::Future, sync::Arc};

use anyhow::Context;
use kube::{
    Client,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::{
    apply::writer::Writer,
    config::Config,
    control::Control,
    events::Events,
    metrics::Metrics,
    observe,
    serve::{self, Health},
};

/// Messages that may wait for the one thread; watches pause when it is behind. Each holds an object.
const QUEUE: usize = 128;

/// The client that the configuration asks for.
pub async fn client(config: &Config) -> anyhow::Result<Client> {
    let config = match &config.kubeconfig {
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
    observe::start(&mut watches, &client, &config.namespace, &sender, &health);

    tracing::info!(address = %listener.local_addr()?, "serving /metrics, /healthz, /readyz");
    let server = serve::serve(listener, health.clone(), metrics.clone(), client.clone(), async move {
        let mut stopped = stopped;
        // An error means that the sender is gone, which is a stop as well.
        let _ = stopped.changed().await;
    });
    let server = tokio::spawn(server);

    let writer =
        Writer::new(client.clone(), config.writers.into(), metrics.clone(), config.exit_after_writes);
    let control = Control::new(writer, Events::new(client), metrics, health, config, sender);
    control.run(receiver, shutdown).await;

    watches.shutdown().await;
    drop(stop);
    match tokio::time::timeout(std::time::Duration::from_secs(5), server).await {
        Ok(ended) => ended.context("the HTTP server ended unexpectedly")?.context("HTTP server"),
        Err(_) => Ok(()),
    }
}
