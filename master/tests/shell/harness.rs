//! A master on a temporary store, and peers that speak its protocol by hand.
//!
//! Verbs: `Cluster::start`, `get`, `post`, `until`, `restart`; `Agent::register`, `tell`, `expect`; `Framework::subscribe`,
//! `call`, `expect`. Whatever is waited for has a deadline, so a test fails rather than hangs.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use divvy_master::{Master, MasterConfig, Running};
use divvy_proto::agent::{AgentInfo, AgentMessage, MasterMessage};
use divvy_proto::api::Problem;
use divvy_proto::ids::{AgentId, CallId, FrameworkId, Hostname, TaskId, UpdateId};
use divvy_proto::pb;
use divvy_proto::pb::agent_client::AgentClient;
use divvy_proto::pb::scheduler_client::SchedulerClient;
use divvy_proto::scheduler::{Call, CallBody, Event, Filters, FrameworkInfo, OfferInfo, Operation, Outcome};
use divvy_proto::task::{
    AgentTask, Command, ContainerStatus, Reason, Source, TaskInfo, TaskState, TaskStatus,
};
use divvy_proto::time::Timestamp;
use divvy_store::Embedded;
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

/// Nothing that is waited for takes longer, even on a busy machine.
const DEADLINE: Duration = Duration::from_secs(20);

/// The result, or a failed test.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

// ---- the master ----

/// A master, and where its state lives.
pub(crate) struct Cluster {
    dir: TempDir,
    adjust: fn(&mut MasterConfig),
    pub(crate) master: Running,
    pub(crate) http: reqwest::Client,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(adjust: fn(&mut MasterConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let master = start(&dir, adjust).await;
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { dir, adjust, master, http }
    }

    /// Stops the master, and starts another on the same store.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.master = start(&self.dir, self.adjust).await;
    }

    pub(crate) async fn stop(&mut self) {
        self.master.shutdown();
        within("the master's end", self.master.done()).await.unwrap();
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.master.address())
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        let answer = self.answer(self.http.get(self.url(path))).await;
        assert_eq!(answer.status(), 200, "{path}");
        within(path, answer.json()).await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str) -> u16 {
        self.answer(self.http.post(self.url(path))).await.status().as_u16()
    }

    /// The status and the problem of a request that is refused.
    pub(crate) async fn refusal(&self, request: reqwest::RequestBuilder) -> (u16, String) {
        let answer = self.answer(request).await;
        let status = answer.status().as_u16();
        let problem: Problem = within("a problem", answer.json()).await.unwrap();
        (status, problem.error)
    }

    pub(crate) async fn answer(&self, request: reqwest::RequestBuilder) -> reqwest::Response {
        within("an answer", request.send()).await.unwrap()
    }

    /// Asks again until the answer is right.
    pub(crate) async fn until<T: DeserializeOwned>(&self, path: &str, right: impl Fn(&T) -> bool) -> T {
        within(path, async {
            loop {
                let answer = self.get(path).await;
                if right(&answer) {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }

    pub(crate) async fn channel(&self) -> Channel {
        channel(self.master.address()).await
    }
}

async fn channel(url: &str) -> Channel {
    let endpoint = Channel::from_shared(url.to_owned()).unwrap();
    within("a connection", endpoint.connect()).await.unwrap()
}

async fn start(dir: &TempDir, adjust: fn(&mut MasterConfig)) -> Running {
    let store = Embedded::open(dir.path().join("store")).unwrap();
    let mut config = MasterConfig::new("127.0.0.1:0".parse().unwrap(), Arc::new(store));
    adjust(&mut config);
    within("leadership", Master::start(config)).await.unwrap()
}

// ---- an agent ----

/// An agent's side of its stream.
pub(crate) struct Agent {
    pub(crate) id: AgentId,
    to_master: mpsc::Sender<pb::AgentMessage>,
    from_master: Streaming<pb::MasterMessage>,
}

pub(crate) fn agent_info(hostname: &str) -> AgentInfo {
    AgentInfo {
        id: None,
        hostname: Hostname::new(hostname).unwrap(),
        url: "http://127.0.0.1:9".to_owned(),
        address: "127.0.0.1".to_owned(),
        resources: "cpus=4;mem=1GiB;ports=[31000-31099]".parse().unwrap(),
        attributes: "rack=r1".parse().unwrap(),
        version: "test".to_owned(),
        reserved: Vec::new(),
        revocable: Default::default(),
    }
}

impl Agent {
    /// A stream on which nothing has been said.
    pub(crate) async fn connect(
        cluster: &Cluster,
    ) -> (mpsc::Sender<pb::AgentMessage>, Streaming<pb::MasterMessage>) {
        let (to_master, messages) = mpsc::channel(64);
        let mut client = AgentClient::new(cluster.channel().await);
        let stream = within("a stream", client.connect(ReceiverStream::new(messages))).await.unwrap();
        (to_master, stream.into_inner())
    }

    pub(crate) async fn register(cluster: &Cluster, agent: AgentInfo, tasks: Vec<AgentTask>) -> Self {
        let (to_master, from_master) = Self::connect(cluster).await;
        let mut this = Self { id: AgentId::new("unknown").unwrap(), to_master, from_master };
        this.tell(AgentMessage::Register { agent, tasks }).await;
        this.id = this
            .expect("Registered", |message| match message {
                MasterMessage::Registered { agent_id, .. } => Some(agent_id),
                _ => None,
            })
            .await;
        this
    }

    pub(crate) async fn tell(&self, message: AgentMessage) {
        self.to_master.send(message.into()).await.unwrap();
    }

    /// The next message that is wanted; pings are answered, others are passed over.
    pub(crate) async fn expect<T>(&mut self, what: &str, wanted: impl Fn(MasterMessage) -> Option<T>) -> T {
        within(what, async {
            loop {
                let message = self.from_master.message().await.unwrap().expect("the stream goes on");
                let message = MasterMessage::try_from(message).unwrap();
                if message == MasterMessage::Ping {
                    self.tell(AgentMessage::Pong).await;
                }
                if let Some(found) = wanted(message) {
                    return found;
                }
            }
        })
        .await
    }

    pub(crate) async fn expect_launch(&mut self) -> (FrameworkId, TaskInfo) {
        self.expect("Launch", |message| match message {
            MasterMessage::Launch { framework_id, task, .. } => Some((framework_id, task)),
            _ => None,
        })
        .await
    }

    /// Says that a task is in this state.
    pub(crate) async fn update(&self, framework_id: &FrameworkId, status: TaskStatus) {
        self.tell(AgentMessage::Update { framework_id: framework_id.clone(), status }).await;
    }

    pub(crate) fn status(&self, task: &str, state: TaskState, update: &str) -> TaskStatus {
        TaskStatus {
            task_id: TaskId::new(task).unwrap(),
            agent_id: Some(self.id.clone()),
            state,
            reason: Reason::CommandExited,
            source: Source::Agent,
            message: String::new(),
            time: Timestamp::wall_clock(),
            update_id: Some(UpdateId::new(update).unwrap()),
            healthy: None,
            container: ContainerStatus { pid: Some(4711), ..ContainerStatus::default() },
        }
    }
}

// ---- a framework ----

/// A framework's side of its stream.
pub(crate) struct Framework {
    pub(crate) id: FrameworkId,
    calls: u64,
    to_master: mpsc::Sender<pb::Call>,
    from_master: Streaming<pb::Event>,
}

pub(crate) fn framework_info(name: &str) -> FrameworkInfo {
    FrameworkInfo {
        id: None,
        name: name.to_owned(),
        user: None,
        roles: vec!["*".parse().unwrap()],
        principal: None,
        failover_timeout: Duration::from_secs(3600),
        url: None,
        labels: BTreeMap::new(),
        capabilities: Default::default(),
    }
}

impl Framework {
    pub(crate) async fn subscribe(cluster: &Cluster, framework: FrameworkInfo) -> Self {
        Self::subscribe_at(cluster.master.address(), framework).await
    }

    /// The same, by another way to the master.
    pub(crate) async fn subscribe_at(url: &str, framework: FrameworkInfo) -> Self {
        let (to_master, calls) = mpsc::channel(64);
        let mut client = SchedulerClient::new(channel(url).await);
        let stream = within("a stream", client.subscribe(ReceiverStream::new(calls))).await.unwrap();
        let (id, from_master) = (FrameworkId::new("unknown").unwrap(), stream.into_inner());
        let mut this = Self { id, calls: 0, to_master, from_master };
        this.call(CallBody::Subscribe { framework, suppressed: Vec::new() }).await;
        this.id = this
            .expect("Subscribed", |event| match event {
                Event::Subscribed { framework_id, .. } => Some(framework_id),
                _ => None,
            })
            .await;
        this
    }

    /// Asks for something, and names the call.
    pub(crate) async fn call(&mut self, body: CallBody) -> CallId {
        self.calls += 1;
        let id = CallId::new(format!("c{}", self.calls)).unwrap();
        self.send(Call { id: id.clone(), body }.into()).await;
        id
    }

    pub(crate) async fn send(&self, call: pb::Call) {
        self.to_master.send(call).await.unwrap();
    }

    /// The same, where the master may have closed the stream.
    pub(crate) async fn try_send(&self, call: pb::Call) -> Result<(), mpsc::error::SendError<pb::Call>> {
        self.to_master.send(call).await
    }

    /// The next event, or nothing if the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        let event = within("an event", self.from_master.message()).await.unwrap();
        event.map(|event| Event::try_from(event).unwrap())
    }

    /// The next event that is wanted; others are passed over.
    pub(crate) async fn expect<T>(&mut self, what: &str, wanted: impl Fn(Event) -> Option<T>) -> T {
        within(what, async {
            loop {
                let event = self.next().await.expect("the stream goes on");
                if let Some(found) = wanted(event) {
                    return found;
                }
            }
        })
        .await
    }

    /// What became of a call.
    pub(crate) async fn outcome(&mut self, of: &CallId) -> Outcome {
        self.expect("Reply", |event| match event {
            Event::Reply { call_id, outcome } if call_id == *of => Some(outcome),
            _ => None,
        })
        .await
    }

    pub(crate) async fn expect_offer(&mut self) -> OfferInfo {
        self.expect("Offers", |event| match event {
            Event::Offers(offers) => offers.into_iter().next(),
            _ => None,
        })
        .await
    }

    pub(crate) async fn expect_update(&mut self, state: TaskState) -> TaskStatus {
        self.expect(state.name(), |event| match event {
            Event::Update(status) if status.state == state => Some(status),
            _ => None,
        })
        .await
    }

    /// Launches tasks of these ids on an offer.
    pub(crate) async fn launch(&mut self, offer: &OfferInfo, ids: &[&str]) {
        let operations = vec![Operation::Launch(ids.iter().map(|id| task(id)).collect())];
        let filters = Filters::default();
        let call = self.call(CallBody::Accept { offers: vec![offer.id], operations, filters }).await;
        assert_eq!(self.outcome(&call).await, Outcome::Accepted);
    }
}

/// A small task.
pub(crate) fn task(id: &str) -> TaskInfo {
    TaskInfo {
        id: TaskId::new(id).unwrap(),
        name: "web".to_owned(),
        command: Command::Shell("sleep 1000".to_owned()),
        resources: "cpus=1;mem=64MiB".parse().unwrap(),
        cpu_limit: None,
        pids_limit: None,
        ports: Vec::new(),
        env: BTreeMap::new(),
        user: None,
        artifacts: Vec::new(),
        health: Vec::new(),
        kill_grace: None,
        labels: BTreeMap::new(),
        priority: 0,
        volumes: Vec::new(),
        container: None,
    }
}

/// A framework with a task that runs on an agent.
pub(crate) async fn running_task(cluster: &Cluster, agent: AgentInfo, id: &str) -> (Agent, Framework) {
    let mut agent = Agent::register(cluster, agent, Vec::new()).await;
    let mut framework = Framework::subscribe(cluster, framework_info("test")).await;
    let offer = framework.expect_offer().await;
    framework.launch(&offer, &[id]).await;
    let (framework_id, launched) = agent.expect_launch().await;
    assert_eq!((framework_id, launched.id.as_str()), (framework.id.clone(), id));
    agent.update(&framework.id, agent.status(id, TaskState::Running, "u1")).await;
    framework.expect_update(TaskState::Running).await;
    (agent, framework)
}
