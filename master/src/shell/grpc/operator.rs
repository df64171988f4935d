//! The operator service: the same answers as the JSON API, with types.

use std::pin::Pin;

use divvy_proto::Invalid;
use divvy_proto::api::Change;
use divvy_proto::ids::{AgentId, FrameworkId, TaskId};
use divvy_proto::pb::{self, WatchKind};
use futures::{Stream, StreamExt};
use tonic::{Request, Response, Status};

use crate::kernel::OperatorRequest;
use crate::shell::api::Api;
use crate::shell::changes::{Kinds, Subscription};

/// Answers operators.
pub(super) struct Service {
    pub(super) api: Api,
}

type Answer<T> = Result<Response<T>, Status>;

/// A list as its messages.
fn all<T, M: From<T>>(items: Vec<T>) -> Vec<M> {
    items.into_iter().map(M::from).collect()
}

fn invalid(invalid: Invalid) -> Status {
    Status::invalid_argument(invalid.to_string())
}

#[tonic::async_trait]
impl pb::operator_server::Operator for Service {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<pb::Change, Status>> + Send>>;

    async fn get_status(&self, _: Request<pb::GetStatusRequest>) -> Answer<pb::GetStatusResponse> {
        Ok(Response::new(pb::GetStatusResponse { status: Some(self.api.status().await?.into()) }))
    }

    async fn list_agents(&self, _: Request<pb::ListAgentsRequest>) -> Answer<pb::ListAgentsResponse> {
        let agents = self.api.kernel.query(|kernel, _| kernel.agents()).await?;
        Ok(Response::new(pb::ListAgentsResponse { agents: all(agents) }))
    }

    async fn list_frameworks(
        &self,
        _: Request<pb::ListFrameworksRequest>,
    ) -> Answer<pb::ListFrameworksResponse> {
        let frameworks = self.api.kernel.query(|kernel, _| kernel.frameworks()).await?;
        Ok(Response::new(pb::ListFrameworksResponse { frameworks: all(frameworks) }))
    }

    async fn list_tasks(&self, request: Request<pb::ListTasksRequest>) -> Answer<pb::ListTasksResponse> {
        let pb::ListTasksRequest { framework_id, agent_id } = request.into_inner();
        let framework = framework_id.map(FrameworkId::new).transpose().map_err(invalid)?;
        let agent = agent_id.map(AgentId::new).transpose().map_err(invalid)?;
        let mut tasks = self.api.kernel.query(|kernel, _| kernel.tasks()).await?;
        tasks.retain(|task| {
            framework.as_ref().is_none_or(|id| task.framework_id == *id)
                && agent.as_ref().is_none_or(|id| task.agent_id == *id)
        });
        Ok(Response::new(pb::ListTasksResponse { tasks: all(tasks) }))
    }

    async fn list_offers(&self, _: Request<pb::ListOffersRequest>) -> Answer<pb::ListOffersResponse> {
        let offers = self.api.kernel.query(|kernel, _| kernel.offers()).await?;
        Ok(Response::new(pb::ListOffersResponse { offers: all(offers) }))
    }

    async fn list_roles(&self, _: Request<pb::ListRolesRequest>) -> Answer<pb::ListRolesResponse> {
        let roles = self.api.kernel.query(|kernel, _| kernel.roles()).await?;
        Ok(Response::new(pb::ListRolesResponse { roles: all(roles) }))
    }

    async fn kill_task(&self, request: Request<pb::KillTaskRequest>) -> Answer<pb::KillTaskResponse> {
        let request = request.into_inner();
        if request.grace_ms.is_some() {
            return Err(Status::unimplemented("grace_ms is not supported yet: the task's own grace holds"));
        }
        let framework_id = FrameworkId::new(request.framework_id).map_err(invalid)?;
        let task_id = TaskId::new(request.task_id).map_err(invalid)?;
        self.api.operate(OperatorRequest::KillTask { framework_id, task_id }).await?;
        Ok(Response::new(pb::KillTaskResponse {}))
    }

    async fn teardown_framework(
        &self,
        request: Request<pb::TeardownFrameworkRequest>,
    ) -> Answer<pb::TeardownFrameworkResponse> {
        let id = FrameworkId::new(request.into_inner().framework_id).map_err(invalid)?;
        self.api.operate(OperatorRequest::Teardown(id)).await?;
        Ok(Response::new(pb::TeardownFrameworkResponse {}))
    }

    async fn mark_agent_gone(
        &self,
        request: Request<pb::MarkAgentGoneRequest>,
    ) -> Answer<pb::MarkAgentGoneResponse> {
        let id = AgentId::new(request.into_inner().agent_id).map_err(invalid)?;
        self.api.operate(OperatorRequest::MarkGone(id)).await?;
        Ok(Response::new(pb::MarkAgentGoneResponse {}))
    }

    async fn watch(&self, request: Request<pb::WatchRequest>) -> Answer<Self::WatchStream> {
        let request = request.into_inner();
        let wanted = Wanted::new(request.kinds())?;
        let (first, subscription) = match request.since {
            Some(since) => {
                let resumed = self.api.kernel.resume(since, &Kinds::default()).await?;
                (None, resumed.map_err(|why| Status::out_of_range(why.to_string()))?)
            }
            None => {
                let (snapshot, subscription) = self.api.snapshot().await?;
                let snapshot = Change::Snapshot(Box::new(snapshot));
                (Some(Ok((subscription.last(), snapshot))), subscription)
            }
        };
        let changes = futures::stream::iter(first).chain(later(subscription));
        let stream = changes.filter_map(move |change| std::future::ready(wanted.message(change)));
        Ok(Response::new(Box::pin(stream.take_until(self.api.stop.clone().cancelled_owned()))))
    }
}

/// A change and its index.
type Next = Result<(u64, Change), Status>;

/// Every change from now on, until the reader lags.
fn later(subscription: Subscription) -> impl Stream<Item = Next> {
    futures::stream::unfold(subscription, async |mut subscription| {
        let next = subscription.next().await?;
        let next = next.map(|numbered| (numbered.index, numbered.change.clone()));
        Some((next.map_err(|fell_behind| Status::resource_exhausted(fell_behind.to_string())), subscription))
    })
}

/// The kinds of change that a reader asked for; all if it named none.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    agents: bool,
    frameworks: bool,
    tasks: bool,
    status: bool,
    roles: bool,
    decisions: bool,
}

impl Wanted {
    fn new(kinds: impl Iterator<Item = WatchKind>) -> Result<Self, Status> {
        let kinds: Vec<WatchKind> = kinds.collect();
        if kinds.contains(&WatchKind::Unspecified) {
            return Err(invalid(Invalid::new(
                "kinds",
                "0",
                "AGENTS, FRAMEWORKS, TASKS, STATUS, ROLES or DECISIONS",
            )));
        }
        let wants = |kind| kinds.is_empty() || kinds.contains(&kind);
        Ok(Self {
            agents: wants(WatchKind::Agents),
            frameworks: wants(WatchKind::Frameworks),
            tasks: wants(WatchKind::Tasks),
            status: wants(WatchKind::Status),
            roles: wants(WatchKind::Roles),
            decisions: wants(WatchKind::Decisions),
        })
    }

    /// What the reader is told, if this was asked for.
    fn message(self, next: Next) -> Option<Result<pb::Change, Status>> {
        match next {
            Ok((index, change)) => {
                let change = self.filter(change)?;
                Some(Ok(pb::Change { index, ..change.into() }))
            }
            Err(status) => Some(Err(status)),
        }
    }

    /// The change, without what was not asked for.
    fn filter(self, change: Change) -> Option<Change> {
        let wanted = match change {
            Change::Snapshot(mut snapshot) => {
                snapshot.agents.retain(|_| self.agents);
                snapshot.frameworks.retain(|_| self.frameworks);
                snapshot.tasks.retain(|_| self.tasks);
                return Some(Change::Snapshot(snapshot));
            }
            Change::Agent(_) => self.agents,
            Change::Framework(_) => self.frameworks,
            Change::Task(_) | Change::TaskRemoved { .. } => self.tasks,
            Change::Status(_) => self.status,
            Change::Role(_) => self.roles,
            Change::Decision(_) => self.decisions,
        };
        wanted.then_some(change)
    }
}
