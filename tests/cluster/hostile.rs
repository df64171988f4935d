//! Peers that do not keep to the rules: refused in clear words, and nobody else notices.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use divvy_proto::api::Agent;
use divvy_proto::pb;
use divvy_proto::pb::call::Body;
use divvy_proto::pb::refusal::Refusal;
use divvy_proto::pb::scheduler_client::SchedulerClient;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

use crate::harness::{Cluster, Part, SOON, app_file};

#[test]
fn a_hostile_peer_is_refused_and_harms_nobody() {
    let mut cluster = Cluster::start("hostile", 1);
    let file = cluster.file("calm.toml", &app_file("calm", 2, "exec sleep 100000", ""));
    cluster.divvy(&["service", "apply", &file, "--wait"]).ok();
    let before = cluster.running();

    throw_garbage(&cluster.master());
    let agents: Vec<Agent> = cluster.json(&["agents"]);
    throw_garbage(agents[0].url.trim_start_matches("http://"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let master = format!("http://{}", cluster.master());
        say_too_much(&master).await;
        speak_out_of_turn(&master).await;
        lie(&master, before.keys().next().expect("a task")).await;
    });

    let log = std::fs::read_to_string(cluster.path("master.log")).expect("a log");
    let offences = log.lines().filter(|line| line.contains("does not speak the protocol")).count();
    assert_eq!(offences, 1, "what follows an oversized message is not taken for more messages: {log}");

    assert_eq!(cluster.running(), before);
    for part in [Part::Master, Part::Agent(1), Part::Service, Part::Batch] {
        assert!(cluster.is_running(part), "{part}");
    }
    cluster.divvy(&["service", "scale", "calm", "3", "--wait"]).ok();
}

/// Bytes of all kinds on a port that expects HTTP. The server may answer or hang up.
fn throw_garbage(address: &str) {
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1 << 20));
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff".as_slice();
    let noise: Vec<u8> = (0..100_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let chunked =
        b"POST /api/v1/agents/x/gone HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n"
            .as_slice();
    for bytes in
        [&noise[..], long.as_bytes(), preface, chunked, b"GET /../../etc/passwd HTTP/1.0\r\n\r\n", b"\0"]
    {
        let mut stream = TcpStream::connect(address).expect("a server");
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        // The server may hang up in the middle.
        let _ = stream.write_all(bytes).and_then(|()| stream.shutdown(std::net::Shutdown::Write));
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(!String::from_utf8_lossy(&answer).contains("root:"));
    }
}

/// A framework that speaks the protocol as it likes.
struct Rogue {
    calls: mpsc::Sender<pb::Call>,
    events: tonic::Streaming<pb::Event>,
}

impl Rogue {
    async fn connect(master: &str) -> Self {
        let (calls, receiver) = mpsc::channel(16);
        let channel = Endpoint::from_shared(master.to_owned()).expect("an address").connect().await;
        let mut client = SchedulerClient::new(channel.expect("a master"));
        let events = client.subscribe(ReceiverStream::new(receiver)).await.expect("a stream").into_inner();
        Self { calls, events }
    }

    async fn say(&self, id: &str, body: Option<Body>) {
        let call = pb::Call { id: id.to_owned(), body };
        self.calls.send(call).await.expect("an open stream");
    }

    /// The next event that matters here; `None` when the stream has ended, however.
    async fn hear(&mut self) -> Option<pb::event::Event> {
        loop {
            let next = tokio::time::timeout(SOON, self.events.next()).await.expect("an event, or the end");
            match next?.ok()?.event {
                Some(pb::event::Event::Heartbeat(_) | pb::event::Event::Offers(_)) => {}
                event => return event,
            }
        }
    }

    /// Why a call was refused.
    async fn refusal(&mut self, id: &str, body: Option<Body>) -> (Option<Refusal>, String) {
        self.say(id, body).await;
        loop {
            match self.hear().await {
                Some(pb::event::Event::Reply(reply)) if reply.call_id == id => {
                    match reply.outcome.and_then(|outcome| outcome.outcome) {
                        Some(pb::outcome::Outcome::Refused(refusal)) => {
                            return (refusal.refusal, refusal.text);
                        }
                        other => panic!("{id} is not refused: {other:?}"),
                    }
                }
                Some(_) => {}
                None => panic!("the stream ends before {id} is answered"),
            }
        }
    }

    async fn subscribe(&mut self, id: Option<&str>) {
        let framework = pb::FrameworkInfo {
            id: id.map(str::to_owned),
            name: "rogue".to_owned(),
            roles: vec!["*".to_owned()],
            ..pb::FrameworkInfo::default()
        };
        self.say(
            "subscribe",
            Some(Body::Subscribe(pb::Subscribe { framework: Some(framework), suppressed: Vec::new() })),
        )
        .await;
    }
}

/// A message of 64 MiB.
async fn say_too_much(master: &str) {
    let mut rogue = Rogue::connect(master).await;
    let kill = pb::Kill { task_id: "x".repeat(64 << 20), grace_ms: None };
    rogue.say("1", Some(Body::Kill(kill))).await;
    let mut told = Vec::new();
    while let Some(event) = rogue.hear().await {
        told.push(event);
    }
    let [pb::event::Event::Error(error)] = &told[..] else { panic!("one reason is given, not {told:?}") };
    assert!(format!("{error:?}").contains("too large"), "{error:?}");
}

/// Calls before Subscribe, and an id that was never given out.
async fn speak_out_of_turn(master: &str) {
    let mut rogue = Rogue::connect(master).await;
    rogue.say("1", Some(Body::Revive(pb::Revive { roles: Vec::new() }))).await;
    let told = rogue.hear().await;
    assert!(told.is_some(), "a reason is given before the stream ends");
    let mut rogue = Rogue::connect(master).await;
    rogue.subscribe(Some("f999-1")).await;
    let told = rogue.hear().await;
    assert!(!matches!(told, Some(pb::event::Event::Subscribed(_))), "{told:?}");
}

/// A framework that subscribes in all form, and then asks for what is not its own.
async fn lie(master: &str, foreign_task: &str) {
    let mut rogue = Rogue::connect(master).await;
    rogue.subscribe(None).await;
    let Some(pb::event::Event::Subscribed(_)) = rogue.hear().await else { panic!("not subscribed") };

    let kill = |task: &str| Some(Body::Kill(pb::Kill { task_id: task.to_owned(), grace_ms: None }));
    assert_eq!(
        rogue.refusal("foreign", kill(foreign_task)).await.0,
        Some(Refusal::UnknownTask(foreign_task.to_owned()))
    );
    let (refusal, text) = rogue.refusal("bad-id", kill("../../etc")).await;
    assert!(matches!(refusal, Some(Refusal::Invalid(_))) && text.contains("task_id"), "{refusal:?}: {text}");

    let decline = |offers| Some(Body::Decline(pb::Decline { offers, filters: None }));
    let (refusal, text) = rogue.refusal("no-offers", decline(Vec::new())).await;
    assert!(matches!(refusal, Some(Refusal::Invalid(_))), "{refusal:?}: {text}");
    let accept = pb::Accept {
        offers: vec![u64::MAX],
        operations: vec![pb::Operation { operation: None }],
        filters: None,
    };
    let (refusal, text) = rogue.refusal("no-operation", Some(Body::Accept(accept))).await;
    assert!(matches!(refusal, Some(Refusal::Invalid(_))), "{refusal:?}: {text}");
    let accept = pb::Accept { offers: vec![123_456_789], operations: Vec::new(), filters: None };
    let (refusal, text) = rogue.refusal("no-such-offer", Some(Body::Accept(accept))).await;
    assert_eq!(refusal, Some(Refusal::OfferGone(123_456_789)), "{text}");
    let message = pb::TaskMessage { agent_id: "a1".to_owned(), task_id: "t1".to_owned(), data: Vec::new() };
    let (refusal, text) = rogue.refusal("message", Some(Body::Message(message))).await;
    assert!(matches!(refusal, Some(Refusal::NotSupported(_))), "{refusal:?}: {text}");
    let (refusal, text) = rogue.refusal("empty", None).await;
    assert!(matches!(refusal, Some(Refusal::Invalid(_))), "{refusal:?}: {text}");
    rogue.say("bye", Some(Body::Teardown(pb::Teardown {}))).await;
    while rogue.hear().await.is_some() {}
}
