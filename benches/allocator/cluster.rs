//! A kernel with everything around it that it needs to go on: agents and frameworks that remember what they are told, and a
//! store that answers at once. Only the kernel's own work is timed.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use divvy_master::kernel::{Config, Effect, Input, Kernel, LinkId, OperatorRequest, RequestId};
use divvy_proto::agent::{AgentInfo, AgentMessage, MasterMessage};
use divvy_proto::demand::Demand;
use divvy_proto::ids::{AgentId, FrameworkId};
use divvy_proto::resources::Resources;
use divvy_proto::role::RolePath;
use divvy_proto::scheduler::{
    Call, CallBody, Capability, Event, Filters, FrameworkInfo, OfferInfo, Operation, Outcome, StreamError,
};
use divvy_proto::task::{AgentTask, TaskInfo, TaskStatus};
use divvy_proto::time::Timestamp;

use crate::figures::Spent;

/// Not for a year: nothing in a bench expires unless it is meant to.
pub const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

#[derive(Debug, Clone)]
pub struct Agent {
    pub id: AgentId,
    pub link: LinkId,
}

#[derive(Debug)]
pub struct Framework {
    pub id: FrameworkId,
    pub role: RolePath,
    link: LinkId,
    /// What it has been offered and has not answered.
    pub offers: Vec<OfferInfo>,
    /// What is to be acknowledged.
    pub updates: Vec<TaskStatus>,
}

#[derive(Debug, Clone, Copy)]
enum Peer {
    Agent(usize),
    Framework(usize),
}

/// The cluster. Agents and frameworks are known by the order in which they came.
pub struct Cluster {
    pub kernel: Kernel,
    pub now: Timestamp,
    pub agents: Vec<Agent>,
    pub frameworks: Vec<Framework>,
    pub agent_by_id: HashMap<AgentId, usize>,
    peers: HashMap<LinkId, Peer>,
    effects: Vec<Effect>,
    refused: Vec<String>,
    links: u64,
    calls: u64,
}

impl Cluster {
    pub fn new() -> Self {
        let config = Config {
            offer_timeout: NEVER,
            ping_interval: NEVER,
            heartbeat: NEVER,
            ended_tasks_kept: 10,
            ..Config::default()
        };
        Self {
            kernel: Kernel::new(config),
            now: Timestamp(1_000_000_000_000),
            agents: Vec::new(),
            frameworks: Vec::new(),
            agent_by_id: HashMap::new(),
            peers: HashMap::new(),
            effects: Vec::new(),
            refused: Vec::new(),
            links: 0,
            calls: 0,
        }
    }

    /// One turn: feeds the inputs, lets the store answer, and allocates. Returns what the kernel has spent on it.
    pub fn turn(&mut self, inputs: Vec<Input>) -> Result<Spent> {
        let fed = self.feed(inputs)?;
        Ok(fed + self.end_turn()?)
    }

    /// The first half of a turn: no allocation yet.
    pub fn feed(&mut self, inputs: Vec<Input>) -> Result<Spent> {
        let begun = Spent::begin();
        for input in inputs {
            self.kernel.handle(self.now, input, &mut self.effects);
        }
        let mut at = 0;
        while let Some(effect) = self.effects.get(at) {
            if let Effect::Persist { token, .. } = *effect {
                self.kernel.handle(self.now, Input::Persisted(token), &mut self.effects);
            }
            at += 1;
        }
        let spent = begun.end();
        self.absorb()?;
        Ok(spent)
    }

    /// The second half: the allocation, and what is said of it.
    pub fn end_turn(&mut self) -> Result<Spent> {
        let begun = Spent::begin();
        self.kernel.end_turn(self.now, &mut self.effects);
        let spent = begun.end();
        self.absorb()?;
        Ok(spent)
    }

    /// What those who watch are told of all that has changed since they were told last: apart from the turns, and rarely.
    pub fn tell_changes(&mut self) -> Result<Spent> {
        let begun = Spent::begin();
        self.kernel.tell_changes(self.now, &mut self.effects);
        let spent = begun.end();
        self.absorb()?;
        Ok(spent)
    }

    /// Gives back what only this bench remembers. The cluster cannot go on after that.
    pub fn forget_all_but_the_kernel(&mut self) -> Result<()> {
        self.tell_changes()?;
        self.effects = Vec::new();
        self.agents = Vec::new();
        self.agent_by_id = HashMap::new();
        self.peers = HashMap::new();
        self.frameworks.iter_mut().for_each(|framework| framework.offers = Vec::new());
        Ok(())
    }

    /// One turn with one input that needs no store, and how long it took on the clock: without the other clocks' own cost.
    pub fn event(&mut self, input: Input) -> Result<Duration> {
        let begun = Instant::now();
        self.kernel.handle(self.now, input, &mut self.effects);
        self.kernel.end_turn(self.now, &mut self.effects);
        let spent = begun.elapsed();
        self.absorb()?;
        Ok(spent)
    }

    fn absorb(&mut self) -> Result<()> {
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::ToAgent { link, message: MasterMessage::Registered { agent_id, .. } } => {
                    if let Some(Peer::Agent(at)) = self.peers.get(&link) {
                        self.agent_by_id.insert(agent_id.clone(), *at);
                        self.agents[*at].id = agent_id;
                    }
                }
                Effect::ToFramework { link, event } => {
                    if let Some(Peer::Framework(at)) = self.peers.get(&link) {
                        hear(&mut self.frameworks[*at], event, &mut self.refused);
                    }
                }
                // An agent that comes back on a new stream.
                Effect::Close { error: StreamError::TakenOver, .. } => {}
                Effect::Close { error, .. } => bail!("the kernel closes a stream: {error}"),
                Effect::Answer { result: Err(error), .. } => bail!("the kernel refuses: {error}"),
                _ => {}
            }
        }
        self.effects = effects;
        match self.refused.pop() {
            Some(refusal) => bail!("a call was refused: {refusal}"),
            None => Ok(()),
        }
    }

    fn link(&mut self, peer: Peer) -> LinkId {
        self.links += 1;
        self.peers.insert(LinkId(self.links), peer);
        LinkId(self.links)
    }

    /// A new agent registers, with tasks that it runs already.
    pub fn register(&mut self, resources: &Resources, tasks: Vec<AgentTask>) -> Result<Input> {
        let at = self.agents.len();
        let link = self.link(Peer::Agent(at));
        self.agents.push(Agent { id: AgentId::new(format!("new-{at}"))?, link });
        Ok(Input::Agent {
            link,
            message: AgentMessage::Register { agent: info(at, None, resources)?, tasks },
        })
    }

    /// An agent comes back, changed.
    pub fn register_again(
        &mut self,
        at: usize,
        resources: &Resources,
        revocable: &Resources,
        tasks: Vec<AgentTask>,
    ) -> Result<Input> {
        let link = self.link(Peer::Agent(at));
        let agent = AgentInfo {
            revocable: revocable.clone(),
            ..info(at, Some(self.agents[at].id.clone()), resources)?
        };
        self.agents[at].link = link;
        Ok(Input::Agent { link, message: AgentMessage::Register { agent, tasks } })
    }

    /// Alike agents, all in one turn.
    pub fn add_agents(&mut self, count: usize, resources: &Resources) -> Result<Spent> {
        let inputs: Result<Vec<_>> = (0..count).map(|_| self.register(resources, Vec::new())).collect();
        self.turn(inputs?)
    }

    /// A new framework subscribes in one role.
    pub fn subscribe(&mut self, role: &str, capabilities: &[Capability]) -> Result<Input> {
        let at = self.frameworks.len();
        let link = self.link(Peer::Framework(at));
        let role = RolePath::new(role)?;
        let framework = FrameworkInfo {
            id: None,
            name: format!("framework-{at}"),
            user: None,
            roles: vec![role.clone()],
            principal: None,
            failover_timeout: NEVER,
            url: None,
            labels: Default::default(),
            capabilities: capabilities.iter().copied().collect(),
        };
        let id = FrameworkId::new(format!("new-{at}"))?;
        self.frameworks.push(Framework { id, role, link, offers: Vec::new(), updates: Vec::new() });
        let body = CallBody::Subscribe { framework, suppressed: Vec::new() };
        self.call(at, body)
    }

    pub fn call(&mut self, framework: usize, body: CallBody) -> Result<Input> {
        self.calls += 1;
        let link = self.frameworks.get(framework).context("no such framework")?.link;
        let id = format!("c{}", self.calls).parse()?;
        Ok(Input::Framework { link, call: Call { id, body } })
    }

    pub fn suppress(&mut self, framework: usize) -> Result<Input> {
        self.call(framework, CallBody::Suppress { roles: Vec::new() })
    }

    pub fn revive(&mut self, framework: usize) -> Result<Input> {
        self.call(framework, CallBody::Revive { roles: Vec::new() })
    }

    pub fn demand(&mut self, framework: usize, demand: Demand) -> Result<Input> {
        let role = self.frameworks[framework].role.clone();
        self.call(framework, CallBody::Demand { role, demand })
    }

    pub fn accept(&mut self, framework: usize, offer: &OfferInfo, tasks: Vec<TaskInfo>) -> Result<Input> {
        let operations = vec![Operation::Launch(tasks)];
        self.call(
            framework,
            CallBody::Accept { offers: vec![offer.id], operations, filters: Filters::default() },
        )
    }

    /// Everybody returns all offers, one call each, not to see them again for a while.
    pub fn decline_all(&mut self, refuse: Duration) -> Result<(Vec<Input>, u64)> {
        let (mut calls, mut count) = (Vec::new(), 0);
        for at in 0..self.frameworks.len() {
            let offers: Vec<_> = self.frameworks[at].offers.drain(..).map(|offer| offer.id).collect();
            count += offers.len() as u64;
            if !offers.is_empty() {
                calls.push(self.call(at, CallBody::Decline { offers, filters: Filters { refuse } })?);
            }
        }
        Ok((calls, count))
    }

    pub fn operator(&mut self, body: OperatorRequest) -> Input {
        self.calls += 1;
        Input::Operator { request: RequestId(self.calls), body }
    }

    /// An agent says how a task of it is.
    pub fn update(&self, agent: usize, framework: usize, status: TaskStatus) -> Input {
        let framework_id = self.frameworks[framework].id.clone();
        Input::Agent { link: self.agents[agent].link, message: AgentMessage::Update { framework_id, status } }
    }

    /// The framework has seen the update.
    pub fn acknowledge(&mut self, framework: usize, status: &TaskStatus) -> Result<Option<Input>> {
        let (Some(agent_id), Some(update_id)) = (status.agent_id.clone(), status.update_id.clone()) else {
            return Ok(None);
        };
        let body = CallBody::Acknowledge { agent_id, task_id: status.task_id.clone(), update_id };
        self.call(framework, body).map(Some)
    }

    pub fn offers(&self) -> u64 {
        self.frameworks.iter().map(|framework| framework.offers.len() as u64).sum()
    }
}

fn hear(framework: &mut Framework, event: Event, refused: &mut Vec<String>) {
    match event {
        Event::Subscribed { framework_id, .. } => framework.id = framework_id,
        Event::Offers(offers) => framework.offers.extend(offers),
        Event::Rescind(id) => framework.offers.retain(|offer| offer.id != id),
        Event::Update(status) => framework.updates.push(status),
        Event::Reply { outcome: Outcome::Refused(refusal), .. } => refused.push(refusal.to_string()),
        _ => {}
    }
}

fn info(at: usize, id: Option<AgentId>, resources: &Resources) -> Result<AgentInfo> {
    Ok(AgentInfo {
        id,
        hostname: format!("host-{at}").parse()?,
        url: format!("http://host-{at}:5051"),
        address: "127.0.0.1".to_owned(),
        resources: resources.clone(),
        reserved: Vec::new(),
        revocable: Resources::new(),
        attributes: format!("rack=r{}", at % 40).parse()?,
        version: "0.1.0".to_owned(),
    })
}
