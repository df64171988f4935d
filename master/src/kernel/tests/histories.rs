//! Random histories: whatever happens, in whatever order, the kernel agrees with itself, its allocator agrees with a full
//! scan, and nothing that is due is late.

use divvy_proto::agent::AgentMessage;
use divvy_proto::scheduler::{CallBody, Filters, Operation};
use divvy_proto::task::{AgentTask, TaskState};
use divvy_proto::{OfferId, UpdateId};
use proptest::prelude::*;

use crate::kernel::testing::*;
use crate::kernel::*;

/// One thing that happens. Numbers choose among what there is.
#[derive(Debug, Clone)]
enum Step {
    AddAgent(u32, u32),
    ConnectAgent(usize),
    DisconnectAgent(usize),
    SilenceAgent(usize),
    ResizeAgent(usize, u32),
    LoseTasks(usize),
    AddFramework(usize),
    Subscribe(usize),
    Unsubscribe(usize),
    Accept(usize, u32, u64),
    Decline(usize, u64),
    Revive(usize),
    Suppress(usize),
    Kill(usize, usize),
    Report(usize, TaskState),
    Acknowledge(usize),
    Reconcile(usize),
    Teardown(usize),
    MarkGone(usize),
    Order(usize, usize, u64),
    Promise(usize, u32),
    Operate(usize, usize),
    LaunchGang(usize),
    Demand(usize, u32, u32),
    OperatorOwns(usize, usize, usize),
    FixOnCommandLine(usize, usize),
    Advance(u64),
    Garbage(usize, usize),
    StoreIsSlow(bool),
    StoreAnswers,
    FailOver,
}

fn step() -> impl Strategy<Value = Step> {
    use Step::*;
    let which = || 0..8_usize;
    let states = prop::sample::select(vec![
        TaskState::Starting,
        TaskState::Running,
        TaskState::Killing,
        TaskState::Finished,
        TaskState::Failed,
        TaskState::Unreachable,
    ]);
    prop_oneof![
        2 => (1..9_u32, 1..9_u32).prop_map(|(cpus, mem)| AddAgent(cpus, mem)),
        3 => which().prop_map(ConnectAgent),
        2 => which().prop_map(DisconnectAgent),
        2 => which().prop_map(SilenceAgent),
        1 => (which(), 1..9_u32).prop_map(|(agent, cpus)| ResizeAgent(agent, cpus)),
        1 => which().prop_map(LoseTasks),
        2 => (0..ROLES.len()).prop_map(AddFramework),
        3 => which().prop_map(Subscribe),
        2 => which().prop_map(Unsubscribe),
        9 => (which(), 0..4_u32, 0..9_u64).prop_map(|(who, tasks, refuse)| Accept(who, tasks, refuse)),
        5 => (which(), 0..90_u64).prop_map(|(who, refuse)| Decline(who, refuse)),
        2 => which().prop_map(Revive),
        2 => which().prop_map(Suppress),
        2 => (which(), which()).prop_map(|(who, task)| Kill(who, task)),
        9 => (which(), states).prop_map(|(task, state)| Report(task, state)),
        5 => which().prop_map(Acknowledge),
        1 => which().prop_map(Reconcile),
        1 => which().prop_map(Teardown),
        1 => which().prop_map(MarkGone),
        4 => (which(), which(), 0..90_u64).prop_map(|(agent, what, within)| Order(agent, what, within)),
        2 => (which(), 0..9_u32).prop_map(|(role, cpus)| Promise(role, cpus)),
        9 => (which(), 0..OPERATIONS).prop_map(|(who, what)| Operate(who, what)),
        2 => which().prop_map(LaunchGang),
        2 => (which(), 1..4_u32, 1..5_u32).prop_map(|(who, count, cpus)| Demand(who, count, cpus)),
        4 => (which(), which(), which()).prop_map(|(agent, role, what)| OperatorOwns(agent, role, what)),
        2 => (which(), which()).prop_map(|(agent, role)| FixOnCommandLine(agent, role)),
        6 => (0..200_u64).prop_map(Advance),
        2 => (which(), which()).prop_map(|(what, who)| Garbage(what, who)),
        1 => prop::bool::ANY.prop_map(StoreIsSlow),
        2 => Just(StoreAnswers),
        1 => Just(FailOver),
    ]
}

const ROLES: [&[&str]; 5] = [&["*"], &["eng"], &["eng/ads"], &["eng", "ops"], &["ops/a/b", "eng/ads"]];

/// So many kinds of Accepts with operations.
const OPERATIONS: usize = 10;

/// A cluster and how to choose from it.
struct History {
    cluster: Cluster,
    agents: Vec<AgentHandle>,
    frameworks: Vec<FrameworkHandle>,
    launched: usize,
}

fn pick<T: Copy>(from: &[T], which: usize) -> Option<T> {
    from.get(which.checked_rem(from.len())?).copied()
}

impl History {
    fn new() -> Self {
        Self { cluster: Cluster::new(), agents: Vec::new(), frameworks: Vec::new(), launched: 0 }
    }

    fn agent(&self, which: usize) -> Option<AgentHandle> {
        pick(&self.agents, which)
    }

    fn framework(&self, which: usize) -> Option<FrameworkHandle> {
        pick(&self.frameworks, which)
    }

    /// A task on a connected agent.
    fn running(&self, which: usize) -> Option<(AgentHandle, AgentTask)> {
        let tasks_of = |agent: &AgentHandle| {
            let agent = *agent;
            self.cluster.agents_tasks(agent).into_iter().map(move |task| (agent, task))
        };
        let known: Vec<_> = self.agents.iter().flat_map(tasks_of).collect();
        (!known.is_empty()).then(|| known[which % known.len()].clone())
    }

    /// Takes a step, if there is what it needs.
    fn take(&mut self, step: Step) -> Option<()> {
        match step {
            Step::AddAgent(cpus, mem) if self.agents.len() < 8 => {
                let agent =
                    self.cluster.agent(&format!("cpus={cpus};mem={mem}GiB;disk=4GiB;ports=[31000-31009]"));
                self.agents.push(agent);
            }
            Step::ConnectAgent(which) => self.cluster.connect(self.agent(which)?),
            Step::DisconnectAgent(which) => self.cluster.disconnect(self.agent(which)?),
            Step::SilenceAgent(which) => self.cluster.silence(self.agent(which)?),
            Step::ResizeAgent(which, cpus) => {
                let agent = self.agent(which)?;
                self.cluster.resize(agent, &format!("cpus={cpus};mem=4GiB;disk=2GiB;ports=[31000-31004]"));
                self.cluster.connect(agent);
            }
            Step::LoseTasks(which) => {
                let agent = self.agent(which)?;
                self.cluster.lose_tasks(agent);
                self.cluster.connect(agent);
            }
            Step::Report(which, state) => {
                let (agent, task) = self.running(which)?;
                self.cluster.report(agent, task.info.id.as_str(), state);
            }
            Step::MarkGone(which) => {
                let id = self.cluster.agents_id(self.agent(which)?)?;
                self.cluster.operator(OperatorRequest::MarkGone(id));
            }
            Step::Order(which, what, within) => self.order(self.agent(which)?, what, secs(within))?,
            Step::Promise(role, cpus) => {
                let role = pick(&["eng", "eng/ads", "ops", "*"], role)?.parse().ok()?;
                let guarantee = format!("cpus={cpus}").parse().ok()?;
                let quota = Some(divvy_proto::Quota { guarantee, ..Default::default() });
                self.cluster.operator(OperatorRequest::SetQuota { role, quota, force: true });
            }
            Step::OperatorOwns(agent, role, what) => self.operator_owns(self.agent(agent)?, role, what)?,
            Step::FixOnCommandLine(agent, role) => {
                let agent = self.agent(agent)?;
                self.cluster.disconnect(agent);
                let roles = pick(&["eng", "eng/ads", "ops"], role).filter(|_| role < 6);
                let reserved = |role| divvy_proto::Reserved {
                    stack: vec![fixed_for(role)],
                    resources: "cpus=1;disk=1GiB".parse().unwrap(),
                };
                self.cluster.info_of(agent).reserved = roles.into_iter().map(reserved).collect();
                self.cluster.connect(agent);
            }
            Step::Advance(time) => self.cluster.advance(secs(time)),
            Step::Garbage(what, who) => self.garbage(what, who)?,
            Step::StoreIsSlow(true) => self.cluster.store_is_slow = true,
            // What was written first is durable first.
            Step::StoreIsSlow(false) => self.cluster.settle_store(),
            Step::StoreAnswers => self.cluster.store_answers(),
            Step::FailOver => self.cluster.fail_over(),
            Step::AddAgent(..) => {}
            of_framework => return self.take_framework(of_framework),
        }
        Some(())
    }

    fn take_framework(&mut self, step: Step) -> Option<()> {
        match step {
            Step::AddFramework(roles) if self.frameworks.len() < 8 => {
                let name = format!("app-{}", self.frameworks.len());
                let framework = self.cluster.framework_in(&name, ROLES[roles]);
                self.frameworks.push(framework);
            }
            Step::Subscribe(which) => self.cluster.subscribe(self.framework(which)?),
            Step::Unsubscribe(which) => self.cluster.unsubscribe(self.framework(which)?),
            Step::Accept(which, tasks, refuse) => self.accept(self.framework(which)?, tasks, refuse),
            Step::Operate(which, what) => self.operate(self.framework(which)?, what)?,
            Step::LaunchGang(which) => self.launch_gang(self.framework(which)?),
            Step::Demand(which, count, cpus) => {
                let framework = self.framework(which)?;
                let role = self.cluster.frameworks[which % self.frameworks.len()].info.roles[0].to_string();
                let shapes = vec![shape("s", &format!("cpus={cpus};mem=512MiB"), count)];
                self.cluster.demand(framework, &role, shapes);
            }
            Step::Decline(which, refuse) => self.cluster.decline(self.framework(which)?, secs(refuse)),
            Step::Revive(which) => {
                self.cluster.call(self.framework(which)?, CallBody::Revive { roles: vec![] });
            }
            Step::Suppress(which) => {
                self.cluster.call(self.framework(which)?, CallBody::Suppress { roles: vec![] });
            }
            Step::Kill(which, task) => {
                let task = self.running(task)?.1.info.id.to_string();
                self.cluster.kill(self.framework(which)?, &task);
            }
            Step::Acknowledge(which) => self.acknowledge(self.framework(which)?),
            Step::Reconcile(which) => {
                self.cluster.call(self.framework(which)?, CallBody::Reconcile { tasks: vec![] });
            }
            Step::Teardown(which) => self.cluster.call(self.framework(which)?, CallBody::Teardown),
            _ => {}
        }
        Some(())
    }

    fn accept(&mut self, framework: FrameworkHandle, tasks: u32, refuse: u64) {
        let offers: Vec<OfferId> = self.cluster.held(framework).into_iter().take(2).collect();
        let tasks: Vec<String> = (0..tasks)
            .map(|_| {
                self.launched += 1;
                format!("t{}", self.launched)
            })
            .collect();
        let tasks: Vec<_> = tasks.iter().map(|id| (id.as_str(), "cpus=1;mem=512MiB;disk=0B")).collect();
        self.cluster.accept(framework, offers, &tasks, Filters { refuse: secs(refuse) });
    }

    fn next_task(&mut self) -> String {
        self.launched += 1;
        format!("t{}", self.launched)
    }

    /// Accepts what it holds of one agent with operations that may do something, or may not.
    fn operate(&mut self, framework: FrameworkHandle, what: usize) -> Option<()> {
        let offers = self.cluster.offers_of(framework);
        let first = offers.first()?.clone();
        let together = offers.iter().filter(|o| o.agent_id == first.agent_id && o.role == first.role);
        let ids = together.map(|offer| offer.id).collect();
        let (name, task) = (format!("v{}", self.launched), self.next_task());
        let with =
            |id: &str, volume: &str| Operation::Launch(vec![task_with(id, "cpus=1;mem=256MiB", volume)]);
        let labels = Default::default();
        let volume = first.volumes.first().map_or("none", |volume| volume.id.as_str());
        let piece = first.reserved.first();
        let under = piece.map(|piece| piece.stack.clone()).unwrap_or_default();
        let size = "256MiB".parse().unwrap();
        let make = |stack| Operation::Create { id: None, volume_id: name.parse().unwrap(), size, stack };
        let operations = match what {
            0 => vec![reserve("r", "cpus=1;disk=1GiB", &[])],
            1 => vec![Operation::Reserve {
                id: None,
                resources: "cpus=1".parse().unwrap(),
                refines: under,
                labels,
            }],
            2 => vec![Operation::Unreserve { id: None, resources: piece?.resources.clone(), stack: under }],
            3 => vec![make(under)],
            4 => vec![destroy("d", volume)],
            5 => vec![grow("", volume, "64MiB")],
            6 => vec![shrink("", volume, "64MiB")],
            7 => vec![with(&task, volume)],
            8 => vec![
                reserve("r", "mem=256MiB;disk=1GiB;ports=[31002]", &[]),
                create("c", &name, "512MiB", &[first.role.as_str()]),
                with(&task, &name),
            ],
            _ => vec![destroy("", volume), make(under), with(&task, &name)],
        };
        self.cluster.accept_these(framework, ids, operations);
        Some(())
    }

    /// One task on each agent of which the framework holds something.
    fn launch_gang(&mut self, framework: FrameworkHandle) {
        let offers = self.cluster.offers_of(framework);
        let agents: std::collections::BTreeSet<_> =
            offers.iter().map(|offer| offer.agent_id.clone()).collect();
        let operations = agents.into_iter().map(|agent_id| {
            let tasks = vec![task(&self.next_task(), "cpus=1;mem=256MiB")];
            Operation::LaunchOn { agent_id, tasks }
        });
        let operations = operations.collect();
        self.cluster.accept_with(framework, operations);
    }

    /// An operator empties an agent, or gives it back.
    fn order(&mut self, agent: AgentHandle, what: usize, within: std::time::Duration) -> Option<()> {
        let id = self.cluster.agents_id(agent)?;
        let window = divvy_proto::api::Window {
            start: self.cluster.now + within,
            duration: secs(60),
            reason: String::new(),
        };
        match what {
            0 => self.cluster.drain(agent, None, false),
            1 => self.cluster.drain(agent, Some(within), true),
            2 => self.cluster.drain(agent, Some(within), false),
            3 => self.cluster.operator(OperatorRequest::Deactivate(id)),
            4 => {
                let windows = vec![divvy_proto::api::MaintenanceWindow { agents: vec![id], window }];
                self.cluster.operator(OperatorRequest::SetMaintenance(windows));
            }
            5 => self.cluster.operator(OperatorRequest::SetMaintenance(Vec::new())),
            _ => self.cluster.operator(OperatorRequest::Reactivate(id)),
        }
        Some(())
    }

    fn operator_owns(&mut self, agent: AgentHandle, role: usize, what: usize) -> Option<()> {
        self.cluster.agents_id(agent)?;
        let role = pick(&["eng", "eng/ads", "ops", "*"], role)?;
        let name = format!("o{}", self.launched);
        let volumes: Vec<_> =
            self.cluster.shown(agent).volumes.into_iter().map(|view| view.volume.id).collect();
        let volume = volumes.first().map_or("none", |id| id.as_str());
        match what {
            0 | 1 => self.cluster.reserve(agent, role, "cpus=1;disk=512MiB"),
            2 => self.cluster.reserve(agent, role, "ports=[31003-31005]"),
            3 => self.cluster.unreserve(agent, role, "cpus=1"),
            4 => self.cluster.unreserve(agent, role, "disk=512MiB"),
            5 => self.cluster.create_volume(agent, role, &name, "256MiB"),
            6 => self.cluster.destroy_volume(agent, volume),
            _ => self.cluster.resize_volume(agent, volume, "128MiB"),
        }
        Some(())
    }

    fn acknowledge(&mut self, framework: FrameworkHandle) {
        for status in self.cluster.take_updates(framework) {
            if let (Some(agent_id), Some(update_id)) = (status.agent_id, status.update_id) {
                let task_id = status.task_id;
                self.cluster.call(framework, CallBody::Acknowledge { agent_id, task_id, update_id });
            }
        }
    }

    /// What no honest peer says.
    fn garbage(&mut self, what: usize, who: usize) -> Option<()> {
        let link = LinkId(who as u64);
        let task_id: divvy_proto::TaskId = "no-task".parse().unwrap();
        match what {
            0 => self.cluster.feed(Input::Agent { link, message: AgentMessage::Pong }),
            1 => self.cluster.feed(Input::AgentClosed { link }),
            2 => self.cluster.feed(Input::FrameworkClosed { link }),
            3 => self.cluster.call_on(link, CallBody::Teardown),
            // One of nobody's: that a write is durable which is not would be a lie of our own store.
            4 => self.cluster.feed(Input::Persisted(PersistToken(u64::MAX - who as u64))),
            5 => {
                let (agent, task) = self.running(who)?;
                let mut status = task.status;
                status.task_id = task_id;
                let message = AgentMessage::Update { framework_id: task.framework_id, status };
                self.cluster.agent_says(agent, message);
            }
            6 => {
                let offers = (0..9).map(|n| OfferId(1 << 32 | n)).collect();
                let operations = vec![Operation::Launch(vec![task("no-task", "cpus=1;mem=1GiB")])];
                let filters = Filters { refuse: secs(u64::MAX) };
                self.cluster.call(self.framework(who)?, CallBody::Accept { offers, operations, filters });
            }
            _ => {
                let (agent_id, update_id): (_, UpdateId) = ("a1-0".parse().unwrap(), "u0".parse().unwrap());
                self.cluster
                    .call(self.framework(who)?, CallBody::Acknowledge { agent_id, task_id, update_id });
            }
        }
        Some(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    /// The harness checks the invariants after every input, and that the allocator does what a full scan would, at the end
    /// of every turn; a master that took over at the end would find in the registry what this one knows.
    #[test]
    fn the_kernel_agrees_with_itself_whatever_happens(steps in prop::collection::vec(step(), 1..120)) {
        let mut history = History::new();
        history.cluster.with_oracle = true;
        for step in steps {
            let _ = history.take(step);
        }
        history.cluster.settle_store();
        history.cluster.advance(secs(0));
        prop_assert_eq!(history.cluster.check_registry(), Ok(()));
    }

    /// Whoever heals everything and waits finds all that is free in somebody's hands.
    #[test]
    fn a_healed_cluster_leaves_nothing_idle(steps in prop::collection::vec(step(), 1..80)) {
        let mut history = History::new();
        for step in steps {
            let _ = history.take(step);
        }
        let cluster = &mut history.cluster;
        cluster.settle_store();
        history.agents.iter().for_each(|agent| cluster.connect(*agent));
        cluster.operator(OperatorRequest::SetMaintenance(Vec::new()));
        for agent in cluster.kernel.agents() {
            cluster.operator(OperatorRequest::Reactivate(agent.id));
        }
        for quota in cluster.kernel.quotas() {
            cluster.operator(OperatorRequest::SetQuota { role: quota.role, quota: None, force: true });
        }
        // What is kept for a demand that has waited long is idle for a reason.
        for framework in history.frameworks {
            cluster.call(framework, CallBody::Suppress { roles: vec![] });
        }
        let last = cluster.framework("last");
        cluster.advance(secs(100));
        cluster.call(last, CallBody::Revive { roles: vec![] });
        for agent in cluster.kernel.agents() {
            // What is reserved waits for its role.
            let slot = cluster.kernel.allocator.slot(cluster.kernel.agents[&agent.id].slot);
            let is_idle = agent.state == divvy_proto::api::AgentState::Active
                && slot.available.unreserved.cpus().millis() > 0;
            prop_assert!(!is_idle, "{agent:?}");
        }
    }
}
