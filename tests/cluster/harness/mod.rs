//! A cluster and the verbs that stories are told with.
//!
//! Waiting has one form, [`wait_until`]: for a condition, with a deadline.

mod http;
mod machine;
mod ports;
mod process;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use divvy_batch::planner::JobStatus;
use divvy_proto::api;
use divvy_proto::task::TaskState;
use divvy_service::api_types::AppStatus;
use serde::de::DeserializeOwned;
use tempfile::TempDir;

pub use http::{Events, get};
pub use machine::{Footprint, is_alive};
pub use ports::Ports;
pub use process::{Process, Ran, run, show_log_of_failure};

/// What does not happen within this does not happen. Generous: the machine may be busy with other tests.
pub const SOON: Duration = Duration::from_secs(60);

/// The roles of both frameworks.
const ROLES: &str = "--roles=*,eng,db";

/// From one look to the next.
const LOOK: Duration = Duration::from_millis(30);

/// Waits for a condition, looking often.
pub fn wait_until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    let value = || condition().then_some(());
    wait_for(what, deadline, value);
}

/// Waits for a value, looking often.
pub fn wait_for<T>(what: &str, deadline: Duration, mut value: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = value() {
            return value;
        }
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        std::thread::sleep(LOOK);
    }
}

/// A part of a cluster that runs as a process of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Master,
    /// Counted from 1; its hostname is `agent-N`.
    Agent(u16),
    Service,
    Batch,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Master => f.pad("master"),
            Self::Agent(number) => f.pad(&format!("agent-{number}")),
            Self::Service => f.pad("service"),
            Self::Batch => f.pad("batch"),
        }
    }
}

/// A master, agents, and both frameworks, each a process.
pub struct Cluster {
    name: &'static str,
    ports: Ports,
    parts: BTreeMap<Part, Process>,
    agents: u16,
    /// Last, so that it goes when nothing is in it any more.
    dir: TempDir,
}

impl Cluster {
    /// Starts a cluster with so many agents of 4 cpus and 2 GiB each, and waits until it is whole.
    pub fn start(name: &'static str, agents: u16) -> Self {
        let mut cluster = Self::empty(name, agents);
        let agents = (1..=agents).map(Part::Agent);
        for part in [Part::Master].into_iter().chain(agents).chain([Part::Service, Part::Batch]) {
            cluster.restart(part);
        }
        cluster.wait_until("the cluster is whole", || cluster.is_whole());
        cluster
    }

    fn empty(name: &'static str, agents: u16) -> Self {
        assert!(nix::unistd::Uid::effective().is_root(), "containers need root: run these tests as root");
        let dir = tempfile::Builder::new().prefix("divvy-cluster-").tempdir().expect("a temporary directory");
        Self { name, ports: Ports::take(), parts: BTreeMap::new(), agents, dir }
    }

    fn is_whole(&self) -> bool {
        let Some(status) = self.try_get::<api::Status>("/api/v1/status") else { return false };
        let active = |count: Option<&usize>| count.copied().unwrap_or_default();
        active(status.agents.get(&api::AgentState::Active)) == usize::from(self.agents)
            && active(status.frameworks.get(&api::FrameworkState::Active)) == 2
            && self.answers("service")
            && self.answers("batch")
    }

    /// Whether the framework is connected and its REST API can be reached by way of the master.
    pub fn answers(&self, framework: &str) -> bool {
        let health: Option<serde_json::Value> = self.try_get(&format!("/frameworks/{framework}/health"));
        health.is_some_and(|health| health["connected"] == true)
    }

    // -- Processes --

    /// Starts a part, in the place where it was before if it was.
    pub fn restart(&mut self, part: Part) {
        let (log, arguments) = (self.log(part), self.arguments(part));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let old = self.parts.insert(part, Process::start(&arguments, &log));
        assert!(old.is_none_or(|mut old| !old.is_running()), "{part} runs already");
        self.parts.get_mut(&part).expect("a part that was started").wait_until_ready();
    }

    /// Ends a part as a power cut does.
    pub fn kill9(&mut self, part: Part) {
        self.parts.get_mut(&part).expect("a part that was started").kill9();
    }

    /// A part's process is still the one that was started.
    pub fn is_running(&mut self, part: Part) -> bool {
        self.parts.get_mut(&part).is_some_and(Process::is_running)
    }

    /// The process of a part.
    pub fn pid(&self, part: Part) -> u32 {
        self.parts.get(&part).expect("a part that was started").pid()
    }

    /// Starts another program that finds the master by its environment.
    pub fn start_scheduler(&self, program: &Path) -> Process {
        Process::start_program(program, &[], &[("DIVVY_MASTER", &self.master())], &self.path("scheduler.log"))
    }

    /// The end of an agent and of everything that runs on its machine.
    pub fn power_off(&mut self, agent: u16) {
        self.kill9(Part::Agent(agent));
        let footprint = self.footprint(agent);
        footprint.kill_processes();
    }

    fn footprint(&self, agent: u16) -> Footprint {
        Footprint::of_agent(&self.work_dir(agent), &Part::Agent(agent).to_string())
    }

    /// Processes, mounts and cgroups of all agents, and whatever else names the cluster's directory.
    pub fn leftovers(&self) -> Vec<String> {
        let agents = (1..=self.agents).flat_map(|agent| self.footprint(agent).cgroups());
        let cgroups = agents.map(|path| format!("cgroup {}", path.display()));
        Footprint::of_dir(self.dir.path()).list().into_iter().chain(cgroups).collect()
    }

    fn arguments(&self, part: Part) -> Vec<String> {
        let (master, dir) = (format!("--master={}", self.master()), |what: &str| self.path(what));
        let data = |what: &str| format!("--data-dir={}", dir(what).display());
        match part {
            Part::Master => vec![
                "master".into(),
                format!("--listen={}", self.master()),
                data("master"),
                "--ping-interval=1s".into(),
                "--missed-pings=4".into(),
                "--revocation-grace=3s".into(),
            ],
            Part::Agent(number) => vec![
                "agent".into(),
                master,
                "--listen=127.0.0.1:0".into(),
                format!("--work-dir={}", self.work_dir(number).display()),
                format!("--hostname={part}"),
                format!("--resources=cpus=4;mem=2GiB;disk=10GiB;ports=[{}]", self.ports.of_agent(number)),
            ],
            Part::Service => vec!["service".into(), "serve".into(), master, data("service"), ROLES.into()],
            Part::Batch => vec!["batch".into(), "serve".into(), master, data("batch"), ROLES.into()],
        }
    }

    fn log(&self, part: Part) -> PathBuf {
        self.path(&format!("{part}.log"))
    }

    fn work_dir(&self, agent: u16) -> PathBuf {
        self.path(&Part::Agent(agent).to_string())
    }

    // -- Asking --

    /// `host:port` of the master.
    pub fn master(&self) -> String {
        format!("127.0.0.1:{}", self.ports.master())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file into the cluster's directory.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).expect("a file that can be written");
        path.to_str().expect("a path in UTF-8").to_owned()
    }

    /// Runs a command of the command line against this cluster, with a deadline.
    pub fn divvy(&self, arguments: &[&str]) -> Ran {
        let master = format!("--master={}", self.master());
        run(
            env!("CARGO_BIN_EXE_divvy").as_ref(),
            &[&[master.as_str()], arguments].concat(),
            &self.path("cli"),
        )
    }

    /// Runs a command that must succeed, and reads the JSON that it prints.
    pub fn json<T: DeserializeOwned>(&self, arguments: &[&str]) -> T {
        let ran = self.divvy(&[arguments, &["-o", "json"]].concat());
        assert_eq!(ran.code, 0, "divvy {arguments:?}: {ran}");
        serde_json::from_str(&ran.stdout)
            .unwrap_or_else(|error| panic!("divvy {arguments:?}: {error}: {ran}"))
    }

    /// Asks the master by HTTP; `None` while it does not answer with a success.
    pub fn try_get<T: DeserializeOwned>(&self, path: &str) -> Option<T> {
        let answer = http::get(&self.master(), path).ok().filter(|answer| answer.status == 200)?;
        serde_json::from_str(&answer.body).ok()
    }

    /// Server-sent events, by way of the master.
    pub fn events(&self, path: &str) -> Events {
        http::events(&self.master(), path).expect("a stream of events")
    }

    /// All tasks that the master lists; none while it does not answer.
    pub fn tasks(&self) -> Vec<api::Task> {
        self.try_get("/api/v1/tasks").unwrap_or_default()
    }

    /// Name and process of every task that is RUNNING, by id.
    pub fn running(&self) -> BTreeMap<String, u32> {
        let running = self.tasks().into_iter().filter(|task| task.state == TaskState::Running);
        running.filter_map(|task| Some((task.id.to_string(), task.pid?))).collect()
    }

    /// Ids of agents and frameworks by name.
    pub fn identities(&self) -> BTreeMap<String, String> {
        let agents: Vec<api::Agent> = self.try_get("/api/v1/agents").unwrap_or_default();
        let frameworks: Vec<api::Framework> = self.try_get("/api/v1/frameworks").unwrap_or_default();
        let agents = agents.into_iter().filter(|agent| agent.state == api::AgentState::Active);
        let frameworks =
            frameworks.into_iter().filter(|framework| framework.state == api::FrameworkState::Active);
        let agents = agents.map(|agent| (agent.hostname.to_string(), agent.id.to_string()));
        agents.chain(frameworks.map(|framework| (framework.name, framework.id.to_string()))).collect()
    }

    pub fn app(&self, id: &str) -> Option<AppStatus> {
        self.try_get(&format!("/frameworks/service/v1/apps/{id}"))
    }

    pub fn job(&self, id: &str) -> Option<JobStatus> {
        self.try_get(&format!("/frameworks/batch/v1/jobs/{id}"))
    }

    /// All sandboxes on disk: task id and path.
    pub fn sandboxes(&self) -> BTreeMap<String, PathBuf> {
        let agents = (1..=self.agents).map(|agent| self.work_dir(agent).join("sandboxes"));
        let tasks =
            agents.flat_map(|root| machine::directories(&root)).flat_map(|root| machine::directories(&root));
        tasks.filter_map(|path| Some((path.file_name()?.to_str()?.to_owned(), path))).collect()
    }

    /// Makes an empty file in a task's sandbox: what its program waits for.
    pub fn touch(&self, task: &str, name: &str) {
        let sandbox = self.sandboxes().remove(task).unwrap_or_else(|| panic!("no sandbox of {task}"));
        std::fs::write(sandbox.join(name), "").expect("a file in a sandbox");
    }

    pub fn wait_until(&self, what: &str, condition: impl FnMut() -> bool) {
        wait_until(what, SOON, condition);
    }

    pub fn wait_for<T>(&self, what: &str, value: impl FnMut() -> Option<T>) -> T {
        wait_for(what, SOON, value)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for (part, process) in &mut self.parts {
            process.kill9();
            show_log_of_failure(self.name, &part.to_string(), &process.log);
        }
        for agent in 1..=self.agents {
            self.footprint(agent).remove();
        }
        Footprint::of_dir(self.dir.path()).kill_processes();
        let left = self.leftovers();
        if !std::thread::panicking() {
            assert_eq!(
                left,
                Vec::<String>::new(),
                "{} leaves this behind although all was killed",
                self.name
            );
        }
    }
}

/// The text of an app whose task is a line of shell, to which a story adds what it needs.
pub fn app_file(id: &str, instances: u32, shell: &str, more: &str) -> String {
    format!(
        "id = \"{id}\"\ninstances = {instances}\n[update]\nmin_healthy_time = \"0s\"\ndrain = \"0s\"\n\
         [task]\nshell = '''{shell}'''\ncpus = 0.1\nmem = \"32MiB\"\n{more}\n"
    )
}

/// The text of a job whose task is a line of shell; `head` goes before the task's table, `more` into it.
pub fn job_file(id: &str, head: &str, shell: &str, more: &str) -> String {
    format!("id = \"{id}\"\n{head}\n[task]\nshell = '''{shell}'''\ncpus = 0.1\n{more}\n")
}

/// Where a test may keep what shall outlive it.
fn kept(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("cluster").join(name)
}
