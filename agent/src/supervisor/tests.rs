//! What the supervisor's tests share: a bench with one supervisor on it, verbs for what happens, and effects as short lines,
//! so that each test compares all of them.

mod groups;
mod health;
mod kill;
mod life;
mod link;
mod property;
mod recovery;
mod volumes;

use std::path::PathBuf;
use std::time::Duration;

use divvy_proto::agent::{AgentInfo, AgentMessage, MasterMessage};
use divvy_proto::ids::{AgentId, Epoch, FrameworkId, Hostname, TaskId, UpdateId};
use divvy_proto::reservation::Allocation;
use divvy_proto::task::{Command, ExitStatus, TaskInfo, TaskPort, TaskStatus};
use divvy_proto::time::Timestamp;

use super::{Config, Effect, Input, LinkId, Record, Recovered, Supervisor, TaskRecord, Token};
use crate::container::{ContainerId, Exited, Oom, UserName};

pub(super) fn config() -> Config {
    Config {
        incarnation: "i".to_owned(),
        boot_id: "boot-1".to_owned(),
        agent: AgentInfo {
            id: None,
            hostname: Hostname::new("agent-1").unwrap(),
            url: "http://10.0.0.7:5051".to_owned(),
            address: "10.0.0.7".to_owned(),
            resources: "cpus=4;mem=1GiB;ports=[31000-31009]".parse().unwrap(),
            reserved: Vec::new(),
            revocable: "cpus=1;mem=128MiB".parse().unwrap(),
            attributes: "rack=r1".parse().unwrap(),
            version: "0.1.0".to_owned(),
        },
        sandboxes: PathBuf::from("/work/sandboxes"),
        volumes: PathBuf::from("/work/volumes"),
        default_user: UserName::new("nobody").unwrap(),
        kill_grace: secs(3),
        pids_limit: 100,
        retry_first: secs(10),
        retry_longest: secs(60),
        missed_pings: 5,
        registration_timeout: secs(30),
    }
}

pub(super) fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A task of one core, 64 MiB and port 31000.
pub(super) fn task(id: &str) -> TaskInfo {
    TaskInfo {
        id: TaskId::new(id).unwrap(),
        name: "web".to_owned(),
        command: Command::Exec(vec!["/bin/server".to_owned()]),
        resources: "cpus=1;mem=64MiB".parse().unwrap(),
        cpu_limit: None,
        pids_limit: None,
        ports: Vec::new(),
        env: [].into(),
        user: None,
        artifacts: Vec::new(),
        health: Vec::new(),
        kill_grace: None,
        labels: [].into(),
        priority: 0,
        volumes: Vec::new(),
        container: None,
    }
}

pub(super) fn framework(id: &str) -> FrameworkId {
    FrameworkId::new(id).unwrap()
}

pub(super) fn launch(info: TaskInfo) -> MasterMessage {
    launch_from(info, Allocation::default())
}

pub(super) fn launch_from(task: TaskInfo, allocation: Allocation) -> MasterMessage {
    let framework_name = "service".to_owned();
    MasterMessage::Launch { framework_id: framework("f"), framework_name, task, allocation }
}

pub(super) fn kill(task: &str, grace: Option<Duration>) -> MasterMessage {
    MasterMessage::Kill { framework_id: framework("f"), task_id: TaskId::new(task).unwrap(), grace }
}

pub(super) fn acknowledge(task: &str, update: &str) -> MasterMessage {
    MasterMessage::Acknowledge {
        framework_id: framework("f"),
        task_id: TaskId::new(task).unwrap(),
        update_id: UpdateId::new(update).unwrap(),
    }
}

/// The container of the n-th launch.
pub(super) fn container(n: u32) -> ContainerId {
    ContainerId::new(format!("i-{n}")).unwrap()
}

pub(super) fn exited(status: ExitStatus) -> Exited {
    Exited { status: Some(status), oom: None, at: Timestamp(u64::MAX) }
}

/// A supervisor, the time, and the checkpoints that are not yet on disk.
pub(super) struct Bench {
    pub(super) core: Supervisor,
    pub(super) now: Timestamp,
    pub(super) link: LinkId,
    /// The latest record of each task that the supervisor asked to write.
    pub(super) records: Vec<TaskRecord>,
    unwritten: Vec<Token>,
}

impl Bench {
    /// A supervisor that knows nothing and nobody.
    pub(super) fn blank() -> Self {
        let core = Supervisor::new(config());
        Self { core, now: Timestamp(0), link: LinkId(1), records: Vec::new(), unwritten: Vec::new() }
    }

    /// A supervisor that a master has registered as `a`.
    pub(super) fn new() -> Self {
        let mut bench = Self::blank();
        bench.feed(Input::Recovered(Recovered::default()));
        bench.feed(Input::Connected(LinkId(1)));
        bench.registered(1);
        bench.written();
        bench
    }

    /// With task `t` running and everything acknowledged.
    pub(super) fn running(info: TaskInfo) -> Self {
        let mut bench = Self::new();
        bench.hear(launch(info));
        bench.written();
        bench.feed(Input::Prepared { container: container(1), image: None });
        bench.hear(acknowledge("t", "i-1"));
        bench.feed(Input::Launched { container: container(1), pid: 77, addresses: Vec::new() });
        bench.written();
        bench.hear(acknowledge("t", "i-2"));
        bench
    }

    pub(super) fn feed(&mut self, input: Input) -> Vec<String> {
        let mut effects = Vec::new();
        self.core.handle(self.now, input, &mut effects);
        for effect in &effects {
            if let Effect::Checkpoint { token, record } = effect {
                self.unwritten.push(*token);
                if let Record::Task(record) = record {
                    self.records.retain(|other| other.container != record.container);
                    self.records.push(record.clone());
                }
            }
        }
        effects.iter().map(show).collect()
    }

    pub(super) fn hear(&mut self, message: MasterMessage) -> Vec<String> {
        self.feed(Input::Master { link: self.link, message })
    }

    pub(super) fn registered(&mut self, epoch: u32) -> Vec<String> {
        self.hear(MasterMessage::Registered {
            agent_id: AgentId::new("a").unwrap(),
            epoch: Epoch(epoch),
            ping_interval: secs(15),
        })
    }

    /// All checkpoints reach the disk.
    pub(super) fn written(&mut self) -> Vec<String> {
        let tokens = std::mem::take(&mut self.unwritten);
        tokens.into_iter().flat_map(|token| self.feed(Input::Checkpointed(token))).collect()
    }

    pub(super) fn exits(&mut self, status: ExitStatus) -> Vec<String> {
        self.feed(Input::Exited { container: container(1), exited: exited(status) })
    }

    /// Time passes, and the supervisor is woken if it wanted to be.
    pub(super) fn pass(&mut self, time: Duration) -> Vec<String> {
        self.now = self.now + time;
        match self.core.next_deadline().is_some_and(|at| at <= self.now) {
            true => self.feed(Input::Tick),
            false => Vec::new(),
        }
    }
}

fn show_status(status: &TaskStatus) -> String {
    let id = status.update_id.as_ref().map_or("-", UpdateId::as_str);
    let healthy = status.healthy.map(|healthy| if healthy { " healthy" } else { " unhealthy" });
    let pid = status.container.pid.map(|pid| format!(" pid {pid}")).unwrap_or_default();
    let exit = status.container.exit.map(|exit| format!(" {exit}")).unwrap_or_default();
    format!(
        "{} {id} {} {}{}{pid}{exit}: {}",
        status.task_id,
        status.state,
        status.reason,
        healthy.unwrap_or_default(),
        status.message
    )
}

/// An effect as a line.
fn show(effect: &Effect) -> String {
    match effect {
        Effect::Send { message: AgentMessage::Register { agent, tasks }, .. } => {
            let id = agent.id.as_ref().map_or("-", AgentId::as_str);
            let tasks: Vec<String> =
                tasks.iter().map(|task| format!("{} {}", task.info.id, task.status.state)).collect();
            format!("register {id} {tasks:?}")
        }
        Effect::Send { message: AgentMessage::Pong, .. } => "pong".to_owned(),
        Effect::Send { message: AgentMessage::Update { status, .. }, .. } => {
            format!("send {}", show_status(status))
        }
        Effect::Send { message: AgentMessage::Ended { task_id, .. }, .. } => format!("{task_id} has ended"),
        Effect::Disconnect { reason, .. } => format!("hang up: {reason}"),
        Effect::Checkpoint { record: Record::Agent(agent), .. } => format!("write agent {}", agent.agent_id),
        Effect::Checkpoint { record: Record::Task(task), .. } => {
            let states: Vec<&str> = task.unacknowledged.iter().map(|status| status.state.name()).collect();
            format!("write {} {} {states:?}", task.info.id, task.latest.state)
        }
        Effect::Forget(container) => format!("forget {container}"),
        Effect::Prepare { container, task, user, artifacts, .. } => {
            format!("prepare {container} for {} as {user} with {} artifacts", task.task_id, artifacts.len())
        }
        Effect::CancelPrepare(container) => format!("cancel {container}"),
        Effect::Launch(spec) => {
            let joins = spec.joins.as_ref().map(|lead| format!(" with the network of {lead}"));
            let ports: Vec<String> =
                spec.port_maps.iter().map(|map| format!(" port {}:{}", map.host, map.container)).collect();
            let group = joins.unwrap_or_default() + &ports.concat();
            format!("start {} {:?} in {}{group}", spec.id, spec.argv, spec.sandbox.display())
        }
        Effect::Watch(container) => format!("watch {container}"),
        Effect::Terminate { container, .. } => format!("terminate {container}"),
        Effect::Destroy(container) => format!("destroy {container}"),
        Effect::Volumes(volumes) => format!("volumes {volumes:?}"),
        Effect::SetVolumesAside(agent) => format!("set volumes of {agent} aside"),
        Effect::StartHealth { container, checks } => {
            format!("probe {container} with {} checks", checks.len())
        }
        Effect::StopHealth(container) => format!("stop probing {container}"),
    }
}
