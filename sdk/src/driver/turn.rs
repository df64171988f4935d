//! The end of a turn: `reconcile` is called, and what it says is put in order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use divvy_proto::demand::OfferedDemand;
use divvy_proto::ids::{AgentId, Hostname, InverseOfferId, OfferId, TaskId};
use divvy_proto::role::RolePath;
use divvy_proto::scheduler::{CallBody, DEFAULT_REFUSE, Filters, Operation};
use divvy_proto::task::{ContainerStatus, Reason, Source, TaskInfo, TaskState, TaskStatus};
use divvy_proto::time::Timestamp;
use tracing::{error, warn};

use super::outbox::Batch;
use super::{Driver, Effect, PersistToken, record};
use crate::accept::Part;
use crate::{Accept, Actions, Kill, Offer, Scheduler, Task, Write};

/// What a turn has to deal with beside the actions.
#[derive(Default)]
pub(super) struct Due {
    /// The offers of this turn, to be used or declined; with the role, and the demand that each was made for.
    offers: BTreeMap<OfferId, (RolePath, Option<OfferedDemand>)>,
    /// Of updates that `reconcile` has seen.
    acknowledgements: Vec<CallBody>,
}

/// A scheduler that wants to be called again at once is called after this, so that it cannot keep a processor busy.
const SOON: Duration = Duration::from_millis(1);

impl<S: Scheduler> Driver<S> {
    /// Calls `reconcile` if there is anything new to see.
    pub(super) fn reconcile(&mut self, effects: &mut Vec<Effect>) {
        if !self.stale && self.offers.is_empty() && self.acknowledgements.is_empty() {
            return;
        }
        self.stale = false;
        let offers = std::mem::take(&mut self.offers);
        let due = Due {
            offers: offers
                .iter()
                .map(|offer| (offer.id, (offer.role.clone(), offer.demand.clone())))
                .collect(),
            acknowledgements: std::mem::take(&mut self.acknowledgements),
        };
        let principal = &self.config.framework.principal;
        let offers = offers.into_iter().map(|offer| Offer::new(offer).by(principal.clone())).collect();
        let mut actions = self.scheduler.reconcile(&self.view, offers);
        actions.forget.extend(self.surplus(&actions.forget));
        self.wake_at = actions.wake_at.map(|time| time.max(self.view.now + SOON));
        self.carry_out(actions, due, effects);
    }

    /// Makes one commit of all that is to be durable, and queues behind it all calls that follow from the actions.
    pub(super) fn carry_out(
        &mut self,
        mut actions: Actions,
        mut due: Due,
        effects: &mut Vec<Effect>,
    ) -> Option<PersistToken> {
        let (now, subscribed) = (self.view.now, self.link.is_subscribed());
        let filters = Filters { refuse: actions.refuse.unwrap_or(DEFAULT_REFUSE) };
        let mut calls = Vec::new();
        for accept in std::mem::take(&mut actions.accepts) {
            calls.extend(self.accept(accept, &mut due.offers, filters));
        }
        if !due.offers.is_empty() {
            calls.push(CallBody::Decline { offers: due.offers.into_keys().collect(), filters });
        }
        for kill in &actions.kills {
            self.kill(kill);
        }
        if subscribed {
            calls.extend(self.kills.due(now, &self.config));
        }
        if subscribed {
            calls.extend(self.accept_inverse(&actions));
        }
        calls.extend(self.interest.change(now, &actions, subscribed));
        calls.append(&mut due.acknowledgements);
        let writes = self.writes(actions);
        self.post(Batch { writes, calls }, effects)
    }

    /// An Accept, with its tasks entered into the table; `None` if nothing is left of it.
    fn accept(
        &mut self,
        accept: Accept,
        outstanding: &mut BTreeMap<OfferId, (RolePath, Option<OfferedDemand>)>,
        filters: Filters,
    ) -> Option<CallBody> {
        let Accept { mut parts } = accept;
        if let Some(late) = parts.iter().find(|part| !outstanding.contains_key(&part.offer)) {
            let offer = late.offer;
            error!(%offer, "an offer is good for the call of reconcile that it is passed to, and for no later one");
            return None;
        }
        let together = parts.len() > 1;
        let tasks = || parts.iter().flat_map(|part| &part.tasks);
        if together && !tasks().all(|task| self.is_new(task)) {
            return None; // all or nothing
        }
        for part in &mut parts {
            part.tasks.retain(|task| together || self.is_new(task));
        }
        let offers: Vec<OfferId> = parts.iter().map(|part| part.offer).collect();
        let operations: Vec<Operation> =
            parts.into_iter().flat_map(|part| self.part(part, together, outstanding)).collect();
        if operations.is_empty() {
            return None;
        }
        offers.iter().for_each(|offer| drop(outstanding.remove(offer)));
        Some(CallBody::Accept { offers, operations, filters })
    }

    /// What is done with one offer of an Accept.
    fn part(
        &mut self,
        part: Part,
        together: bool,
        outstanding: &BTreeMap<OfferId, (RolePath, Option<OfferedDemand>)>,
    ) -> Vec<Operation> {
        let Part { offer, agent_id, hostname, mut operations, tasks } = part;
        for info in &tasks {
            let task = launched(info.clone(), &agent_id, &hostname, self.view.now);
            self.changed.insert(info.id.clone());
            self.view.tasks.insert(info.id.clone(), task);
        }
        if let Some((role, Some(demand))) = outstanding.get(&offer) {
            let count = u32::try_from(tasks.len()).unwrap_or(u32::MAX);
            self.interest.launched(role, &demand.shape, count.min(demand.count));
        }
        match (tasks.is_empty(), together) {
            (true, _) => {}
            (false, true) => operations.push(Operation::LaunchOn { agent_id, tasks }),
            (false, false) => operations.push(Operation::Launch(tasks)),
        }
        operations
    }

    /// Says once that the scheduler sees to an inverse offer.
    fn accept_inverse(&mut self, actions: &Actions) -> Option<CallBody> {
        let open = |id: &&InverseOfferId| self.view.inverse.contains_key(id);
        let mut offers: Vec<_> = actions.accept_inverse.iter().filter(open).copied().collect();
        offers.retain(|id| self.inverse_accepted.insert(*id));
        (!offers.is_empty()).then_some(CallBody::AcceptInverse { offers })
    }

    fn is_new(&self, task: &TaskInfo) -> bool {
        let known = self.view.tasks.contains_key(&task.id);
        if known {
            error!(task_id = %task.id, "a task id is good for one launch; this second one is left out");
        }
        !known
    }

    fn kill(&mut self, kill: &Kill) {
        let Some(task) = self.view.tasks.get_mut(&kill.task_id).filter(|task| task.is_live()) else { return };
        if self.kills.want(self.view.now, kill) && !task.killing {
            task.killing = true;
            self.changed.insert(kill.task_id.clone());
        }
    }

    /// The scheduler's own writes, the records of what changed, and the end of those that are forgotten. The last word on each
    /// key counts.
    fn writes(&mut self, actions: Actions) -> Vec<Write> {
        let mut writes = BTreeMap::new();
        for write in actions.writes {
            let (Write::Put { key, .. } | Write::Delete { key }) = &write;
            match key.starts_with(record::OWN) {
                true => error!(key, "keys below {} are the driver's", record::OWN),
                false => drop(writes.insert(key.clone(), write)),
            }
        }
        let forgotten = self.forget(actions.forget);
        let changed = std::mem::take(&mut self.changed);
        let changed = changed.iter().filter_map(|id| self.view.task(id)).filter_map(record::put_task);
        writes.into_values().chain(changed).chain(forgotten).collect()
    }

    /// Takes ended tasks out of the table, and says which records go with them.
    fn forget(&mut self, tasks: Vec<TaskId>) -> Vec<Write> {
        let mut deleted = Vec::new();
        for id in tasks {
            match self.view.tasks.get(&id) {
                Some(task) if task.is_live() => {
                    warn!(task_id = %id, "a task that has not ended cannot be forgotten");
                }
                Some(_) => {
                    self.view.tasks.remove(&id);
                    deleted.push(record::delete_task(&id));
                }
                None => {}
            }
        }
        deleted
    }

    /// The earliest of the ended tasks that are more than are kept.
    fn surplus(&self, forgotten: &[TaskId]) -> Vec<TaskId> {
        let forgotten: BTreeSet<&TaskId> = forgotten.iter().collect();
        let ended = self.view.tasks().filter(|task| !task.is_live() && !forgotten.contains(task.id()));
        let mut ended: Vec<_> = ended.map(|task| (task.status.time, task.id())).collect();
        let surplus = ended.len().saturating_sub(self.config.ended_tasks_kept);
        if surplus > 0 {
            ended.sort_unstable();
        }
        ended.into_iter().take(surplus).map(|(_, id)| id.clone()).collect()
    }
}

/// A task from its Accept on, until something is heard of it.
fn launched(info: TaskInfo, agent_id: &AgentId, hostname: &Hostname, now: Timestamp) -> Task {
    let status = TaskStatus {
        task_id: info.id.clone(),
        agent_id: Some(agent_id.clone()),
        state: TaskState::Staging,
        reason: Reason::CommandExited,
        source: Source::Master,
        message: String::new(),
        time: now,
        update_id: None,
        healthy: None,
        container: ContainerStatus::default(),
    };
    Task {
        info,
        agent_id: agent_id.clone(),
        hostname: hostname.clone(),
        status,
        launched_at: now,
        running_since: None,
        killing: false,
    }
}
