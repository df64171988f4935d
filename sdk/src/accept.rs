//! What is done with offers: the form in which the driver takes it.

use divvy_proto::ids::{AgentId, Hostname, OfferId};
use divvy_proto::scheduler::Operation;
use divvy_proto::task::TaskInfo;

/// Offers with what was taken from each; the rest returns to the master. Several offers stand or fall together: all that is
/// asked for happens, or nothing of it.
#[derive(Debug, PartialEq)]
pub struct Accept {
    pub(crate) parts: Vec<Part>,
}

/// What was taken from one offer.
#[derive(Debug, PartialEq)]
pub(crate) struct Part {
    /// The offer.
    pub(crate) offer: OfferId,
    /// Whose resources.
    pub(crate) agent_id: AgentId,
    /// The agent's machine.
    pub(crate) hostname: Hostname,
    /// Reservations and volumes, done before the launches.
    pub(crate) operations: Vec<Operation>,
    /// The tasks.
    pub(crate) tasks: Vec<TaskInfo>,
}

/// A task of an [`Accept`], and where it goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Launch<'a> {
    /// The agent.
    pub agent_id: &'a AgentId,
    /// The agent's machine.
    pub hostname: &'a Hostname,
    /// The task.
    pub task: &'a TaskInfo,
}

impl Accept {
    /// All of these or nothing: a gang. Offers of several agents take launches only, no other operations.
    ///
    /// ```
    /// # use divvy_sdk::{Accept, Actions, Offer, TaskSpec};
    /// fn launch_all(offers: Vec<Offer>, spec: &TaskSpec) -> Actions {
    ///     let each = offers.into_iter().map(|offer| offer.launch(spec));
    ///     Actions::from_iter([Accept::together(each)])
    /// }
    /// ```
    #[must_use]
    pub fn together(accepts: impl IntoIterator<Item = Self>) -> Self {
        Self { parts: accepts.into_iter().flat_map(|accept| accept.parts).collect() }
    }

    /// The offers.
    pub fn offers(&self) -> impl Iterator<Item = OfferId> + '_ {
        self.parts.iter().map(|part| part.offer)
    }

    /// The tasks that are launched. With none, and no other operations, the offers are declined.
    pub fn launches(&self) -> impl Iterator<Item = Launch<'_>> + '_ {
        self.parts.iter().flat_map(|part| {
            let Part { agent_id, hostname, .. } = part;
            part.tasks.iter().map(move |task| Launch { agent_id, hostname, task })
        })
    }

    /// Reservations and volumes, in order.
    pub fn operations(&self) -> impl Iterator<Item = &Operation> + '_ {
        self.parts.iter().flat_map(|part| &part.operations)
    }
}
