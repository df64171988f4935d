//! A task as a framework describes it before it knows where it will run.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use divvy_proto::container::{ContainerInfo, ImageName};
use divvy_proto::demand::DemandShape;
use divvy_proto::ids::VolumeId;
use divvy_proto::predicate::Predicate;
use divvy_proto::quantity::{Bytes, Cpus};
use divvy_proto::reservation::VolumeMount;
use divvy_proto::resources::Resources;
use divvy_proto::role::RolePath;
use divvy_proto::task::{Artifact, Command};
use serde::{Deserialize, Serialize};

use crate::shape;

/// A port that a task wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRequest {
    /// Its name; `$PORT_<NAME>` in the task's environment.
    pub name: String,
    /// This very number on the host; any that is offered otherwise.
    pub number: Option<u16>,
    /// The number in the container, where that has a network of its own; the same as on the host if absent.
    #[serde(default)]
    pub container: Option<u16>,
}

/// A probe that names its port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeSpec {
    /// GET answers 200 to 399.
    Http {
        /// Name of the port.
        port: String,
        /// Path and query.
        path: String,
    },
    /// The same over TLS; nobody asks whose certificate it is.
    Https {
        /// Name of the port.
        port: String,
        /// Path and query.
        path: String,
    },
    /// `grpc.health.v1.Health/Check` answers SERVING.
    Grpc {
        /// Name of the port.
        port: String,
        /// About this service; about the whole server if empty.
        service: String,
    },
    /// A connection is accepted.
    Tcp {
        /// Name of the port.
        port: String,
    },
    /// A command in the container exits with 0.
    Command(Command),
}

/// A probe and its rhythm: see [`divvy_proto::task::HealthCheck`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthSpec {
    /// What to ask.
    pub probe: ProbeSpec,
    /// From one probe's end to the next's start.
    pub interval: Duration,
    /// After which a probe has failed.
    pub timeout: Duration,
    /// Failures do not count before this has passed or a first success came.
    pub grace: Duration,
    /// So many failures on end and the task is killed.
    pub failures: u32,
}

/// Where a task may run, by an attribute of the agent (`hostname` is one).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Constraint {
    /// No two tasks of one group on agents with the same value.
    Unique {
        /// Name of the attribute.
        attribute: String,
    },
    /// Only where the value matches: text with `*` for any run of characters.
    Like {
        /// Name of the attribute.
        attribute: String,
        /// The pattern.
        pattern: String,
    },
    /// Evenly over the values that agents have: no value gets a task while another has fewer and could take one.
    Spread {
        /// Name of the attribute.
        attribute: String,
    },
}

/// As explanations show it: `hostname unique`, `rack like "r*"`.
impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unique { attribute } => write!(f, "{attribute} unique"),
            Self::Like { attribute, pattern } => write!(f, "{attribute} like {pattern:?}"),
            Self::Spread { attribute } => write!(f, "{attribute} spread"),
        }
    }
}

/// A task to launch: the command, what it needs, and how to tell whether it works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// For people; tasks of one group share it.
    pub name: String,
    /// What to execute.
    pub command: Command,
    /// Guaranteed processor time.
    pub cpus: Cpus,
    /// Caps processor time; without it the task may burst into idle cores.
    pub cpu_limit: Option<Cpus>,
    /// Memory, a hard limit.
    pub mem: Bytes,
    /// Disk.
    pub disk: Bytes,
    /// Most processes and threads.
    pub pids_limit: Option<u32>,
    /// Ports.
    pub ports: Vec<PortRequest>,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// The user to run as; the agent's default otherwise.
    pub user: Option<String>,
    /// Files to fetch first.
    pub artifacts: Vec<Artifact>,
    /// Ways to tell whether it works.
    pub health: Vec<HealthSpec>,
    /// Where it may run.
    pub constraints: Vec<Constraint>,
    /// From SIGTERM to SIGKILL; the agent's default otherwise.
    pub kill_grace: Option<Duration>,
    /// Free for the framework and for people.
    pub labels: BTreeMap<String, String>,
    /// In which of the framework's roles; in any if absent.
    #[serde(default)]
    pub role: Option<RolePath>,
    /// Of two tasks that could be preempted, the one with the lower number is.
    #[serde(default)]
    pub priority: i32,
    /// Persistent volumes that it sees. They have to be in the offer.
    #[serde(default)]
    pub volumes: Vec<VolumeMount>,
    /// Agents on which it may run, beside `constraints`.
    #[serde(default)]
    pub constraint: Option<Predicate>,
    /// How its container differs from the default, if it does.
    #[serde(default)]
    pub container: Option<Box<ContainerInfo>>,
    /// Tasks that run beside it, by name: on its agent and its network, from its start to its end. The id of each is the task's,
    /// a dot, and the name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub companions: BTreeMap<String, TaskSpec>,
}

impl TaskSpec {
    /// The task with its companions as one: what all of them need together.
    pub(crate) fn whole(&self) -> Cow<'_, Self> {
        if self.companions.is_empty() {
            return Cow::Borrowed(self);
        }
        let mut whole = Self { companions: BTreeMap::new(), ..self.clone() };
        let sum = |spec: &Self| Resources::new().with_cpus(spec.cpus).with_mem(spec.mem).with_disk(spec.disk);
        let all = self.companions.values().try_fold(sum(self), |all, spec| all.checked_add(&sum(spec)));
        // A sum beyond all numbers is more than any agent has: then the largest of its parts is as good.
        if let Some(all) = all {
            (whole.cpus, whole.mem, whole.disk) = (all.cpus(), all.mem(), all.disk());
        }
        for companion in self.companions.values() {
            whole.ports.extend(companion.ports.iter().cloned());
            whole.volumes.extend(companion.volumes.iter().cloned());
        }
        Cow::Owned(whole)
    }

    /// A line for `/bin/sh -c`, with 0.1 cpus and 32 MiB.
    pub fn shell(line: impl Into<String>) -> Self {
        Self::command(Command::Shell(line.into()))
    }

    /// A program and its arguments, with 0.1 cpus and 32 MiB.
    pub fn exec<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self::command(Command::Exec(argv.into_iter().map(Into::into).collect()))
    }

    /// What an image says is to be run, with 0.1 cpus and 32 MiB.
    #[must_use]
    pub fn image(image: ImageName) -> Self {
        Self::command(Command::Image).in_image(image)
    }

    pub(crate) fn command(command: Command) -> Self {
        Self {
            name: "task".to_owned(),
            command,
            cpus: Cpus::from_millis(100).unwrap_or_default(),
            cpu_limit: None,
            mem: Bytes::mib(32),
            disk: Bytes::ZERO,
            pids_limit: None,
            ports: Vec::new(),
            env: BTreeMap::new(),
            user: None,
            artifacts: Vec::new(),
            health: Vec::new(),
            constraints: Vec::new(),
            kill_grace: None,
            labels: BTreeMap::new(),
            role: None,
            priority: 0,
            volumes: Vec::new(),
            constraint: None,
            container: None,
            companions: BTreeMap::new(),
        }
    }

    /// Named, for people.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// With so much guaranteed processor time.
    #[must_use]
    pub fn cpus(mut self, cpus: Cpus) -> Self {
        self.cpus = cpus;
        self
    }

    /// With so much memory.
    #[must_use]
    pub fn mem(mut self, mem: Bytes) -> Self {
        self.mem = mem;
        self
    }

    /// With one more port, of any number.
    #[must_use]
    pub fn port(mut self, name: impl Into<String>) -> Self {
        self.ports.push(PortRequest { name: name.into(), number: None, container: None });
        self
    }

    /// In this image, whose own command runs if the spec has none: [`TaskSpec::image`].
    #[must_use]
    pub fn in_image(mut self, image: ImageName) -> Self {
        self.container.get_or_insert_default().image = Some(image);
        self
    }

    /// With so much disk.
    #[must_use]
    pub fn disk(mut self, disk: Bytes) -> Self {
        self.disk = disk;
        self
    }

    /// With a persistent volume at a path: absolute, or below the sandbox.
    #[must_use]
    pub fn volume(mut self, id: VolumeId, path: impl Into<String>) -> Self {
        self.volumes.push(VolumeMount { id, path: path.into(), read_only: false });
        self
    }

    /// Of two tasks that could be preempted, the one with the lower number is.
    #[must_use]
    pub fn priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    /// Only on agents of which this holds, such as `rack == "r1" && ssd >= 2`.
    #[must_use]
    pub fn constraint(mut self, constraint: Predicate) -> Self {
        self.constraint = Some(constraint);
        self
    }

    /// What the kernel is to look for when so many of it are wanted. Its constraint goes with it, and of `constraints` the
    /// patterns; what the kernel cannot know, such as where the tasks of a group are, stays with the scheduler.
    #[must_use]
    pub fn shape(&self, name: impl Into<String>, count: u32) -> DemandShape {
        shape::of(self, name.into(), count)
    }

    /// With one more variable in its environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }
}
