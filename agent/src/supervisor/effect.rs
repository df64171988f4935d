//! All that the supervisor wants done.

use std::collections::BTreeSet;

use divvy_proto::agent::AgentMessage;
use divvy_proto::container::{ImageName, StopSignal};
use divvy_proto::ids::{AgentId, VolumeId};
use divvy_proto::task::{Artifact, HealthCheck};

use super::input::{LinkId, TaskKey, Token};
use super::record::{AgentRecord, TaskRecord};
use crate::container::{ContainerId, ContainerSpec, UserName};

/// Something to be done. Checkpoints become durable in the order in which they are asked for; everything else may overtake.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "effects are moved once, out of the vector they were pushed to")]
pub enum Effect {
    /// Tell the master.
    Send {
        /// On this stream.
        link: LinkId,
        /// What.
        message: AgentMessage,
    },
    /// End a stream and look for the master anew.
    Disconnect {
        /// The stream.
        link: LinkId,
        /// Why, for the log.
        reason: String,
    },
    /// Write this where it survives the agent, and the loss of power if [`Record::outlives_power`], then feed
    /// `Input::Checkpointed`.
    Checkpoint {
        /// Names it.
        token: Token,
        /// What.
        record: Record,
    },
    /// A task is over and acknowledged: remove its checkpoint. Its sandbox stays.
    Forget(ContainerId),
    /// Make the sandbox, fetch the artifacts into it and the image, then feed `Input::Prepared` or `Input::PrepareFailed`.
    Prepare {
        /// For this container.
        container: ContainerId,
        /// Whose sandbox.
        task: TaskKey,
        /// Whose rights suffice to read what is fetched from this machine.
        user: UserName,
        /// What to fetch.
        artifacts: Vec<Artifact>,
        /// The image to have unpacked.
        image: Option<ImageName>,
    },
    /// The sandbox is no longer needed: stop fetching. No answer is expected.
    CancelPrepare(ContainerId),
    /// Start the container, then feed `Input::Launched` or `Input::LaunchFailed`.
    Launch(ContainerSpec),
    /// Wait for the container's first process, then feed `Input::Exited`.
    Watch(ContainerId),
    /// Ask the container's first process to end.
    Terminate {
        /// Of this container.
        container: ContainerId,
        /// By this signal.
        signal: StopSignal,
    },
    /// End all of the container and remove it, then feed `Input::Destroyed`. Repeated until it succeeds.
    Destroy(ContainerId),
    /// Have exactly these persistent volumes: make the directories that are missing, and remove, with all that is in them, those
    /// that are not named. Carried out in the order of the effects, before what follows.
    Volumes(BTreeSet<VolumeId>),
    /// Have no persistent volumes any more, and keep what is in those that are there under the name of the agent that this was:
    /// only an operator may say that the data can go.
    SetVolumesAside(AgentId),
    /// Make these checks on and on, each with its rhythm, and feed `Input::Health`.
    StartHealth {
        /// Of this container.
        container: ContainerId,
        /// Which.
        checks: Vec<HealthCheck>,
    },
    /// Make no more checks.
    StopHealth(ContainerId),
}

/// What survives a crash of the agent.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "records are moved once, into a file")]
pub enum Record {
    /// Who the agent is.
    Agent(AgentRecord),
    /// A task and what became of it.
    Task(TaskRecord),
}

impl Record {
    /// Whether it must survive the loss of power, too: who the agent is, and how a task ended. A task that lives does not
    /// survive it, and that is what the next agent finds without its record as well.
    pub(crate) fn outlives_power(&self) -> bool {
        match self {
            Self::Agent(_) => true,
            Self::Task(record) => record.latest.state.is_terminal(),
        }
    }
}
