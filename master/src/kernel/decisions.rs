//! What the kernel has decided lately, and why: a bounded ring, so that "who got it, and why not I" has an answer afterwards.
//!
//! An offer is recorded as numbers, as there may be millions; its sentence is made when somebody reads it. Everything else is
//! rare: it is recorded with its sentence and told to those who watch. Not here: deciding.

use std::collections::VecDeque;

use divvy_proto::api::{self, Change, DecisionKind};
use divvy_proto::ids::{AgentId, Epoch, FrameworkId, TaskId};
use divvy_proto::resources::{Dimension, Resources};
use divvy_proto::role::RolePath;
use divvy_proto::time::Timestamp;

use super::allocator::{Grant, Note, Stage};
use super::{Effect, Effects, Kernel};

/// The first index of an epoch is this many bits up, so that a later master's indices are larger than those of all before it.
/// JSON readers with 53-bit numbers are exact up to epoch 8191.
const EPOCH_SHIFT: u32 = 40;

/// A decision that is not an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decided {
    pub(super) what: DecisionKind,
    pub(super) framework_id: Option<FrameworkId>,
    pub(super) role: Option<RolePath>,
    pub(super) agent_id: Option<AgentId>,
    pub(super) tasks: Vec<TaskId>,
    pub(super) resources: Resources,
    /// Why, for people, with the numbers that decided.
    pub(super) why: String,
}

impl Decided {
    /// About nothing in particular yet: for `Decided { role: …, ..Decided::new(what, why) }`.
    pub(super) fn new(what: DecisionKind, why: impl Into<String>) -> Self {
        Self {
            what,
            framework_id: None,
            role: None,
            agent_id: None,
            tasks: Vec::new(),
            resources: Resources::new(),
            why: why.into(),
        }
    }
}

/// An offer, as numbers.
#[derive(Debug, Clone)]
pub(super) struct Offered {
    pub(super) framework: FrameworkId,
    pub(super) role: RolePath,
    pub(super) agent: AgentId,
    pub(super) stage: Stage,
    /// The framework's share of the cluster in this role before the offer, in millionths.
    pub(super) share: u32,
    /// So many of a demand's shape; none for a classic offer.
    pub(super) count: u32,
    pub(super) revocable: bool,
    /// The well-known scalars, in the order of `Dimension::ALL`.
    pub(super) scalars: [i64; 4],
    pub(super) ports: u32,
}

#[derive(Debug, Clone)]
enum Record {
    Offered(Offered),
    Other(Box<Decided>),
}

/// Which decisions are wanted. The default wants all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DecisionFilter {
    /// Only those after this index.
    pub since: u64,
    /// Only those about this role, or one below it.
    pub role: Option<RolePath>,
    /// Only those about this framework.
    pub framework: Option<FrameworkId>,
    /// The latest so many.
    pub limit: Option<usize>,
    /// Without offers.
    pub without_offers: bool,
}

/// The ring.
#[derive(Debug, Clone)]
pub(super) struct Decisions {
    kept: usize,
    /// The index of the latest.
    last: u64,
    ring: VecDeque<(Timestamp, Record)>,
    /// Not yet told to those who watch.
    untold: Vec<api::Decision>,
}

impl Decisions {
    pub(super) fn new(epoch: Epoch, kept: usize) -> Self {
        let last = u64::from(epoch.0) << EPOCH_SHIFT;
        Self { kept, last, ring: VecDeque::new(), untold: Vec::new() }
    }

    fn push(&mut self, now: Timestamp, record: Record) {
        self.last += 1;
        if self.ring.len() >= self.kept {
            self.ring.pop_front();
        }
        if self.kept > 0 {
            self.ring.push_back((now, record));
        }
    }

    /// Records an offer. Cheap: numbers, and ids that are shared.
    pub(super) fn offered(&mut self, now: Timestamp, offered: Offered) {
        self.push(now, Record::Offered(offered));
    }

    /// Records anything else, to be told at the end of the turn.
    pub(super) fn decide(&mut self, now: Timestamp, decided: Decided) {
        let record = Record::Other(Box::new(decided));
        self.untold.push(show(self.last + 1, now, &record));
        self.push(now, record);
    }

    /// The decisions that are kept and wanted, the latest last.
    pub(super) fn list(&self, wanted: &DecisionFilter) -> Vec<api::Decision> {
        let latest = (0..=self.last).rev().zip(self.ring.iter().rev());
        let latest = latest.take_while(|(index, _)| *index > wanted.since);
        let latest = latest.filter(|(_, (_, record))| wanted.wants(record));
        let mut found: Vec<api::Decision> = latest
            .take(wanted.limit.unwrap_or(usize::MAX))
            .map(|(index, (time, record))| show(index, *time, record))
            .collect();
        found.reverse();
        found
    }
}

impl DecisionFilter {
    fn wants(&self, record: &Record) -> bool {
        let (framework, role) = match record {
            Record::Offered(offered) => (Some(&offered.framework), Some(&offered.role)),
            Record::Other(decided) => (decided.framework_id.as_ref(), decided.role.as_ref()),
        };
        let is_below = |wanted: &RolePath| role.is_some_and(|role| wanted.contains(role));
        self.framework.as_ref().is_none_or(|wanted| framework == Some(wanted))
            && self.role.as_ref().is_none_or(is_below)
            && !(self.without_offers && matches!(record, Record::Offered(_)))
    }
}

impl Kernel {
    /// Records a decision, and tells it to those who watch.
    pub(super) fn decide(&mut self, now: Timestamp, decided: Decided) {
        self.decisions.decide(now, decided);
    }

    /// Remembers that an offer is made of this.
    pub(super) fn remember_grant(
        &mut self,
        now: Timestamp,
        framework: &FrameworkId,
        role: &RolePath,
        agent: &AgentId,
        grant: &Grant,
    ) {
        self.decisions.offered(now, Offered::new(framework, role, agent, grant));
    }

    /// Remembers what the allocator decided beside offers.
    pub(super) fn note(&mut self, now: Timestamp, note: &Note) {
        let client = match note {
            Note::Held { client, .. }
            | Note::GangGathering { client, .. }
            | Note::GangReleased { client, .. }
            | Note::GangComplete { client, .. } => self.allocator.client_of(*client),
        };
        let (framework_id, role) = (client.framework.clone(), client.role.clone());
        let name = self.framework_name(&framework_id).unwrap_or_default();
        let mut agent_id = None;
        let (what, why) = match note {
            Note::Held { agent, shape, since, .. } => {
                agent_id = Some(self.allocator.slot(*agent).id.clone());
                let waited = now.since(*since).as_secs();
                let why = format!(
                    "kept for {shape} of {name}, which has waited {waited} s: others of {role} get nothing there"
                );
                (DecisionKind::Held, why)
            }
            Note::GangGathering { kept, missing, .. } => {
                let why = format!("{kept} pieces of the gang of {name} are kept; {missing} are missing");
                (DecisionKind::GangGathering, why)
            }
            Note::GangReleased { kept, missing, .. } => {
                let why = format!(
                    "the gang of {name} was not complete in time: {kept} pieces are free again, {missing} were missing"
                );
                (DecisionKind::GangReleased, why)
            }
            Note::GangComplete { gang, .. } => (
                DecisionKind::GangComplete,
                format!("the gang of {name} is complete, and offered as gang {gang}"),
            ),
        };
        let about = Decided::new(what, why);
        self.decide(now, Decided { framework_id: Some(framework_id), role: Some(role), agent_id, ..about });
    }

    /// Decisions that are still kept (`Config::decisions_kept`), the latest last.
    #[must_use]
    pub fn decisions(&self, wanted: &DecisionFilter) -> Vec<api::Decision> {
        self.decisions.list(wanted)
    }

    pub(super) fn tell_decisions(&mut self, out: &mut Effects) {
        let untold = self.decisions.untold.drain(..);
        out.extend(untold.map(|decision| Effect::Changed(Change::Decision(decision))));
    }
}

fn show(index: u64, time: Timestamp, record: &Record) -> api::Decision {
    match record {
        Record::Offered(offered) => api::Decision {
            index,
            time,
            what: DecisionKind::Offered,
            framework_id: Some(offered.framework.clone()),
            role: Some(offered.role.clone()),
            agent_id: Some(offered.agent.clone()),
            tasks: Vec::new(),
            resources: offered.resources(),
            why: offered.why(),
        },
        Record::Other(decided) => {
            let Decided { what, framework_id, role, agent_id, tasks, resources, why } = (**decided).clone();
            api::Decision { index, time, what, framework_id, role, agent_id, tasks, resources, why }
        }
    }
}

impl Offered {
    fn new(framework: &FrameworkId, role: &RolePath, agent: &AgentId, grant: &Grant) -> Self {
        let charge = &grant.charge;
        let mut scalars = Dimension::ALL.map(|dimension| charge.unreserved.scalar(dimension));
        let mut ports = charge.unreserved.ports().count();
        for other in charge.reserved.iter().map(|piece| &piece.resources).chain([&charge.revocable]) {
            let more = Dimension::ALL.map(|dimension| other.scalar(dimension));
            scalars.iter_mut().zip(more).for_each(|(mine, more)| *mine = mine.saturating_add(more));
            ports += other.ports().count();
        }
        Self {
            framework: framework.clone(),
            role: role.clone(),
            agent: agent.clone(),
            stage: grant.why.stage,
            share: grant.why.share.millionths(),
            count: grant.demand.as_ref().map_or(0, |demand| demand.count),
            revocable: charge.is_revocable(),
            scalars,
            ports: u32::try_from(ports).unwrap_or(u32::MAX),
        }
    }

    /// Without ports and custom scalars.
    fn resources(&self) -> Resources {
        let known = Dimension::ALL.into_iter().zip(self.scalars);
        // Each was a resource before, so none is refused.
        known.fold(Resources::new(), |all, (dimension, amount)| {
            all.clone().with_scalar(dimension.name(), amount).unwrap_or(all)
        })
    }

    fn why(&self) -> String {
        let share = f64::from(self.share) / 10_000.0;
        let turn = match (self.revocable, self.stage) {
            (true, _) => "revocable; first in fair order of those that take revocable resources",
            (false, Stage::Guaranteed) => "below its guarantee, and first in fair order of those that are",
            (false, Stage::Fair) => "first in fair order of those that can use it",
        };
        let what = match self.count {
            0 => "all that was free for it".to_owned(),
            count => format!("{count} of what it demands"),
        };
        let ports = match self.ports {
            0 => String::new(),
            ports => format!(", with {ports} ports"),
        };
        format!("{turn}, at a share of {share:.2}%: {what}{ports}")
    }
}
