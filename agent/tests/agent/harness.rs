//! An agent, its pretended master, and verbs for both.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use divvy_agent::{Agent, AgentConfig, KillTasks, Running};
use divvy_proto::agent::{AgentMessage, MasterMessage};
use divvy_proto::ids::{AgentId, Epoch, FrameworkId, Hostname, TaskId, VolumeId};
use divvy_proto::pb;
use divvy_proto::reservation::{Allocation, Reservation, Volume};
use divvy_proto::scheduler::StreamError;
use divvy_proto::task::{AgentTask, Command, TaskInfo, TaskState, TaskStatus};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

/// Whatever does not happen within this does not happen.
const DEADLINE: Duration = Duration::from_secs(20);

/// What the master has heard, and the stream on which it can speak.
#[derive(Default)]
struct Heard {
    registrations: Vec<Vec<AgentTask>>,
    /// The id under which the latest registration came.
    registered_as: Option<AgentId>,
    statuses: Vec<TaskStatus>,
    stream: Option<mpsc::UnboundedSender<Result<pb::MasterMessage, Status>>>,
}

/// A master that accepts every agent as `a1` and acknowledges every update.
#[derive(Clone, Default)]
struct Master(Arc<Mutex<Heard>>);

impl Master {
    fn say(&self, message: MasterMessage) {
        let heard = self.0.lock().unwrap();
        // An agent that has been killed does not hear it, as with any master.
        drop(heard.stream.as_ref().expect("a connected agent").send(Ok(message.into())));
    }

    fn hear(&self, message: AgentMessage) {
        match message {
            AgentMessage::Register { agent, tasks } => {
                self.0.lock().unwrap().registered_as = agent.id;
                let (agent_id, ping_interval) = (AgentId::new("a1").unwrap(), Duration::from_secs(15));
                self.say(MasterMessage::Registered { agent_id, epoch: Epoch(1), ping_interval });
                self.0.lock().unwrap().registrations.push(tasks);
            }
            AgentMessage::Pong | AgentMessage::Ended { .. } => {}
            AgentMessage::Update { framework_id, status } => {
                let (task_id, update_id) = (status.task_id.clone(), status.update_id.clone());
                self.0.lock().unwrap().statuses.push(status);
                if let Some(update_id) = update_id {
                    self.say(MasterMessage::Acknowledge { framework_id, task_id, update_id });
                }
            }
        }
    }
}

#[tonic::async_trait]
impl pb::agent_server::Agent for Master {
    type ConnectStream = Pin<Box<dyn Stream<Item = Result<pb::MasterMessage, Status>> + Send>>;

    async fn connect(
        &self,
        request: Request<Streaming<pb::AgentMessage>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.0.lock().unwrap().stream = Some(sender);
        let (master, mut messages) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Some(Ok(message)) = messages.next().await {
                master.hear(message.try_into().expect("an honest agent"));
            }
        });
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(receiver))))
    }
}

/// An agent as a process of its own, until it is killed: the arguments are the work directory, the master and the name.
pub(crate) fn serve(args: impl Iterator<Item = OsString>) {
    let args: Vec<String> = args.map(|arg| arg.into_string().unwrap()).collect();
    let [work_dir, master, name] = &args[..] else { panic!("three arguments expected") };
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    tokio.block_on(async {
        let mut agent = Agent::start(config(Path::new(work_dir), master, name)).await.unwrap();
        agent.done().await;
    });
}

fn config(work_dir: &Path, master: &str, name: &str) -> AgentConfig {
    let shim = vec![std::env::current_exe().unwrap().into_os_string(), OsString::from("shim")];
    let (listen, name) = ("127.0.0.1:0".parse().unwrap(), Hostname::new(name).unwrap());
    let config = AgentConfig::new(work_dir, master.parse().unwrap(), name, listen, shim).unwrap();
    let retry_first = Duration::from_millis(200);
    let network = crate::network::config(work_dir);
    let resources = "cpus=4;mem=1GiB;ports=[1024-65535]".parse().unwrap();
    AgentConfig { resources, retry_first, network, ..config }
}

/// A master, an agent, and the directory that outlives agents.
pub(crate) struct World {
    pub(crate) tokio: tokio::runtime::Runtime,
    master: Master,
    config: AgentConfig,
    agent: Option<Running>,
    work: tempfile::TempDir,
    /// Of the agent; no other test has it.
    pub(crate) name: String,
}

impl World {
    pub(crate) fn new() -> Self {
        let tokio =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let master = Master::default();
        let listener = tokio.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let service = pb::agent_server::AgentServer::new(master.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
        tokio.spawn(server.serve_with_incoming(incoming));
        let work =
            tempfile::Builder::new().prefix("divvy-agent-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let name = work.path().file_name().unwrap().to_string_lossy().replace('.', "-");
        let config = config(&work.path().join("agent"), &address, &name);
        let mut world = Self { tokio, master, config, agent: None, work, name };
        world.start();
        world
    }

    /// Starts an agent and waits for its registration.
    pub(crate) fn start(&mut self) {
        let before = self.registrations();
        let started = self.tokio.block_on(Agent::start(self.config.clone()));
        self.agent = Some(started.expect("an agent"));
        self.eventually("the agent registers", |world| world.registrations() > before);
    }

    /// Starts an agent as a process of its own and waits for its registration.
    pub(crate) fn start_process(&mut self) -> std::process::Child {
        self.start_process_to_die_at("")
    }

    /// The same, and it dies by SIGKILL as soon as it comes to a step.
    pub(crate) fn start_process_to_die_at(&mut self, step: &str) -> std::process::Child {
        let before = self.registrations();
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command
            .arg("serve")
            .arg(self.work_dir())
            .arg(self.config.master.as_str())
            .arg(&self.name)
            .env("DIVVY_CRASH_AT", step);
        let child = command.spawn().unwrap();
        self.eventually("the agent registers", |world| world.registrations() > before);
        child
    }

    /// Why a second agent does not start here.
    pub(crate) fn try_another(&self) -> String {
        let started = self.tokio.block_on(Agent::start(self.config.clone()));
        started.expect_err("no second agent").to_string()
    }

    pub(crate) fn stop(&mut self, kill: KillTasks) {
        if let Some(agent) = self.agent.take() {
            self.tokio
                .block_on(async { tokio::time::timeout(DEADLINE, agent.shutdown(kill)).await })
                .unwrap();
        }
    }

    /// Whatever the story left running is ended.
    pub(crate) fn leave_nothing(&mut self) {
        if self.agent.is_none() {
            self.start();
        }
        self.stop(KillTasks::Yes);
    }

    /// The agent ends at whatever instruction it is.
    pub(crate) fn crash(&mut self) {
        let _guard = self.tokio.enter();
        drop(self.agent.take());
        self.eventually("the work directory is free", |world| {
            let lock = fs::File::open(world.work_dir().join("lock")).unwrap();
            nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusiveNonblock).is_ok()
        });
    }

    /// The master has been told that the agent will not come back.
    pub(crate) fn declare_gone(&self) {
        self.master.say(MasterMessage::Error(StreamError::Gone));
        self.cut_connection();
    }

    pub(crate) fn registered_as(&self) -> Option<AgentId> {
        self.master.0.lock().unwrap().registered_as.clone()
    }

    pub(crate) fn cut_connection(&self) {
        self.master.0.lock().unwrap().stream = None;
    }

    pub(crate) fn registrations(&self) -> usize {
        self.master.0.lock().unwrap().registrations.len()
    }

    /// The tasks of the latest registration.
    pub(crate) fn registered_tasks(&self) -> Vec<(String, TaskState)> {
        let heard = self.master.0.lock().unwrap();
        let tasks = heard.registrations.last().into_iter().flatten();
        tasks.map(|task| (task.info.id.to_string(), task.status.state)).collect()
    }

    pub(crate) fn launch(&self, info: TaskInfo) {
        let (framework_name, allocation) = ("test".to_owned(), Allocation::default());
        let framework_id = framework();
        self.master.say(MasterMessage::Launch { framework_id, framework_name, task: info, allocation });
    }

    /// The master names all volumes that the agent is to have.
    pub(crate) fn volumes(&self, ids: &[&str]) {
        let volume = |id: &&str| Volume {
            id: VolumeId::new(id).unwrap(),
            size: divvy_proto::Bytes::mib(64),
            stack: vec![Reservation {
                role: "eng".parse().unwrap(),
                principal: None,
                labels: [].into(),
                fixed: false,
            }],
            principal: None,
            created: divvy_proto::Timestamp(0),
        };
        self.master.say(MasterMessage::Volumes(ids.iter().map(volume).collect()));
    }

    pub(crate) fn kill(&self, task: &str) {
        let task_id = TaskId::new(task).unwrap();
        self.master.say(MasterMessage::Kill { framework_id: framework(), task_id, grace: None });
    }

    /// Launches and waits for RUNNING.
    pub(crate) fn run(&self, info: TaskInfo) -> TaskStatus {
        let id = info.id.to_string();
        self.launch(info);
        self.until(&id, TaskState::Running)
    }

    /// Launches and waits for the end.
    pub(crate) fn ended(&self, info: TaskInfo) -> TaskStatus {
        let id = info.id.to_string();
        self.launch(info);
        self.end_of(&id)
    }

    pub(crate) fn until(&self, task: &str, state: TaskState) -> TaskStatus {
        self.status(task, &format!("is {state}"), |status| status.state == state)
    }

    pub(crate) fn end_of(&self, task: &str) -> TaskStatus {
        self.status(task, "ends", |status| status.state.is_terminal())
    }

    /// The first status that the master heard of a task that is as wanted.
    pub(crate) fn status(&self, task: &str, what: &str, wanted: impl Fn(&TaskStatus) -> bool) -> TaskStatus {
        let find = || {
            let heard = self.master.0.lock().unwrap();
            heard.statuses.iter().find(|status| status.task_id.as_str() == task && wanted(status)).cloned()
        };
        self.eventually(&format!("task {task} {what}; so far {:?}", self.states(task)), |_| find().is_some());
        find().unwrap()
    }

    /// All states of a task that the master heard of, in order.
    pub(crate) fn states(&self, task: &str) -> Vec<TaskState> {
        let heard = self.master.0.lock().unwrap();
        heard.statuses.iter().filter(|s| s.task_id.as_str() == task).map(|s| s.state).collect()
    }

    /// All statuses of a task that the master heard of, in order.
    pub(crate) fn statuses(&self, task: &str) -> Vec<TaskStatus> {
        let heard = self.master.0.lock().unwrap();
        heard.statuses.iter().filter(|status| status.task_id.as_str() == task).cloned().collect()
    }

    pub(crate) fn eventually(&self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !condition(self) {
            assert!(Instant::now() < deadline, "never: {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn work_dir(&self) -> PathBuf {
        self.work.path().join("agent")
    }

    /// A directory beside the agent's, for what is to be fetched.
    pub(crate) fn beside(&self) -> &Path {
        self.work.path()
    }

    /// Temporary directories are closed to others, but what is fetched must be readable by the task's user.
    pub(crate) fn permit_reading(&self) {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(self.work.path(), fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn sandbox(&self, task: &str) -> PathBuf {
        self.work_dir().join("sandboxes/f").join(task)
    }

    pub(crate) fn checkpoints(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.work_dir().join("checkpoints")).unwrap().flatten();
        let paths = entries.map(|entry| entry.path());
        paths.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("task-")).collect()
    }

    /// How many containers have state here.
    pub(crate) fn containers(&self) -> usize {
        fs::read_dir(self.work_dir().join("containers")).unwrap().count()
    }

    /// How much waits for its removal.
    pub(crate) fn thrown_away(&self) -> usize {
        let bins = ["checkpoints.removed", "containers.removed"].map(|name| self.work_dir().join(name));
        bins.iter().map(|bin| fs::read_dir(bin).unwrap().count()).sum()
    }

    /// The agent's answer to a GET, with its status.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let url = format!("http://{}{path}", self.agent.as_ref().unwrap().http_addr());
        self.tokio.block_on(async {
            let answer = reqwest::get(url).await.expect("an answer");
            (answer.status().as_u16(), answer.text().await.expect("a body"))
        })
    }

    /// The agent's answer to a POST of JSON, with its status.
    pub(crate) fn post(&self, path: &str, body: &str) -> (u16, String) {
        let url = format!("http://{}{path}", self.agent.as_ref().unwrap().http_addr());
        let request = reqwest::Client::new().post(url).header("content-type", "application/json");
        self.tokio.block_on(async {
            let answer = request.body(body.to_owned()).send().await.expect("an answer");
            (answer.status().as_u16(), answer.text().await.expect("a body"))
        })
    }

    /// Processes, mounts and container state that belong to the agent.
    pub(crate) fn left_behind(&self) -> Vec<String> {
        let mark = self.work.path().to_str().unwrap();
        let mut left: Vec<String> = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            for file in ["environ", "cmdline"] {
                let text = fs::read(entry.path().join(file)).unwrap_or_default();
                if String::from_utf8_lossy(&text).contains(mark) {
                    left.push(format!("process {:?}", entry.file_name()));
                }
            }
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        left.extend(mounts.lines().filter(|line| line.contains(mark)).map(ToOwned::to_owned));
        left.extend(crate::network::left_behind(&self.config.network));
        let containers = fs::read_dir(self.work_dir().join("containers")).unwrap().flatten();
        left.extend(containers.map(|entry| entry.path().display().to_string()));
        for tree in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            let groups = fs::read_dir(tree.path().join("divvy")).into_iter().flatten().flatten();
            left.extend(
                groups
                    .map(|group| group.path().display().to_string())
                    .filter(|path| path.contains(&self.name)),
            );
        }
        left
    }
}

pub(crate) fn framework() -> FrameworkId {
    FrameworkId::new("f").unwrap()
}

/// A task that runs a line of shell as nobody.
pub(crate) fn shell(id: &str, line: &str) -> TaskInfo {
    TaskInfo {
        id: TaskId::new(id).unwrap(),
        name: id.to_owned(),
        command: Command::Shell(line.to_owned()),
        resources: "cpus=0.1;mem=32MiB".parse().unwrap(),
        cpu_limit: None,
        pids_limit: Some(50),
        ports: Vec::new(),
        env: [].into(),
        user: None,
        artifacts: Vec::new(),
        health: Vec::new(),
        kill_grace: Some(Duration::from_secs(1)),
        labels: [].into(),
        priority: 0,
        volumes: Vec::new(),
        container: None,
    }
}
