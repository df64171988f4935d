//! Preemption: work of roles beyond their guarantee is asked back for a role that is below its own and waits with a demand
//! that would fit its guarantee.
//!
//! ```text
//! starving demand ──► agents on which it would fit if others ended ──► the one with the fewest, least important victims
//!       ──► inverse offers ──► they end, or are killed at the deadline ──► the allocator gives it to the starving role
//!       ──► the need is gone first ──► the inverse offers are taken back
//! ```
//!
//! At most one unit of one demand is decided in `Config::preemption_interval`, and a decision looks at a bounded number of
//! agents, going on where the last one stopped. Never here: a role below its guarantee by what it loses, more victims than
//! are needed, a victim that two wait for.
//!
//! Not here: how tasks are asked back (`inverse`), who is given what they leave (the allocator).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use divvy_proto::amounts::Amounts;
use divvy_proto::api::DecisionKind;
use divvy_proto::demand::DemandShape;
use divvy_proto::ids::{AgentId, FrameworkId, InverseOfferId};
use divvy_proto::resources::Resources;
use divvy_proto::role::RolePath;
use divvy_proto::scheduler::InverseReason;
use divvy_proto::task::TaskState;
use divvy_proto::time::Timestamp;

use super::agents::Agent;
use super::allocator::{AgentIx, ClientIx, Key, Obstacle, Starving, sum};
use super::decisions::Decided;
use super::tasks::Task;
use super::{Kernel, TaskKey, Timer};

/// A decision looks at this many agents at most; the next one goes on behind them.
const AGENTS_LOOKED_AT: usize = 512;
/// Where nobody starved at the last look, and nobody has stated a demand, the next look is not before this.
const QUIET: Duration = Duration::from_millis(50);
/// A decision looks for room for so many demands in a large cluster, and for more in a small one.
const DEMANDS_TRIED: usize = 4;
/// On one agent, victims are chosen beginning with so many of them in turn.
const BEGINNINGS: usize = 8;
/// A demand is given up for now when so many sets of victims have been weighed.
const SETS_WEIGHED: usize = 10_000;

/// Room for one unit of a demand that is being made.
#[derive(Debug, Clone)]
struct Preemption {
    client: ClientIx,
    framework: FrameworkId,
    shape: DemandShape,
    /// Whose guarantee is not met.
    role: RolePath,
    agent: AgentId,
    slot: AgentIx,
    offers: BTreeSet<InverseOfferId>,
}

/// All preemptions under way, the oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct Preemptions {
    under_way: Vec<Preemption>,
    /// When victims were last looked for.
    last: Option<Timestamp>,
    /// Behind which agent the next look begins.
    looked_at: Option<AgentId>,
    /// So many demands, in fair order, were tried in vain.
    tried: usize,
    /// Since when nobody starves, as far as is known.
    quiet_since: Option<Timestamp>,
    /// A demand was stated since the last look.
    has_news: bool,
    /// Tasks that were told to end, by whomever, and have not ended.
    ending: BTreeSet<TaskKey>,
}

/// A task that may end for another's sake.
#[derive(Debug, Clone)]
struct Victim {
    key: TaskKey,
    role: RolePath,
    /// The weighted shares of its role and of those above it: the larger, the further above its share.
    shares: Vec<Key>,
    priority: i32,
    started: Timestamp,
    /// What its end frees for everyone.
    frees: Resources,
    amounts: Amounts,
}

/// Victims whose end makes room on one agent.
#[derive(Debug, Clone)]
struct Plan {
    agent: AgentId,
    victims: Vec<Victim>,
}

/// What is seen of an agent by a demand that starves.
enum Look {
    /// It does not help, whoever ends.
    Useless,
    /// It has room that the framework does not want for a while, or will have room without more victims: nobody has to end.
    Enough,
    Possible(Plan),
}

/// How much each role could lose, by what it has beyond its guarantee; asked often in one decision.
struct Bounds<'a> {
    kernel: &'a Kernel,
    for_whom: &'a Starving,
    /// What ends anyway of each role and those below it: it is asked back, or was told to end.
    going: BTreeMap<RolePath, BTreeMap<String, i128>>,
    surplus: BTreeMap<RolePath, BTreeMap<String, i128>>,
    shares: BTreeMap<RolePath, Option<Vec<Key>>>,
    /// How many sets of victims may still be weighed.
    left: usize,
}

impl<'a> Bounds<'a> {
    fn new(kernel: &'a Kernel, for_whom: &'a Starving) -> Self {
        let mut going: BTreeMap<RolePath, BTreeMap<String, i128>> = BTreeMap::new();
        for (role, frees) in kernel.going() {
            for role in role.lineage() {
                add(going.entry(role).or_default(), &frees, 1);
            }
        }
        let (surplus, shares) = (BTreeMap::new(), BTreeMap::new());
        Self { kernel, for_whom, going, surplus, shares, left: SETS_WEIGHED }
    }

    /// The shares of a role whose work may be ended here; none for others.
    fn shares_of(&mut self, role: &RolePath) -> Option<Vec<Key>> {
        let (allocator, for_whom) = (&self.kernel.allocator, self.for_whom);
        let shares = || {
            if for_whom.role.contains(role) || !allocator.is_preemptible(role) {
                return None;
            }
            let key = |role: &RolePath| {
                let share = allocator.share(&allocator.held_by_role(role));
                share.by_weight(allocator.weight(role).thousandths()).key()
            };
            Some(role.lineage().iter().map(key).collect())
        };
        self.shares.entry(role.clone()).or_insert_with(shares).clone()
    }

    /// What a role has beyond its guarantee when all that is already asked back has ended. A role above both loses what a
    /// victim leaves, and gains what takes its place.
    fn surplus_of(&mut self, role: &RolePath) -> &BTreeMap<String, i128> {
        let (kernel, for_whom, going) = (self.kernel, self.for_whom, self.going.get(role));
        self.surplus.entry(role.clone()).or_insert_with(|| {
            let mut surplus = BTreeMap::new();
            add(&mut surplus, &kernel.allocator.surplus(role), 1);
            if role.contains(&for_whom.role) {
                add(&mut surplus, &for_whom.shape.amounts(), 1);
            }
            for (name, amount) in going.into_iter().flatten() {
                *surplus.entry(name.clone()).or_default() -= amount;
            }
            surplus
        })
    }

    /// Whether all of them may end without any role falling below its guarantee.
    fn allow(&mut self, victims: &[Victim]) -> bool {
        let Some(left) = self.left.checked_sub(1) else { return false };
        self.left = left;
        let mut lost: BTreeMap<RolePath, BTreeMap<String, i128>> = BTreeMap::new();
        for victim in victims {
            for role in victim.role.lineage() {
                add(lost.entry(role).or_default(), &victim.amounts, 1);
            }
        }
        lost.iter().all(|(role, lost)| {
            let surplus = self.surplus_of(role);
            lost.iter().all(|(name, lost)| surplus.get(name).is_some_and(|surplus| surplus >= lost))
        })
    }
}

fn add(all: &mut BTreeMap<String, i128>, amounts: &Amounts, sign: i128) {
    for (name, amount) in amounts.iter() {
        *all.entry(name.to_owned()).or_default() += sign * i128::from(amount);
    }
}

impl Kernel {
    /// Ends what is no longer needed, and begins what is.
    pub(super) fn preempt(&mut self, now: Timestamp) {
        let is_freed = self.end_preemptions(now);
        let next = self.begin_preemption(now);
        // What was kept for a demand that is served or gone is for others in the next turn.
        match is_freed.then_some(now).or(next) {
            Some(at) => self.timers.set(Timer::Preemption, at),
            None => self.timers.cancel(&Timer::Preemption),
        }
    }

    /// A demand was stated: it may starve.
    pub(super) fn look_for_victims(&mut self) {
        self.preemptions.has_news = true;
    }

    /// A task was told to end.
    pub(super) fn ends_soon(&mut self, key: &TaskKey) {
        self.preemptions.ending.insert(key.clone());
    }

    pub(super) fn ends_no_more(&mut self, key: &TaskKey) {
        self.preemptions.ending.remove(key);
    }

    /// Checks that what is known to be told to end is, and has not ended.
    pub(super) fn check_ending(&self) -> Result<(), String> {
        let is_live = |key: &&TaskKey| self.task_ref(key).is_some_and(Task::is_live);
        match self.preemptions.ending.iter().find(|key| !is_live(key)) {
            Some((framework, task)) => Err(format!("{framework}/{task} has ended and is about to")),
            None => Ok(()),
        }
    }

    /// Asks for room for one unit, if it is time. Says when to come back.
    fn begin_preemption(&mut self, now: Timestamp) -> Option<Timestamp> {
        if !self.allocator.owes_anything() {
            return None;
        }
        let next = self.preemptions.last.map(|last| last + self.config.preemption_interval);
        let quiet =
            self.preemptions.quiet_since.filter(|_| !self.preemptions.has_news).map(|since| since + QUIET);
        if let Some(next) = next.max(quiet).filter(|next| *next > now) {
            return Some(next);
        }
        self.preemptions.has_news = false;
        let starving: Vec<Starving> =
            self.allocator.starving().into_iter().filter(|one| self.needs_more(one)).collect();
        self.preemptions.quiet_since = starving.is_empty().then_some(now);
        if starving.is_empty() {
            return None;
        }
        self.preemptions.last = Some(now);
        let found = self.find_room(now, &starving);
        // Without news there is nothing new to find, but for those that were not looked at.
        let is_over = found.is_none() && self.preemptions.looked_at.is_none() && self.preemptions.tried == 0;
        if let Some((one, plan, seen)) = found {
            self.ask_for_room(now, one, plan, seen);
        }
        (!is_over).then(|| now + self.config.preemption_interval)
    }

    /// The first demand for which room can be made, and how. Those that were tried in vain wait until all others were tried.
    fn find_room<'a>(
        &mut self,
        now: Timestamp,
        starving: &'a [Starving],
    ) -> Option<(&'a Starving, Plan, usize)> {
        let first = if self.preemptions.tried < starving.len() { self.preemptions.tried } else { 0 };
        let small = 4 * AGENTS_LOOKED_AT / self.agents.len().clamp(1, AGENTS_LOOKED_AT);
        let tried = starving.iter().skip(first).take(small.max(DEMANDS_TRIED));
        for one in tried.clone() {
            if let Some((plan, seen)) = self.find_victims(now, one) {
                self.preemptions.tried = 0;
                return Some((one, plan, seen));
            }
        }
        let next = first + tried.count();
        self.preemptions.tried = if next < starving.len() { next } else { 0 };
        None
    }

    /// Whether more is wanted, and owed, than is being made room for.
    fn needs_more(&self, one: &Starving) -> bool {
        let own = |p: &&Preemption| p.client == one.client && p.shape.name == one.shape.name;
        let being_made = self.preemptions.under_way.iter().filter(own).count();
        let wanted = usize::try_from(one.shape.count).unwrap_or(usize::MAX);
        let of_role = self.preemptions.under_way.iter().filter(|p| p.role == one.role);
        being_made < wanted && self.is_owed(&one.role, of_role.map(|p| &p.shape).chain([&one.shape]))
    }

    /// Whether all these fit together in what a role's guarantee lacks, in the dimensions that it names.
    fn is_owed<'a>(&self, role: &RolePath, shapes: impl Iterator<Item = &'a DemandShape>) -> bool {
        let mut wanted = BTreeMap::new();
        shapes.for_each(|shape| add(&mut wanted, &shape.amounts(), 1));
        let unmet = self.allocator.unmet(role);
        let promised = self.allocator.quota(role).map(|quota| &quota.guarantee);
        let named =
            promised.into_iter().flat_map(Amounts::iter).filter(|(name, _)| wanted.contains_key(*name));
        let mut named = named.peekable();
        named.peek().is_some()
            && named.all(|(name, _)| {
                let lacking = i128::from(unmet.get(name).unwrap_or_default());
                wanted.get(name).is_some_and(|wanted| *wanted <= lacking)
            })
    }

    /// The best of the agents that are looked at, and how many of them would do. None also where nobody has to end.
    fn find_victims(&mut self, now: Timestamp, one: &Starving) -> Option<(Plan, usize)> {
        let mut bounds = Bounds::new(self, one);
        let after = self.preemptions.looked_at.clone();
        let (mut best, mut seen, mut enough) = (None, 0, false);
        let mut last = None;
        for (id, agent) in in_turn(&self.agents, after.as_ref()).take(AGENTS_LOOKED_AT) {
            last = Some(id.clone());
            match self.look_at(now, id, agent, &mut bounds) {
                Look::Useless => {}
                Look::Enough => enough = true,
                Look::Possible(plan) => {
                    seen += 1;
                    if best.as_ref().is_none_or(|best: &Plan| plan.cost() < best.cost()) {
                        best = Some(plan);
                    }
                }
            }
        }
        let is_all = self.agents.len() <= AGENTS_LOOKED_AT;
        self.preemptions.looked_at = last.filter(|_| !is_all);
        best.filter(|_| !enough).map(|plan| (plan, seen))
    }

    fn look_at(&self, now: Timestamp, id: &AgentId, agent: &Agent, bounds: &mut Bounds<'_>) -> Look {
        let one = bounds.for_whom;
        let slot = self.allocator.slot(agent.slot);
        let is_suitable = slot.is_active()
            && one.shape.constraint.as_ref().is_none_or(|constraint| constraint.holds(&slot.as_facts()));
        if !is_suitable {
            return Look::Useless;
        }
        if let Err(Obstacle::Filtered(until)) =
            self.allocator.obstacle(now, one.client, Some(&one.shape), agent.slot)
        {
            // Whoever refuses an agent for longer than it takes to make room elsewhere does not wait for that agent.
            return if until.since(now) > self.config.revocation_grace {
                Look::Useless
            } else {
                Look::Enough
            };
        }
        if agent.tasks.is_empty() && agent.offers.is_empty() {
            return Look::Useless;
        }
        let Some(wanted) = self.with_claims(id, one) else { return Look::Useless };
        let (mut victims, dying) = self.victims_on(agent, bounds);
        let dying = sum(&dying, &self.offered_beyond(agent));
        if self.allocator.fits_with(one.client, &wanted, agent.slot, &dying) {
            return Look::Enough;
        }
        victims.sort_by(|left, right| left.order().cmp(&right.order()));
        self.choose(agent.slot, &wanted, &dying, &victims, bounds)
            .map_or(Look::Useless, |victims| Look::Possible(Plan { agent: id.clone(), victims }))
    }

    /// The shape, and all for which room is being made on the agent already. None if that is for somebody else.
    fn with_claims(&self, agent: &AgentId, one: &Starving) -> Option<DemandShape> {
        let claims = self.preemptions.under_way.iter().filter(|claim| claim.agent == *agent);
        claims.into_iter().try_fold(one.shape.clone(), |all, claim| {
            let resources = all.resources.checked_add(&claim.shape.resources)?;
            let ports = all.ports.checked_add(claim.shape.ports)?;
            (claim.client == one.client).then_some(DemandShape { resources, ports, ..all })
        })
    }

    /// The tasks of an agent that may end for somebody else, and what others that are about to end will leave.
    fn victims_on(&self, agent: &Agent, bounds: &mut Bounds<'_>) -> (Vec<Victim>, Resources) {
        let (mut victims, mut dying) = (Vec::new(), Resources::new());
        for key in &agent.tasks {
            let Some(task) = self.task_ref(key).filter(|task| task.holds) else { continue };
            let frees = task.charge.unreserved.clone();
            if frees.is_empty() {
                continue;
            }
            if is_ending(task) || self.inverse.of(key).is_some() {
                dying = sum(&dying, &frees);
                continue;
            }
            let role = self.allocator.client_of(task.client).role.clone();
            if let Some(shares) = bounds.shares_of(&role) {
                let started = task.started_at.unwrap_or(task.status.time);
                let priority = task.info.priority;
                let (key, amounts) = (key.clone(), Amounts::from(&frees));
                victims.push(Victim { key, role, shares, priority, started, frees, amounts });
            }
        }
        (victims, dying)
    }

    /// What is in the hands of those who have their guarantees already: whoever is below its own gets it when they return it, or
    /// when it expires.
    fn offered_beyond(&self, agent: &Agent) -> Resources {
        let has_its_own = |role: &RolePath| {
            role.lineage().iter().all(|role| {
                let (quota, consumed) = (self.allocator.quota(role), self.allocator.consumed(role));
                let mut promised = quota.into_iter().flat_map(|quota| quota.guarantee.iter());
                promised.all(|(name, amount)| consumed.get(name).unwrap_or_default() >= amount)
            })
        };
        let offers = agent.offers.iter().filter_map(|id| self.offers.get(id));
        let beyond = offers.filter(|offer| has_its_own(&offer.role));
        beyond.fold(Resources::new(), |all, offer| sum(&all, &offer.grant.charge.unreserved))
    }

    /// Victims with whose end it fits. Where the first of them would use up what a role can lose and too little comes of it, they
    /// are passed over.
    fn choose(
        &self,
        agent: AgentIx,
        wanted: &DemandShape,
        dying: &Resources,
        candidates: &[Victim],
        bounds: &mut Bounds<'_>,
    ) -> Option<Vec<Victim>> {
        let client = bounds.for_whom.client;
        let fits = |victims: &[Victim]| {
            let free = victims.iter().fold(dying.clone(), |all, victim| sum(&all, &victim.frees));
            self.allocator.fits_with(client, wanted, agent, &free)
        };
        let able = candidates.iter().filter(|victim| bounds.allow(std::slice::from_ref(*victim)));
        let able: Vec<Victim> = able.cloned().collect();
        if !fits(&able) {
            return None;
        }
        let beginnings = 0..able.len().min(BEGINNINGS);
        beginnings.into_iter().find_map(|first| first_that_fit(able.get(first..)?, &fits, bounds))
    }

    /// What tasks that end anyway hold of the unreserved, and the roles that lose it.
    fn going(&self) -> impl Iterator<Item = (&RolePath, Amounts)> {
        let tasks = self.inverse.iter().filter_map(|(_, inverse)| {
            let known = &self.frameworks.get(&inverse.framework)?.tasks;
            Some(inverse.tasks.iter().filter_map(|id| known.get(id)))
        });
        let told = self.preemptions.ending.iter().filter(|key| self.inverse.of(key).is_none());
        let told = told.filter_map(|key| self.task_ref(key)).filter(|task| is_ending(task));
        let held = tasks.flatten().chain(told).filter(|task| task.holds);
        held.map(|task| (&self.allocator.client_of(task.client).role, Amounts::from(&task.charge.unreserved)))
    }

    fn ask_for_room(&mut self, now: Timestamp, one: &Starving, plan: Plan, seen: usize) {
        let deadline = now + self.config.revocation_grace;
        let reason = InverseReason::Preemption(one.role.clone());
        let why = self.why(one, &plan, seen, deadline);
        let keys = plan.victims.iter().map(|victim| victim.key.clone());
        let offers = self.ask_back(now, &plan.agent, keys, deadline, &reason).into_iter().collect();
        let framework = self.allocator.client_of(one.client).framework.clone();
        let freed = plan.victims.iter().fold(Resources::new(), |all, victim| sum(&all, &victim.frees));
        let decided = Decided {
            framework_id: Some(framework.clone()),
            role: Some(one.role.clone()),
            agent_id: Some(plan.agent.clone()),
            tasks: plan.victims.into_iter().map(|victim| victim.key.1).collect(),
            resources: freed,
            ..Decided::new(DecisionKind::Preempted, why)
        };
        self.decide(now, decided);
        let (client, shape, role) = (one.client, one.shape.clone(), one.role.clone());
        let agent = plan.agent;
        let Some(slot) = self.agents.get(&agent).map(|agent| agent.slot) else { return };
        self.allocator.make_room(slot, client);
        self.preemptions.under_way.push(Preemption { client, framework, shape, role, agent, slot, offers });
    }

    /// The decision with its arithmetic.
    fn why(&self, one: &Starving, plan: &Plan, seen: usize, deadline: Timestamp) -> String {
        let waits = &self.allocator.client_of(one.client).framework;
        let (unmet, promised) = (self.allocator.unmet(&one.role), self.allocator.quota(&one.role));
        let promised = promised.map(|quota| quota.guarantee.to_string()).unwrap_or_default();
        let victims: Vec<String> = plan.victims.iter().map(|victim| self.show_victim(victim)).collect();
        format!(
            "role {} lacks {unmet} of its guarantee of {promised}, and framework {waits} waits for {} ({}), which fits nowhere. \
             It fits on {} once {} ended; of the agents looked at, {seen} would do, and this one needs the fewest and least \
             important victims. They are killed at {deadline}",
            one.role,
            one.shape.name,
            one.shape.amounts(),
            plan.agent,
            victims.join(", and "),
        )
    }

    fn show_victim(&self, victim: &Victim) -> String {
        let beyond: Vec<String> = victim
            .role
            .lineage()
            .iter()
            .map(|role| format!("{role} uses {} beyond its guarantee", self.allocator.surplus(role)))
            .collect();
        let (framework, task) = &victim.key;
        format!(
            "task {task} of {framework} ({}, priority {}; {}) has",
            victim.amounts,
            victim.priority,
            beyond.join(", ")
        )
    }

    /// Ends the preemptions that nobody needs any more: the demand is withdrawn or met, or the guarantee is. Says whether
    /// something is free that was kept for them.
    fn end_preemptions(&mut self, now: Timestamp) -> bool {
        if self.preemptions.under_way.is_empty() {
            return false;
        }
        let rooms: BTreeSet<AgentIx> = self.preemptions.under_way.iter().map(|p| p.slot).collect();
        let mut kept: Vec<Preemption> = Vec::new();
        for mut preemption in std::mem::take(&mut self.preemptions.under_way) {
            preemption.offers.retain(|id| self.inverse.get(*id).is_some());
            if preemption.offers.is_empty() {
                continue;
            }
            // What is past its deadline is being killed.
            let is_final = |id: &InverseOfferId| self.inverse.get(*id).is_some_and(|i| i.deadline <= now);
            match preemption.offers.iter().any(is_final) || self.is_needed(&preemption, &kept) {
                true => kept.push(preemption),
                false => self.take_back(now, &preemption),
            }
        }
        let ended = rooms.into_iter().filter(|slot| kept.iter().all(|p| p.slot != *slot));
        let slots: Vec<AgentIx> = ended.collect();
        self.preemptions.under_way = kept;
        slots.into_iter().fold(false, |freed, slot| self.allocator.end_room(slot) | freed)
    }

    /// Whether a preemption is still needed beside older ones.
    fn is_needed(&self, preemption: &Preemption, older: &[Preemption]) -> bool {
        let name = &preemption.shape.name;
        let own = |p: &&Preemption| p.client == preemption.client && p.shape.name == *name;
        let before = older.iter().filter(own).count();
        let state = self.allocator.wish_view(preemption.client);
        let shapes = state.iter().flat_map(|state| &state.demand.shapes);
        let wanted = shapes.filter(|shape| shape.name == *name).map(|shape| shape.count).sum::<u32>();
        let of_role = older.iter().filter(|p| p.role == preemption.role).map(|p| &p.shape);
        let agent = self.agents.get(&preemption.agent);
        agent.is_some_and(|agent| self.allocator.slot(agent.slot).is_active())
            && before < usize::try_from(wanted).unwrap_or(usize::MAX)
            && self.is_owed(&preemption.role, of_role.chain([&preemption.shape]))
    }

    fn take_back(&mut self, now: Timestamp, preemption: &Preemption) {
        preemption.offers.iter().for_each(|id| self.withdraw(*id));
        let why = format!(
            "room for {} is no longer needed: it was met otherwise or withdrawn, or role {} has its guarantee",
            preemption.shape.name, preemption.role
        );
        let decided = Decided {
            framework_id: Some(preemption.framework.clone()),
            role: Some(preemption.role.clone()),
            agent_id: Some(preemption.agent.clone()),
            ..Decided::new(DecisionKind::Preempted, why)
        };
        self.decide(now, decided);
    }
}

impl Victim {
    /// Whose end is the least disruption, first.
    fn order(&self) -> (Reverse<&[Key]>, i32, Reverse<Timestamp>, &TaskKey) {
        (Reverse(&self.shares), self.priority, Reverse(self.started), &self.key)
    }
}

impl Plan {
    /// The cheaper plan is the smaller: fewest victims, then the least important, then the youngest.
    fn cost(&self) -> (usize, i32, Reverse<Timestamp>) {
        let highest = self.victims.iter().map(|victim| victim.priority).max().unwrap_or(i32::MIN);
        let oldest = self.victims.iter().map(|victim| victim.started).min().unwrap_or_default();
        (self.victims.len(), highest, Reverse(oldest))
    }
}

/// Whether a task has been told to end.
pub(super) fn is_ending(task: &Task) -> bool {
    task.kill.is_some() || task.ended_for.is_some() || task.status.state == TaskState::Killing
}

/// The first victims, in their order, with whose end it fits; without those that turn out not to be needed.
fn first_that_fit(
    candidates: &[Victim],
    fits: &impl Fn(&[Victim]) -> bool,
    bounds: &mut Bounds<'_>,
) -> Option<Vec<Victim>> {
    let mut chosen: Vec<Victim> = Vec::new();
    for candidate in candidates {
        chosen.push(candidate.clone());
        if !bounds.allow(&chosen) {
            chosen.pop();
        } else if fits(&chosen) {
            return Some(without_unneeded(chosen, fits));
        }
    }
    None
}

/// Those that are needed for it to fit: the most important are spared first.
fn without_unneeded(mut chosen: Vec<Victim>, fits: &impl Fn(&[Victim]) -> bool) -> Vec<Victim> {
    for at in (0..chosen.len()).rev() {
        let mut rest = chosen.clone();
        rest.remove(at);
        if fits(&rest) {
            chosen = rest;
        }
    }
    chosen
}

/// All agents, beginning behind this one.
fn in_turn<'a>(
    agents: &'a BTreeMap<AgentId, Agent>,
    after: Option<&AgentId>,
) -> impl Iterator<Item = (&'a AgentId, &'a Agent)> {
    let (behind, before) = match after {
        None => (agents.range::<AgentId, _>(..), None),
        Some(after) => {
            let behind = agents.range::<AgentId, _>((Bound::Excluded(after), Bound::Unbounded));
            (behind, Some(agents.range::<AgentId, _>(..=after)))
        }
    };
    behind.chain(before.into_iter().flatten())
}
