//! The operator, who asks again until what he wants is so: the master may have been away, or have forgotten.

use std::time::Duration;

use divvy_master::kernel::{Input, OperatorRequest, RequestId};
use divvy_proto::api::{AgentState, FrameworkState};
use divvy_proto::ids::AgentId;
use divvy_proto::time::Timestamp;
use rand::Rng;

use crate::framework::GUEST;
use crate::orders::Order;
use crate::world::{Happening, World};

/// What the operator is after.
#[derive(Debug, Clone)]
pub enum Errand {
    /// Any task that runs, once.
    KillSomeTask,
    /// An agent whose machine and disk are no more.
    MarkGone(AgentId),
    /// The framework that is torn down, under whatever id it comes.
    TearDownGuests,
    /// A change of policy, of what is reserved or of what is offered, once answered.
    Order(Order),
}

/// Between asking and asking again.
const PATIENCE: Duration = Duration::from_secs(10);

impl World {
    pub fn send_operator(&mut self, at: Timestamp, errand: Errand) {
        self.errands += 1;
        self.at(at, Happening::Operator(errand));
    }

    pub fn operator_asks(&mut self, errand: Errand) -> Result<(), String> {
        if let Errand::Order(order) = errand {
            match self.order(&order) {
                None => self.at(self.now + PATIENCE, Happening::Operator(Errand::Order(order))),
                Some(true) => {} // answered, or lost with its master
                Some(false) => self.errands -= 1,
            }
            return Ok(());
        }
        let wanted = self.requests(&errand);
        if wanted.as_ref().is_some_and(Vec::is_empty) {
            self.errands -= 1;
            return Ok(());
        }
        if matches!(errand, Errand::KillSomeTask) {
            self.errands -= 1;
        } else {
            self.at(self.now + PATIENCE, Happening::Operator(errand));
        }
        wanted.into_iter().flatten().try_for_each(|body| {
            let request = RequestId(self.next_number());
            self.master_input(Input::Operator { request, body })
        })
    }

    /// What is to be asked of the master now; `None` if nobody answers there.
    fn requests(&mut self, errand: &Errand) -> Option<Vec<OperatorRequest>> {
        let kernel = self.master.kernel.as_ref()?;
        Some(match errand {
            Errand::Order(_) => Vec::new(),
            Errand::KillSomeTask => {
                let tasks: Vec<_> =
                    kernel.tasks().into_iter().filter(|task| !task.state.is_terminal()).collect();
                let chosen = tasks.get(self.rng.random_range(0..tasks.len().max(1)));
                let kill = |task: &divvy_proto::api::Task| OperatorRequest::KillTask {
                    framework_id: task.framework_id.clone(),
                    task_id: task.id.clone(),
                };
                chosen.map(kill).into_iter().collect()
            }
            Errand::MarkGone(id) => {
                let there = kernel.agent(id).is_some_and(|agent| agent.state != AgentState::Gone);
                there.then(|| OperatorRequest::MarkGone(id.clone())).into_iter().collect()
            }
            Errand::TearDownGuests => {
                let guests = kernel.frameworks().into_iter().filter(|framework| {
                    framework.name == "guest" && framework.state != FrameworkState::Completed
                });
                let found: Vec<_> = guests.map(|framework| OperatorRequest::Teardown(framework.id)).collect();
                if found.is_empty() && self.frameworks[self.current[GUEST]].driver.is_some() {
                    return None; // it still tries to come back, under another id
                }
                found
            }
        })
    }

    /// Agents that crashed before they knew their id come back under another one. The operator sees that nobody is behind the first.
    pub fn bury_unknown_agents(&mut self) {
        let Some(kernel) = &self.master.kernel else { return };
        let lost = kernel.agents().into_iter().filter(|agent| agent.state == AgentState::Unreachable);
        let nobody: Vec<_> = lost
            .map(|agent| agent.id)
            .filter(|id| self.agents.iter().all(|node| node.id() != Some(id)))
            .collect();
        for id in nobody {
            self.send_operator(self.now, Errand::MarkGone(id));
        }
    }
}
