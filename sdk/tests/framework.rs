//! A framework over a real socket, against a master that says what the test wants.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what it expects"
)]

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use divvy_proto::convert::limits::MESSAGE_BYTES;
use divvy_proto::ids::{AgentId, Epoch, FrameworkId, Hostname, OfferId, TaskId, UpdateId};
use divvy_proto::pb;
use divvy_proto::pb::scheduler_server::SchedulerServer;
use divvy_proto::scheduler::{Call, CallBody, Event, OfferInfo, Operation, Outcome, StreamError};
use divvy_proto::task::{ContainerStatus, Reason, Source, TaskState, TaskStatus};
use divvy_proto::{Attributes, RolePath, Timestamp};
use divvy_sdk::{Actions, Error, Framework, Offer, Scheduler, TaskSpec, View, load};
use divvy_store::{Embedded, Store};
use futures::{Stream, StreamExt};
use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::{Request, Response, Status, Streaming};

/// Whatever a test waits for comes within this time.
const DEADLINE: Duration = Duration::from_secs(10);

/// Launches `t1` where it can, and counts what it was told from outside.
#[derive(Debug, Default)]
struct One {
    told: u32,
}

impl Scheduler for One {
    fn reconcile(&mut self, view: &View, offers: Vec<Offer>) -> Actions {
        let missing = usize::from(view.tasks().next().is_none());
        let launch = |mut offer: Offer| {
            offer.take(TaskId::new("t1").ok()?, &TaskSpec::shell("sleep 30")).ok()?;
            Some(offer.accept())
        };
        offers.into_iter().take(missing).filter_map(launch).collect()
    }
}

/// One stream, as the master sees it.
struct Link {
    calls: Streaming<pb::Call>,
    events: mpsc::UnboundedSender<Result<pb::Event, Status>>,
}

impl Link {
    /// The next call, which is accepted.
    async fn call(&mut self) -> CallBody {
        let call = tokio::time::timeout(DEADLINE, self.calls.message()).await.expect("a call in time");
        let Call { id, body } = call.unwrap().expect("a call").try_into().unwrap();
        self.say(Event::Reply { call_id: id, outcome: Outcome::Accepted });
        body
    }

    fn say(&self, event: Event) {
        let _ = self.events.send(Ok(event.into()));
    }

    /// Answers Subscribe, and says with which id it came.
    async fn subscribe(&mut self) -> Option<FrameworkId> {
        let CallBody::Subscribe { framework, .. } = self.call().await else { panic!("not Subscribe") };
        self.say(Event::Subscribed {
            framework_id: FrameworkId::new("f1").unwrap(),
            epoch: Epoch(1),
            heartbeat: Duration::from_secs(15),
        });
        framework.id
    }

    /// Offers, and takes the launch of `t1`.
    async fn launch(&mut self) {
        self.say(Event::Offers(vec![offer()]));
        let CallBody::Accept { offers, operations, .. } = self.call().await else { panic!("not Accept") };
        let [Operation::Launch(tasks)] = operations.as_slice() else { panic!("{operations:?}") };
        assert_eq!((offers, tasks[0].id.as_str()), (vec![OfferId(1)], "t1"));
    }
}

/// A master that hands each new stream to the test.
struct Master {
    address: String,
    links: Mutex<mpsc::UnboundedReceiver<Link>>,
}

struct Service(mpsc::UnboundedSender<Link>);

#[tonic::async_trait]
impl pb::scheduler_server::Scheduler for Service {
    type SubscribeStream = Pin<Box<dyn Stream<Item = Result<pb::Event, Status>> + Send>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<pb::Call>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let (events, outgoing) = mpsc::unbounded_channel();
        let _ = self.0.send(Link { calls: request.into_inner(), events });
        Ok(Response::new(UnboundedReceiverStream::new(outgoing).boxed()))
    }
}

impl Master {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (streams, links) = mpsc::unbounded_channel();
        let service = SchedulerServer::new(Service(streams)).max_decoding_message_size(MESSAGE_BYTES);
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Self { address, links: Mutex::new(links) }
    }

    async fn link(&self) -> Link {
        let mut links = self.links.lock().await;
        tokio::time::timeout(DEADLINE, links.recv()).await.expect("a stream in time").expect("a stream")
    }

    fn framework(&self) -> Framework<One> {
        Framework::new("one", One::default()).master(&self.address)
    }
}

fn offer() -> OfferInfo {
    OfferInfo {
        id: OfferId(1),
        agent_id: AgentId::new("a1").unwrap(),
        hostname: Hostname::new("host-1").unwrap(),
        attributes: Attributes::default(),
        role: RolePath::default(),
        resources: "cpus=4;mem=4GiB".parse().unwrap(),
        reserved: Vec::new(),
        volumes: Vec::new(),
        revocable: false,
        unavailable: None,
        demand: None,
    }
}

fn running() -> TaskStatus {
    TaskStatus {
        task_id: TaskId::new("t1").unwrap(),
        agent_id: AgentId::new("a1").ok(),
        state: TaskState::Running,
        reason: Reason::CommandExited,
        source: Source::Agent,
        message: String::new(),
        time: Timestamp::wall_clock(),
        update_id: UpdateId::new("u1").ok(),
        healthy: None,
        container: ContainerStatus::default(),
    }
}

async fn keys(store: &dyn Store) -> Vec<String> {
    load(store, "one").await.unwrap().into_iter().map(|(key, _)| key).collect()
}

#[tokio::test]
async fn a_framework_keeps_its_id_and_its_tasks_when_its_process_ends() {
    let (master, store) = (Master::start().await, Arc::new(Embedded::in_memory().unwrap()));
    let framework = || master.framework().store(store.clone(), "one");

    let first = framework().start().await.unwrap();
    let mut link = master.link().await;
    assert_eq!(link.subscribe().await, None);
    assert_eq!(link.call().await, CallBody::Reconcile { tasks: Vec::new() });
    link.launch().await;
    assert_eq!(keys(store.as_ref()).await, ["framework/id", "framework/tasks/t1"]);
    link.say(Event::Update(running()));
    assert!(matches!(link.call().await, CallBody::Acknowledge { .. }));
    first.shutdown().await;

    let second = framework().start().await.unwrap();
    let state = second.handle().read(|_, view| view.tasks().next().map(|task| task.state())).await;
    assert_eq!(state, Ok(Some(TaskState::Running)));
    let mut link = master.link().await;
    assert_eq!(link.subscribe().await, FrameworkId::new("f1").ok());
    let asked = vec![(TaskId::new("t1").unwrap(), AgentId::new("a1").ok())];
    assert_eq!(link.call().await, CallBody::Reconcile { tasks: asked });
}

#[tokio::test]
async fn a_stream_that_ends_is_opened_again() {
    let master = Master::start().await;
    let _running = master.framework().start().await.unwrap();
    let mut first = master.link().await;
    assert_eq!(first.subscribe().await, None);
    drop(first);
    assert_eq!(master.link().await.subscribe().await, FrameworkId::new("f1").ok());
}

#[tokio::test]
async fn a_scheduler_is_changed_and_read_from_outside_with_and_without_a_master() {
    let store = Arc::new(Embedded::in_memory().unwrap());
    // Port 1 is nobody's.
    let framework = Framework::new("one", One::default()).master("127.0.0.1:1").store(store.clone(), "one");
    let running = framework.start().await.unwrap();
    let handle = running.handle();
    let change = |scheduler: &mut One, _: &View| {
        scheduler.told += 1;
        let mut actions = Actions::none();
        actions.put("told", scheduler.told.to_string().into_bytes());
        (scheduler.told, actions)
    };
    assert_eq!(handle.update(change).await, Ok(1));
    assert_eq!(keys(store.as_ref()).await, ["told"]);
    assert_eq!(handle.read(|scheduler, view| (scheduler.told, view.connected())).await, Ok((1, false)));
    running.shutdown().await;
    assert_eq!(handle.update(change).await, Err(divvy_sdk::Stopped));
}

#[tokio::test]
async fn what_was_said_before_a_shutdown_is_kept() {
    let store = Arc::new(Embedded::in_memory().unwrap());
    let framework = Framework::new("one", One::default()).master("127.0.0.1:1").store(store.clone(), "one");
    let running = framework.start().await.unwrap();
    let handle = running.handle();
    let put = |_: &mut One, _: &View| {
        let mut actions = Actions::none();
        actions.put("told", b"1".to_vec());
        ((), actions)
    };
    // Both are queued before the framework's task, on this same thread, sees either.
    let mut update = std::pin::pin!(handle.update(put));
    assert!(futures::poll!(&mut update).is_pending());
    running.shutdown().await;
    assert_eq!(keys(store.as_ref()).await, ["told"]);
}

#[tokio::test]
async fn a_large_change_is_one_commit() {
    let store = Arc::new(Embedded::in_memory().unwrap());
    let framework = Framework::new("one", One::default()).master("127.0.0.1:1").store(store.clone(), "one");
    let running = framework.start().await.unwrap();
    let change = |_: &mut One, _: &View| {
        let mut actions = Actions::none();
        (0..1000).for_each(|number| actions.put(format!("jobs/{number}"), vec![0; 4096]));
        ((), actions)
    };
    running.handle().update(change).await.unwrap();
    assert_eq!(keys(store.as_ref()).await.len(), 1000);
}

#[tokio::test]
async fn the_end_of_a_framework_says_why() {
    let master = Master::start().await;
    let mut running = master.framework().start().await.unwrap();
    let mut link = master.link().await;
    link.subscribe().await;
    link.say(Event::Error(StreamError::TakenOver));
    let ended = tokio::time::timeout(DEADLINE, running.done()).await.expect("an end in time");
    assert!(matches!(ended, Err(Error::Ended { error: StreamError::TakenOver, .. })), "{ended:?}");
}

#[tokio::test]
async fn a_teardown_leaves_nothing_of_the_driver_behind() {
    let (master, store) = (Master::start().await, Arc::new(Embedded::in_memory().unwrap()));
    let running = master.framework().store(store.clone(), "one").start().await.unwrap();
    let mut link = master.link().await;
    link.subscribe().await;
    link.call().await;
    link.launch().await;
    let teardown = tokio::spawn(running.teardown());
    assert_eq!(link.call().await, CallBody::Teardown);
    link.say(Event::Error(StreamError::TornDown));
    teardown.await.unwrap().unwrap();
    assert_eq!(keys(store.as_ref()).await, [""; 0]);
}

#[tokio::test]
async fn an_address_that_is_none_is_refused() {
    let error = Framework::new("one", One::default()).master("no address").start().await.unwrap_err();
    assert!(error.to_string().contains("\"no address\""), "{error}");
}
