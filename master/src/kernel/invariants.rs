//! What must hold after every input, whatever it was. Everything derived is counted again from what it is derived from.

use std::collections::{BTreeMap, BTreeSet};

use divvy_proto::ids::{AgentId, OfferId};

use super::allocator::{Charge, ClientIx, Quantities};
use super::tally::Tally;
use super::{Kernel, Peer, TaskKey};

/// What an agent's tasks and offers add up to, and which they are.
#[derive(Default)]
struct Count<'a> {
    used: Charge,
    offered: Charge,
    tasks: BTreeSet<TaskKey>,
    offers: BTreeSet<&'a OfferId>,
}

impl Kernel {
    /// Checks that the kernel agrees with itself: `total = available + offered + used` for each agent and dimension, and
    /// nothing negative; nothing offered or used twice; every task with an owner and an agent; sums and indexes as a recount
    /// has them. Called at the end of each turn in debug builds, and by the simulation after each step.
    ///
    /// # Errors
    /// Which rule is broken, by what.
    pub fn check_invariants(&self) -> Result<(), String> {
        self.allocator.check()?;
        let mut counts: BTreeMap<&AgentId, Count<'_>> = BTreeMap::new();
        let mut held: BTreeMap<ClientIx, Quantities> = BTreeMap::new();
        self.count_tasks(&mut counts, &mut held)?;
        self.count_offers(&mut counts, &mut held)?;
        for pending in self.pending_accepts() {
            let count = counts.entry(&pending.agent).or_default();
            add(&mut count.used, &pending.left, || format!("a call of {}", pending.framework))?;
            held.entry(pending.client).or_default().add(&pending.left.total());
        }
        self.check_agents(&counts)?;
        self.check_tally()?;
        self.check_silences()?;
        self.check_inverse()?;
        self.check_gangs()?;
        self.check_owned()?;
        self.allocator.check_clients(&held)?;
        self.check_links()
    }

    fn count_tasks<'a>(
        &'a self,
        counts: &mut BTreeMap<&'a AgentId, Count<'a>>,
        held: &mut BTreeMap<ClientIx, Quantities>,
    ) -> Result<(), String> {
        for (framework, owner) in &self.frameworks {
            for (id, task) in &owner.tasks {
                if owner.ended.contains_key(id) {
                    return Err(format!("task {id} of {framework} has ended and has not"));
                }
                if !self.agents.contains_key(&task.agent) {
                    return Err(format!("task {id} of {framework} has no agent"));
                }
                let count = counts.entry(&task.agent).or_default();
                count.tasks.insert((framework.clone(), id.clone()));
                if task.holds {
                    add(&mut count.used, &task.charge, || format!("task {id} of {framework}"))?;
                    held.entry(task.client).or_default().add(&task.info.resources);
                }
            }
        }
        Ok(())
    }

    fn count_offers<'a>(
        &'a self,
        counts: &mut BTreeMap<&'a AgentId, Count<'a>>,
        held: &mut BTreeMap<ClientIx, Quantities>,
    ) -> Result<(), String> {
        for (id, offer) in &self.offers {
            let owner = self.frameworks.get(&offer.framework);
            if !owner.is_some_and(|owner| owner.is_connected() && owner.offers.contains(id)) {
                return Err(format!("offer {id} is in nobody's hands"));
            }
            let count = counts.entry(&offer.agent).or_default();
            count.offers.insert(id);
            add(&mut count.offered, &offer.grant.charge, || format!("offer {id}"))?;
            held.entry(offer.grant.client).or_default().add(&offer.grant.charge.total());
        }
        // What is gathered for a gang counts as offered, and is in nobody's hands.
        for (slot, client, charge) in self.allocator.gathered() {
            let id = &self.allocator.slot(slot).id;
            let Some((id, _)) = self.agents.get_key_value(id) else {
                return Err(format!("something of {id} is gathered, which is not known"));
            };
            add(&mut counts.entry(id).or_default().offered, charge, || format!("a gang on {id}"))?;
            held.entry(client).or_default().add(&charge.total());
        }
        let in_hands: usize = self.frameworks.values().map(|framework| framework.offers.len()).sum();
        match in_hands == self.offers.len() {
            true => Ok(()),
            false => Err("a framework holds an offer that does not exist".to_owned()),
        }
    }

    fn check_agents(&self, counts: &BTreeMap<&AgentId, Count<'_>>) -> Result<(), String> {
        let nothing = Count::default();
        for (id, agent) in &self.agents {
            let count = counts.get(id).unwrap_or(&nothing);
            let slot = self.allocator.slot(agent.slot);
            if slot.used != count.used || slot.offered != count.offered {
                return Err(format!(
                    "{id}: used {} and offered {}, but its tasks use {} and its offers hold {}",
                    slot.used.total(),
                    slot.offered.total(),
                    count.used.total(),
                    count.offered.total()
                ));
            }
            if slot.used.total().ports().intersects(slot.offered.total().ports()) {
                return Err(format!("{id}: a port is used and offered"));
            }
            if agent.tasks != count.tasks || !agent.offers.iter().eq(count.offers.iter().copied()) {
                return Err(format!("{id}: its tasks or offers are not those that name it"));
            }
        }
        Ok(())
    }

    fn check_tally(&self) -> Result<(), String> {
        let mut recount = Tally::default();
        for agent in self.agents.values() {
            recount.agent(None, Some(agent.standing));
            recount.hold_back(false, agent.held_back);
        }
        for (id, framework) in &self.frameworks {
            recount.framework(id, Some(framework.state()));
            let listed = framework.tasks.values().chain(framework.ended.values());
            listed.for_each(|task| recount.task(None, Some(task.status.state)));
            if framework.live != framework.tasks.values().filter(|task| task.is_live()).count() {
                return Err(format!("{id}: its tasks that have not ended are miscounted"));
            }
        }
        let tally = self.settled_tally();
        match recount == tally {
            true => Ok(()),
            false => Err(format!("the tally is {tally:?}, a recount {recount:?}")),
        }
    }

    fn check_links(&self) -> Result<(), String> {
        for (link, peer) in &self.links {
            let is_mutual = match peer {
                Peer::Agent(id) => self.agents.get(id).is_some_and(|agent| agent.link == Some(*link)),
                Peer::Framework(id) => self.frameworks.get(id).is_some_and(|f| f.is_on(*link)),
                Peer::JoiningAgent(token) => self.awaited.contains_key(token),
            };
            if !is_mutual {
                return Err(format!("{link:?} is of {peer:?}, who does not know it"));
            }
        }
        Ok(())
    }
}

fn add(all: &mut Charge, more: &Charge, what: impl Fn() -> String) -> Result<(), String> {
    let sum = all
        .checked_add(more)
        .ok_or_else(|| format!("{} holds what is held already: {}", what(), more.total()))?;
    *all = sum;
    Ok(())
}
