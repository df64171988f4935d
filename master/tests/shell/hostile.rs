//! What no honest peer would send: it ends the stream that brought it, or only the call, and nobody else notices.

use bytes::{Buf, BufMut, Bytes};
use divvy_proto::agent::{AgentMessage, MasterMessage};
use divvy_proto::convert::limits::MESSAGE_BYTES;
use divvy_proto::ids::CallId;
use divvy_proto::pb;
use divvy_proto::scheduler::{Call, CallBody, Event, Outcome, Refusal, StreamError};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;

use crate::harness::{Agent, Cluster, Framework, agent_info, framework_info, within};

/// Takes and gives bytes as they are.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// Sends these bytes as a message; the last that is answered, if anything is.
async fn send_raw(cluster: &Cluster, path: &'static str, message: Bytes) -> Option<Bytes> {
    let mut client = Grpc::new(cluster.channel().await);
    client.ready().await.unwrap();
    let (to_master, messages) = mpsc::channel(1);
    to_master.send(message).await.unwrap();
    let request = tonic::Request::new(ReceiverStream::new(messages));
    let answer = client.streaming(request, PathAndQuery::from_static(path), Raw).await;
    let mut answers = within("a stream", async { answer }).await.unwrap().into_inner();
    let mut last = None;
    while let Ok(Some(answer)) = within("the end of the stream", answers.message()).await {
        last = Some(answer);
    }
    last
}

/// Somebody who must not notice anything.
async fn bystanders(cluster: &Cluster) -> (Agent, Framework) {
    let framework = Framework::subscribe(cluster, framework_info("bystander")).await;
    (Agent::register(cluster, agent_info("agent-1"), Vec::new()).await, framework)
}

/// They launch a task, on the streams that they have had all along.
async fn live_on((mut agent, mut framework): (Agent, Framework)) {
    let offer = framework.expect_offer().await;
    framework.launch(&offer, &["t1"]).await;
    assert_eq!(agent.expect_launch().await.1.id.as_str(), "t1");
}

fn decoded<M: prost::Message + Default>(answer: Option<Bytes>) -> M {
    M::decode(answer.expect("a last word")).unwrap()
}

#[tokio::test]
async fn garbage_ends_its_own_stream_with_a_reason() {
    let cluster = Cluster::start().await;
    let bystanders = bystanders(&cluster).await;
    let garbage = Bytes::from_static(&[0xff; 64]);

    let answer = send_raw(&cluster, "/divvy.v1.Scheduler/Subscribe", garbage.clone()).await;
    let event = Event::try_from(decoded::<pb::Event>(answer)).unwrap();
    let Event::Error(StreamError::Refused(why)) = event else { panic!("{event:?}") };
    assert!(why.starts_with("not a call: "), "{why}");

    let answer = send_raw(&cluster, "/divvy.v1.Agent/Connect", garbage).await;
    let message = MasterMessage::try_from(decoded::<pb::MasterMessage>(answer)).unwrap();
    let MasterMessage::Error(StreamError::Refused(why)) = message else { panic!("{message:?}") };
    assert!(why.starts_with("not a message: "), "{why}");

    let mut socket = tokio::net::TcpStream::connect(cluster.master.addr()).await.unwrap();
    socket.write_all(&[0; 1024]).await.unwrap();
    live_on(bystanders).await;
}

#[tokio::test]
async fn an_invalid_call_is_refused_by_its_id_and_the_stream_goes_on() {
    let cluster = Cluster::start().await;
    let mut framework = Framework::subscribe(&cluster, framework_info("test")).await;
    let id = CallId::new("mine").unwrap();
    let body = CallBody::Kill { task_id: "t1".parse().unwrap(), grace: None };
    let mut call = pb::Call::from(Call { id: id.clone(), body });
    let Some(pb::call::Body::Kill(kill)) = &mut call.body else { panic!("not a kill") };
    kill.task_id = "../etc".to_owned();
    framework.send(call).await;
    let Outcome::Refused(Refusal::Invalid(invalid)) = framework.outcome(&id).await else {
        panic!("accepted")
    };
    assert_eq!((invalid.field.as_str(), invalid.value.as_str()), ("kill.task_id", "../etc"));

    let next = framework.call(CallBody::Reconcile { tasks: Vec::new() }).await;
    assert_eq!(framework.outcome(&next).await, Outcome::Accepted);
}

#[tokio::test]
async fn a_call_without_an_id_ends_its_stream() {
    let cluster = Cluster::start().await;
    let bystanders = bystanders(&cluster).await;
    let mut framework = Framework::subscribe(&cluster, framework_info("test")).await;
    framework.send(pb::Call::default()).await;
    let why = framework
        .expect("Error", |event| match event {
            Event::Error(StreamError::Refused(why)) => Some(why),
            _ => None,
        })
        .await;
    assert!(why.starts_with("id: "), "{why}");
    assert_eq!(framework.next().await, None);
    live_on(bystanders).await;
}

#[tokio::test]
async fn an_introduction_that_the_registry_cannot_hold_is_refused() {
    let cluster = Cluster::start().await;
    let bystanders = bystanders(&cluster).await;
    let (to_master, mut from_master) = Agent::connect(&cluster).await;
    let mut agent = agent_info("agent-2");
    let attributes: Vec<String> = (0..900).map(|n| format!("a{n}={}", "x".repeat(1000))).collect();
    agent.attributes = attributes.join(";").parse().unwrap();
    to_master.send(AgentMessage::Register { agent, tasks: Vec::new() }.into()).await.unwrap();
    let answer = within("an answer", from_master.message()).await.unwrap().unwrap();
    let MasterMessage::Error(StreamError::Refused(why)) = MasterMessage::try_from(answer).unwrap() else {
        panic!("no error")
    };
    assert!(why.starts_with("register.agent: "), "{why}");
    live_on(bystanders).await;
}

#[tokio::test]
async fn a_framework_that_does_not_read_is_cut_off_alone() {
    let cluster = Cluster::with(|config| config.link_queue = 16).await;
    let bystanders = bystanders(&cluster).await;
    let mut deaf = Framework::subscribe(&cluster, framework_info("deaf")).await;
    // Each call is refused with some text; nobody reads the replies, so they fill the connection's window, then the queue.
    let sent = within("the master to close the stream", async {
        for n in 0.. {
            let id = CallId::new(format!("call-{n}")).unwrap();
            let body = CallBody::Kill { task_id: "x".repeat(200).parse().unwrap(), grace: None };
            if deaf.try_send(Call { id, body }.into()).await.is_err() {
                return n;
            }
        }
        0
    })
    .await;
    let mut last = None;
    while let Some(event) = deaf.next().await {
        last = Some(event);
    }
    assert_eq!(last, Some(Event::Error(StreamError::TooSlow(16))), "after {sent} calls");
    live_on(bystanders).await;
}

#[tokio::test]
async fn a_message_that_is_too_large_ends_its_own_stream() {
    let cluster = Cluster::start().await;
    let bystanders = bystanders(&cluster).await;
    let huge = Bytes::from(vec![0; MESSAGE_BYTES + 1]);
    let answer = send_raw(&cluster, "/divvy.v1.Scheduler/Subscribe", huge).await;
    let event = Event::try_from(decoded::<pb::Event>(answer)).unwrap();
    let Event::Error(StreamError::Refused(why)) = event else { panic!("{event:?}") };
    assert!(why.contains("too large"), "{why}");
    live_on(bystanders).await;
}
