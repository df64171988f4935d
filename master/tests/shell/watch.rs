//! Changes as they happen, and what becomes of a reader that does not keep up.

use bytes::Bytes;
use divvy_proto::api::{Change, Snapshot};
use divvy_proto::pb::operator_client::OperatorClient;
use divvy_proto::pb::{self, WatchKind};
use divvy_proto::scheduler::{CallBody, FrameworkInfo};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::harness::{Agent, Cluster, Framework, agent_info, framework_info, within};

/// One server-sent event.
#[derive(Debug)]
struct Sse {
    name: String,
    id: u64,
    data: String,
}

/// Reads server-sent events off a body.
struct Reader<S> {
    body: S,
    text: String,
}

impl<S: Stream<Item = Result<Bytes, reqwest::Error>> + Unpin> Reader<S> {
    async fn next(&mut self) -> Sse {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    block
                        .lines()
                        .find_map(|line| line.strip_prefix(name))
                        .unwrap_or_default()
                        .trim()
                        .to_owned()
                };
                let id = field("id:").parse().unwrap_or_default();
                let event = Sse { name: field("event:"), id, data: field("data:") };
                self.text = rest.to_owned();
                if !event.name.is_empty() {
                    return event;
                }
                continue;
            }
            let bytes = within("an event", self.body.next()).await.expect("the stream goes on").unwrap();
            self.text.push_str(std::str::from_utf8(&bytes).unwrap());
        }
    }

    async fn change(&mut self) -> (u64, Change) {
        let event = self.next().await;
        let data: Value = serde_json::from_str(&event.data).unwrap();
        let change = serde_json::from_value(json!({ "kind": event.name, "data": data })).unwrap();
        (event.id, change)
    }
}

type Events = Reader<BoxStream<'static, Result<Bytes, reqwest::Error>>>;

async fn events(cluster: &Cluster) -> Events {
    events_of(cluster, cluster.http.get(cluster.url("/api/v1/events"))).await
}

async fn events_since(cluster: &Cluster, since: u64) -> Events {
    events_of(cluster, cluster.http.get(cluster.url(&format!("/api/v1/events?since={since}")))).await
}

async fn events_of(cluster: &Cluster, request: reqwest::RequestBuilder) -> Events {
    let answer = cluster.answer(request).await;
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-type"]),
        (200, &"text/event-stream".parse().unwrap())
    );
    Reader { body: answer.bytes_stream().boxed(), text: String::new() }
}

#[tokio::test]
async fn a_reader_gets_a_snapshot_and_then_each_change() {
    let cluster = Cluster::start().await;
    let _first = Agent::register(&cluster, agent_info("agent-1"), Vec::new()).await;
    let mut events = events(&cluster).await;

    let (mut last, change) = events.change().await;
    let Change::Snapshot(snapshot) = change else { panic!("{change:?}") };
    let hostnames = |snapshot: &Snapshot| {
        snapshot.agents.iter().map(|agent| agent.hostname.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(hostnames(&snapshot), ["agent-1"]);
    assert_eq!(snapshot.status.leader, cluster.master.address());

    let _second = Agent::register(&cluster, agent_info("agent-2"), Vec::new()).await;
    let (mut agent, mut status) = (None, None);
    while agent.is_none() || status.is_none() {
        let (id, change) = events.change().await;
        assert_eq!(id, last + 1);
        last = id;
        match change {
            Change::Agent(changed) => agent = Some(changed.hostname.to_string()),
            Change::Status(changed) => status = Some(changed.leader),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((agent, status), (Some("agent-2".to_owned()), Some(cluster.master.address().to_owned())));
}

#[tokio::test]
async fn the_operator_service_tells_the_same_and_only_what_is_asked_for() {
    let cluster = Cluster::start().await;
    let _agent = Agent::register(&cluster, agent_info("agent-1"), Vec::new()).await;
    let mut operator = OperatorClient::new(cluster.channel().await);
    let request = pb::WatchRequest { kinds: vec![WatchKind::Frameworks.into()], since: None };
    let mut changes = within("a stream", operator.watch(request)).await.unwrap().into_inner();
    let mut next = async || {
        let change = within("a change", changes.message()).await.unwrap().unwrap();
        Change::try_from(change).unwrap()
    };
    let Change::Snapshot(snapshot) = next().await else { panic!("no snapshot") };
    assert_eq!((snapshot.agents.len(), snapshot.frameworks.len()), (0, 0));
    let _framework = Framework::subscribe(&cluster, framework_info("test")).await;
    let Change::Framework(framework) = next().await else { panic!("no framework") };
    assert_eq!(framework.name, "test");
}

#[tokio::test]
async fn a_watch_of_the_operator_service_goes_on_from_an_index() {
    let cluster = Cluster::start().await;
    let mut operator = OperatorClient::new(cluster.channel().await);
    let from = |since| pb::WatchRequest { kinds: Vec::new(), since };
    let mut live = within("a stream", operator.watch(from(None))).await.unwrap().into_inner();
    let snapshot = within("a snapshot", live.message()).await.unwrap().unwrap();
    let _agent = Agent::register(&cluster, agent_info("agent-1"), Vec::new()).await;
    let first = within("a change", live.message()).await.unwrap().unwrap();
    assert_eq!(first.index, snapshot.index + 1);

    let mut back = within("a stream", operator.watch(from(Some(snapshot.index)))).await.unwrap().into_inner();
    assert_eq!(within("a change", back.message()).await.unwrap().unwrap(), first);
    let refused = within("a refusal", operator.watch(from(Some(5)))).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::OutOfRange);
}

/// So large that a few dozen of its changes fill every buffer between a master and a reader.
fn bulky(framework: &Framework) -> FrameworkInfo {
    let roles = (0..800).map(|n| format!("{}{n}", "r".repeat(200)).parse().unwrap()).collect();
    FrameworkInfo { id: Some(framework.id.clone()), roles, ..framework_info("bulky") }
}

#[tokio::test]
async fn a_reader_that_lags_is_cut_off_and_told_while_others_go_on() {
    let cluster = Cluster::with(|config| config.watch_queue = 8).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut slow = socket.connect(cluster.master.addr()).await.unwrap();
    let request = format!("GET /api/v1/events HTTP/1.1\r\nHost: {}\r\n\r\n", cluster.master.addr());
    slow.write_all(request.as_bytes()).await.unwrap();
    slow.readable().await.unwrap();

    let mut framework = Framework::subscribe(&cluster, framework_info("bulky")).await;
    let framework_info = bulky(&framework);
    for _ in 0..60 {
        let body = CallBody::UpdateFramework { framework: framework_info.clone(), suppressed: Vec::new() };
        let call = framework.call(body).await;
        framework.outcome(&call).await;
    }
    let mut brisk = events(&cluster).await;
    assert!(matches!(brisk.change().await.1, Change::Snapshot(_)), "a new reader starts as ever");

    let mut seen = Vec::new();
    within("the end of the slow stream", async {
        while !seen.ends_with(b"0\r\n\r\n") {
            assert_ne!(slow.read_buf(&mut seen).await.unwrap(), 0, "the answer ends in due form");
        }
    })
    .await;
    let text = String::from_utf8_lossy(&seen);
    let last = text.rfind("event: ").map(|at| &text[at..]).unwrap();
    let index = last.lines().find_map(|line| line.strip_prefix("id: ")).unwrap();
    let expected = "\"error\":\"this reader fell behind and ";
    assert!(last.starts_with("event: error\n") && last.contains(expected), "{last}");
    assert!(last.contains(&format!("go on with since={index} ")), "{last}");

    let mut back = events_since(&cluster, index.parse().unwrap()).await;
    assert_eq!(back.next().await.id, index.parse::<u64>().unwrap() + 1, "it goes on where it was cut off");
}

#[tokio::test]
async fn a_reader_that_comes_back_gets_exactly_what_it_missed() {
    let cluster = Cluster::start().await;
    let mut live = events(&cluster).await;
    let (start, _) = live.change().await;
    let mut seen = Vec::new();
    for hostname in ["agent-1", "agent-2", "agent-3"] {
        let _agent = Agent::register(&cluster, agent_info(hostname), Vec::new()).await;
    }
    // Each agent comes and goes: enough to read.
    while seen.len() < 6 {
        seen.push(live.change().await);
    }
    let indices = [start].into_iter().chain(seen.iter().map(|(index, _)| *index));
    for (nth, index) in indices.enumerate().take(seen.len()) {
        let mut back = events_since(&cluster, index).await;
        for missed in &seen[nth..] {
            assert_eq!(back.change().await, *missed);
        }
    }

    let browser = cluster.http.get(cluster.url("/api/v1/events")).header("last-event-id", start.to_string());
    assert_eq!(events_of(&cluster, browser).await.change().await, seen[0]);
    let stranger = cluster.http.get(cluster.url("/api/v1/events")).header("last-event-id", "5");
    assert!(matches!(events_of(&cluster, stranger).await.change().await.1, Change::Snapshot(_)));
}

#[tokio::test]
async fn an_index_of_another_master_is_refused_and_so_is_a_kind_that_does_not_exist() {
    let mut cluster = Cluster::start().await;
    let (index, _) = events(&cluster).await.change().await;
    cluster.restart().await;
    let refused =
        cluster.refusal(cluster.http.get(cluster.url(&format!("/api/v1/events?since={index}")))).await;
    assert_eq!(refused.0, 410);
    assert!(refused.1.contains("start over without `since`, with a snapshot"), "{}", refused.1);
    let (status, error) =
        cluster.refusal(cluster.http.get(cluster.url("/api/v1/events?kind=task,pod"))).await;
    assert_eq!(status, 400);
    assert!(error.contains("pod"), "{error}");
}

#[tokio::test]
async fn a_reader_may_name_the_kinds_that_it_wants() {
    let cluster = Cluster::start().await;
    let mut agents = events_of(&cluster, cluster.http.get(cluster.url("/api/v1/events?kind=agent"))).await;
    let _agent = Agent::register(&cluster, agent_info("agent-1"), Vec::new()).await;
    let _framework = Framework::subscribe(&cluster, framework_info("test")).await;
    let _agent = Agent::register(&cluster, agent_info("agent-2"), Vec::new()).await;
    let mut hostnames = std::collections::BTreeSet::new();
    while hostnames.len() < 2 {
        let Change::Agent(agent) = agents.change().await.1 else { panic!("only agents") };
        hostnames.insert(agent.hostname.to_string());
    }
    assert_eq!(hostnames, ["agent-1".to_owned(), "agent-2".to_owned()].into());
}
