//! How tasks come to be: by a launch, or as what an earlier process of the agent knew.

use divvy_proto::container::StopSignal;
use divvy_proto::ids::FrameworkId;
use divvy_proto::reservation::Allocation;
use divvy_proto::task::{ContainerStatus, Reason, Source, TaskInfo, TaskState, TaskStatus};

use super::{Admission, Phase, Task};
use crate::container::{ContainerId, ContainerState, Exited};
use crate::supervisor::health::Health;
use crate::supervisor::{Effect, TaskRecord, Turn, environment, group};

impl TaskRecord {
    /// A task as it is launched: STARTING, and nothing on disk yet.
    pub(in super::super) fn new(
        turn: &mut Turn<'_>,
        (framework_id, framework_name): (FrameworkId, String),
        (info, allocation): (TaskInfo, Allocation),
        container: ContainerId,
    ) -> Self {
        let latest = TaskStatus {
            task_id: info.id.clone(),
            agent_id: turn.agent_id.cloned(),
            state: TaskState::Starting,
            reason: Reason::CommandExited,
            source: Source::Agent,
            message: String::new(),
            time: turn.now,
            update_id: None,
            healthy: None,
            container: ContainerStatus::default(),
        };
        Self {
            framework_id,
            framework_name,
            info,
            allocation,
            container,
            boot_id: turn.config.boot_id.clone(),
            running_since: None,
            kill: None,
            stop_signal: StopSignal::TERM,
            latest,
            unacknowledged: std::collections::VecDeque::new(),
        }
    }
}

impl Task {
    /// A task that was launched.
    pub(in super::super) fn admitted(turn: &mut Turn<'_>, record: TaskRecord, admission: Admission) -> Self {
        let mut task = Self::at(record, Phase::Admitted);
        match admission {
            Admission::Refused(outcome) => {
                task.phase = Phase::Done;
                task.say(turn, outcome);
            }
            Admission::Now | Admission::Later => {
                task.waits = admission == Admission::Later;
                task.company_by = task.is_of_group().then(|| turn.now + group::PATIENCE);
                let sandbox = environment::sandbox(turn.config, &task.record.key());
                task.record.latest.container.sandbox = Some(sandbox.display().to_string());
                let message = match task.waits {
                    true => "it waits for the end of a task whose resources it is to have",
                    false => "the container is being prepared",
                };
                task.say(turn, (TaskState::Starting, Reason::CommandExited, message.to_owned()));
            }
        }
        task.save(turn);
        task
    }

    /// A task that an earlier process of the agent knew, and what its container is now.
    pub(in super::super) fn recovered(
        turn: &mut Turn<'_>,
        record: TaskRecord,
        state: ContainerState,
    ) -> Self {
        let mut task = Self::at(record, Phase::Running);
        if task.record.latest.state.is_terminal() {
            task.phase = Phase::Ended;
            task.held = task.is_of_group(); // until it is known who else of the group is here
            task.proceed(turn);
        } else if task.record.boot_id != turn.config.boot_id {
            let message = "the machine was rebooted".to_owned();
            task.end(turn, (TaskState::Failed, Reason::AgentRestarted, message));
        } else {
            task.found(turn, state);
        }
        task
    }

    fn found(&mut self, turn: &mut Turn<'_>, state: ContainerState) {
        match state {
            ContainerState::Running { pid, addresses } if self.record.running_since.is_none() => {
                self.phase = Phase::Launching;
                self.launched(turn, pid, addresses);
            }
            ContainerState::Running { .. } => {
                turn.effects.push(Effect::Watch(self.record.container.clone()));
                if self.record.kill.is_none() {
                    self.start_health(turn);
                }
                self.proceed(turn);
            }
            ContainerState::Exited(exited) => self.exited(turn, &exited),
            // A launched container leaves a trace until it is destroyed, and it is destroyed only after its end is on disk.
            ContainerState::Absent if self.record.running_since.is_none() && self.record.kill.is_none() => {
                let message = "the agent was restarted before the task was started".to_owned();
                self.end(turn, (TaskState::Dropped, Reason::AgentRestarted, message));
            }
            ContainerState::Absent if self.record.running_since.is_none() => self.end_unstarted(turn),
            ContainerState::Absent => {
                self.exited(turn, &Exited { status: None, oom: None, at: turn.now });
            }
        }
    }

    fn at(record: TaskRecord, phase: Phase) -> Self {
        let health = Health::new(record.info.health.len(), record.latest.healthy);
        let (waits, unwritten, in_flight, kill_at) = (false, None, None, None);
        let (image, company_by, held) = (None, None, false);
        Self { record, phase, waits, unwritten, in_flight, kill_at, health, image, company_by, held }
    }
}
