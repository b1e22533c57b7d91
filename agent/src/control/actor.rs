//! One side of one task, from the first sight of it to its terminal report.

use std::sync::Arc;

use kube::ResourceExt;
use nixl_transfer_crds::{TransferTask, task::Side};
use tracing::{Instrument, info, info_span};

use super::{
    HopContext,
    hop::{Hop, TaskUpdates},
    order, source, target,
};

/// Runs one side to its end. Returns when the end is reported or the task is gone.
pub async fn run(context: Arc<HopContext>, task: Arc<TransferTask>, updates: TaskUpdates, side: Side) {
    let span = info_span!(
        "hop",
        job = task.spec.job_ref.name,
        run = task.spec.run,
        task = task.name_any(),
        namespace = task.namespace().unwrap_or_default(),
        node = context.config.node_name,
        side = ?side,
    );
    let first_order = order::order(&task, side, &context.instance);
    let hop = Hop { context, task, updates };
    async {
        if order::meant_for(&hop.task, side) != hop.context.instance && !hop.holds_lease().await {
            return info!("the task was given to another instance of this agent, which may be a newer one");
        }
        info!(order = ?first_order, "hop begins");
        match side {
            Side::Source => source::run(hop, first_order).await,
            Side::Target => target::run(hop, first_order).await,
        }
        info!("hop is over");
    }
    .instrument(span)
    .await;
}
