//! What `/metrics` shows. One registry per master, no globals, so that several run in one process.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use divvy_proto::api::Status;

/// A message by who speaks it and what it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct MessageName {
    peer: &'static str,
    kind: &'static str,
}

/// Objects by their state.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct State {
    state: String,
}

/// All of a master's metrics. Cheap to clone.
#[derive(Clone)]
pub(super) struct Metrics {
    registry: Arc<Registry>,
    pub(super) received: Family<MessageName, Counter>,
    pub(super) sent: Family<MessageName, Counter>,
    pub(super) invalid: Family<MessageName, Counter>,
    pub(super) cut_off: Counter,
    pub(super) turn_seconds: Histogram,
    pub(super) turn_inputs: Histogram,
    pub(super) commit_seconds: Histogram,
    pub(super) links: Gauge,
    pub(super) watchers: Gauge,
    queue: Gauge,
    offers: Gauge,
    agents: Family<State, Gauge>,
    frameworks: Family<State, Gauge>,
    tasks: Family<State, Gauge>,
}

/// A count as Prometheus has it.
pub(super) fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl Metrics {
    pub(super) fn new() -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.000_01, 4.0, 10));
        let mut metrics = Self {
            registry: Arc::new(Registry::default()),
            received: Family::default(),
            sent: Family::default(),
            invalid: Family::default(),
            cut_off: Counter::default(),
            turn_seconds: seconds(),
            turn_inputs: Histogram::new(exponential_buckets(1.0, 4.0, 8)),
            commit_seconds: seconds(),
            links: Gauge::default(),
            watchers: Gauge::default(),
            queue: Gauge::default(),
            offers: Gauge::default(),
            agents: Family::default(),
            frameworks: Family::default(),
            tasks: Family::default(),
        };
        metrics.registry = Arc::new(metrics.register());
        metrics
    }

    fn register(&self) -> Registry {
        let mut registry = Registry::with_prefix("divvy_master");
        let to = &mut registry;
        to.register("messages_received", "Messages that the kernel was fed, by type", self.received.clone());
        to.register("messages_sent", "Messages that the kernel sent, by type", self.sent.clone());
        to.register("messages_invalid", "Messages that were refused at the edge", self.invalid.clone());
        to.register("streams_cut_off", "Streams that ended because they did not drain", self.cut_off.clone());
        to.register("turn_seconds", "Duration of a turn of the kernel", self.turn_seconds.clone());
        to.register("turn_inputs", "Inputs handled in one turn", self.turn_inputs.clone());
        to.register("registry_commit_seconds", "Duration of a registry write", self.commit_seconds.clone());
        to.register("links", "Open streams of agents and frameworks", self.links.clone());
        to.register("watchers", "Readers of the stream of changes", self.watchers.clone());
        to.register("queue_depth", "Requests that wait for the kernel", self.queue.clone());
        to.register("offers_outstanding", "Offers that nobody has answered yet", self.offers.clone());
        to.register("agents", "Agents by state", self.agents.clone());
        to.register("frameworks", "Frameworks by state", self.frameworks.clone());
        to.register(
            "tasks",
            "Tasks by state, those that ended among them while they are listed",
            self.tasks.clone(),
        );
        registry
    }

    /// The text that Prometheus reads, in the OpenMetrics format.
    pub(super) fn encode(
        &self,
        status: &Status,
        offers: usize,
        queue: usize,
    ) -> Result<String, std::fmt::Error> {
        self.queue.set(gauge(queue));
        self.offers.set(gauge(offers));
        set(&self.agents, status.agents.iter().map(|(state, count)| (text(state), *count)));
        set(&self.frameworks, status.frameworks.iter().map(|(state, count)| (text(state), *count)));
        set(&self.tasks, status.tasks.iter().map(|(state, count)| (text(state), *count)));
        let mut out = String::new();
        prometheus_client::encoding::text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

/// States that are no longer counted disappear rather than stay at their last count.
fn set(family: &Family<State, Gauge>, counts: impl Iterator<Item = (String, usize)>) {
    family.clear();
    for (state, count) in counts {
        family.get_or_create(&State { state }).set(gauge(count));
    }
}

/// A state's name, as in JSON.
fn text(state: &impl serde::Serialize) -> String {
    match serde_json::to_value(state) {
        Ok(serde_json::Value::String(text)) => text,
        _ => "unknown".to_owned(),
    }
}

/// The names of messages, as labels.
pub(super) mod names {
    use divvy_proto::agent::{AgentMessage, MasterMessage};
    use divvy_proto::scheduler::{CallBody, Event};

    use super::MessageName;
    use crate::kernel::{Effect, Input};

    /// What came in; nothing for what is not a message.
    pub(in crate::shell) fn input(input: &Input) -> Option<MessageName> {
        let (peer, kind) = match input {
            Input::Agent { message, .. } => ("agent", agent_message(message)),
            Input::Framework { call, .. } => ("framework", call_body(&call.body)),
            Input::Operator { .. } => ("operator", "request"),
            Input::AgentClosed { .. } => ("agent", "closed"),
            Input::FrameworkClosed { .. } => ("framework", "closed"),
            Input::Persisted(_) | Input::Tick => return None,
        };
        Some(MessageName { peer, kind })
    }

    /// What goes out; nothing for what is not a message.
    pub(in crate::shell) fn effect(effect: &Effect) -> Option<MessageName> {
        let (peer, kind) = match effect {
            Effect::ToAgent { message, .. } => ("agent", master_message(message)),
            Effect::ToFramework { event, .. } => ("framework", event_name(event)),
            Effect::Close { .. } => ("stream", "close"),
            Effect::Persist { .. } | Effect::Answer { .. } | Effect::Changed(_) => return None,
        };
        Some(MessageName { peer, kind })
    }

    /// A message that did not become a domain type.
    pub(in crate::shell) fn invalid(peer: &'static str) -> MessageName {
        MessageName { peer, kind: "invalid" }
    }

    fn agent_message(message: &AgentMessage) -> &'static str {
        match message {
            AgentMessage::Register { .. } => "register",
            AgentMessage::Pong => "pong",
            AgentMessage::Update { .. } => "update",
            AgentMessage::Ended { .. } => "ended",
        }
    }

    fn master_message(message: &MasterMessage) -> &'static str {
        match message {
            MasterMessage::Registered { .. } => "registered",
            MasterMessage::Ping => "ping",
            MasterMessage::Launch { .. } => "launch",
            MasterMessage::Kill { .. } => "kill",
            MasterMessage::Acknowledge { .. } => "acknowledge",
            MasterMessage::ShutdownFramework { .. } => "shutdown_framework",
            MasterMessage::Volumes(_) => "volumes",
            MasterMessage::Error(_) => "error",
        }
    }

    fn call_body(body: &CallBody) -> &'static str {
        match body {
            CallBody::Subscribe { .. } => "subscribe",
            CallBody::Accept { .. } => "accept",
            CallBody::Decline { .. } => "decline",
            CallBody::AcceptInverse { .. } => "accept_inverse",
            CallBody::DeclineInverse { .. } => "decline_inverse",
            CallBody::Demand { .. } => "demand",
            CallBody::Revive { .. } => "revive",
            CallBody::Suppress { .. } => "suppress",
            CallBody::Kill { .. } => "kill",
            CallBody::Acknowledge { .. } => "acknowledge",
            CallBody::Reconcile { .. } => "reconcile",
            CallBody::Message { .. } => "message",
            CallBody::UpdateFramework { .. } => "update_framework",
            CallBody::Teardown => "teardown",
        }
    }

    fn event_name(event: &Event) -> &'static str {
        match event {
            Event::Subscribed { .. } => "subscribed",
            Event::Reply { .. } => "reply",
            Event::Offers(_) => "offers",
            Event::Rescind(_) => "rescind",
            Event::InverseOffers(_) => "inverse_offers",
            Event::RescindInverse(_) => "rescind_inverse",
            Event::Update(_) => "update",
            Event::OperationUpdate { .. } => "operation_update",
            Event::Message { .. } => "message",
            Event::Failure { .. } => "failure",
            Event::Error(_) => "error",
            Event::Heartbeat => "heartbeat",
        }
    }
}
