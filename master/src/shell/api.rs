//! What the handlers of both protocols ask of the kernel, with what only the shell knows.

use std::sync::Arc;

use divvy_proto::api::{Snapshot, Status};
use tokio_util::sync::CancellationToken;

use super::changes::Subscription;
use super::handle::{KernelHandle, Stopped};
use super::metrics::Metrics;
use crate::kernel::{Kernel, OperatorRequest};

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Api {
    pub(super) kernel: KernelHandle,
    pub(super) metrics: Metrics,
    /// For what agents and frameworks answer over HTTP.
    pub(super) proxy: reqwest::Client,
    /// Cancelled when the master stops: then every endless answer ends.
    pub(super) stop: CancellationToken,
    /// Where this master is reached; the kernel does not know.
    pub(super) address: Arc<str>,
}

/// Why an operator's request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NotDone {
    /// There is no such thing; its kind and id.
    Unknown(String),
    /// The kernel refused, and says why.
    Refused(String),
    /// This master is stopping.
    Stopped(Stopped),
}

impl From<Stopped> for NotDone {
    fn from(stopped: Stopped) -> Self {
        Self::Stopped(stopped)
    }
}

impl Api {
    /// The cluster's totals.
    pub(super) async fn status(&self) -> Result<Status, Stopped> {
        let mut status = self.kernel.query(Kernel::status).await?;
        self.address.as_ref().clone_into(&mut status.leader);
        Ok(status)
    }

    /// Everything, and every change after it.
    pub(super) async fn snapshot(&self) -> Result<(Snapshot, Subscription), Stopped> {
        let (mut snapshot, later) = self.kernel.watch(Kernel::snapshot).await?;
        self.address.as_ref().clone_into(&mut snapshot.status.leader);
        Ok((snapshot, later))
    }

    /// Returns when the kernel has done what is asked for.
    pub(super) async fn operate(&self, request: OperatorRequest) -> Result<(), NotDone> {
        let wanted = request.clone();
        if let Some(unknown) = self.kernel.query(move |kernel, _| unknown(kernel, &wanted)).await? {
            return Err(NotDone::Unknown(unknown));
        }
        self.kernel.operate(request).await?.map_err(NotDone::Refused)
    }
}

/// What the request is about, if there is no such thing.
fn unknown(kernel: &Kernel, request: &OperatorRequest) -> Option<String> {
    let (known, what) = match request {
        OperatorRequest::KillTask { framework_id, task_id } => {
            (kernel.task(framework_id, task_id).is_some(), format!("task {framework_id}/{task_id}"))
        }
        OperatorRequest::Teardown(id) => (kernel.framework(id).is_some(), format!("framework {id}")),
        OperatorRequest::MarkGone(id)
        | OperatorRequest::Deactivate(id)
        | OperatorRequest::Reactivate(id)
        | OperatorRequest::Drain { agent_id: id, .. }
        | OperatorRequest::Reserve { agent_id: id, .. }
        | OperatorRequest::Unreserve { agent_id: id, .. }
        | OperatorRequest::CreateVolume { agent_id: id, .. }
        | OperatorRequest::DestroyVolume { agent_id: id, .. }
        | OperatorRequest::ResizeVolume { agent_id: id, .. } => {
            (kernel.agent(id).is_some(), format!("agent {id}"))
        }
        _ => return None,
    };
    (!known).then_some(what)
}
