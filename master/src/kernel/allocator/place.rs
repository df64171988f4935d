//! Finding an agent for one of a shape: by the demand's constraint and preference, through the indexes.

use divvy_proto::demand::Preference;

use super::classes::ValueIx;
use super::index::Index;
use super::obstacle::Terms;
use super::walk::Stage;
use super::wishes::{Want, Wanted, WantedShape};
use super::{AgentIx, Allocator, Charge, allocate::Unit};

/// How far the search for one of a shape has come in a stage of a turn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Search {
    epoch: u64,
    stage: Option<Stage>,
    /// It fits on no agent below; asked only where the lowest comes first.
    from: usize,
    has_failed: bool,
}

/// From which pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pool {
    /// Reserved first, then unreserved.
    Usual,
    Revocable,
}

/// So many agents are looked at one by one; among more the index is asked.
const FEW: usize = 16;

#[allow(clippy::indexing_slicing, reason = "an index is made by this allocator only")]
impl Allocator {
    /// The first shape of a client's demand that fits somewhere, and where it goes.
    pub(super) fn try_demand(&mut self, terms: &Terms, stage: Stage) -> Option<Unit> {
        let client = terms.client;
        // What is wanted is taken out while it is looked through: nobody asks for it meanwhile.
        let mut want = std::mem::replace(&mut self.clients[client.0].want, Want::Nothing);
        let found = want.demand_mut().and_then(|wanted| self.try_shapes(terms, stage, wanted));
        self.clients[client.0].want = want;
        let (shape, (agent, charge)) = found?;
        Some(Unit { client, agent, charge, shape: Some(shape), why: self.why(client, stage) })
    }

    fn try_shapes(
        &mut self,
        terms: &Terms,
        stage: Stage,
        wanted: &mut Wanted,
    ) -> Option<(usize, (AgentIx, Charge))> {
        let shapes = wanted.shapes.iter_mut().enumerate().filter(|(_, shape)| shape.wanting() > 0);
        for (at, shape) in shapes {
            let search = &mut shape.search;
            if (search.epoch, search.stage) != (self.epoch, Some(stage)) {
                *search = Search { epoch: self.epoch, stage: Some(stage), ..Search::default() };
            }
            if search.has_failed {
                continue;
            }
            if let Some(found) = self.place(terms, shape) {
                return Some((at, found));
            }
            shape.search.has_failed = true;
        }
        None
    }

    /// Where one of a shape goes.
    fn place(&mut self, terms: &Terms, wanted: &mut WantedShape) -> Option<(AgentIx, Charge)> {
        let may_have_unreserved = terms.allow(&wanted.need.scalars, wanted.need.ports).is_ok();
        let usual = match may_have_unreserved || self.with_reserved > 0 {
            true => self.place_from(terms, wanted, Pool::Usual),
            false => None,
        };
        match usual {
            None if terms.is_revocable => self.place_from(terms, wanted, Pool::Revocable),
            usual => usual,
        }
    }

    fn place_from(
        &mut self,
        terms: &Terms,
        wanted: &mut WantedShape,
        pool: Pool,
    ) -> Option<(AgentIx, Charge)> {
        match self.few_agents(terms, wanted) {
            Some(few) => self.place_on(&few, terms, wanted, pool),
            None => self.place_by_index(terms, wanted, pool),
        }
    }

    /// The agents that come into question, the lowest first, if they are few.
    fn few_agents(&self, terms: &Terms, wanted: &WantedShape) -> Option<Vec<AgentIx>> {
        if let Some(hosts) = &wanted.need.hosts {
            let mut agents: Vec<AgentIx> = hosts.iter().flat_map(|host| self.classes.on_host(host)).collect();
            agents.sort_unstable();
            return Some(agents);
        }
        let paired = self.paired.get(&terms.client);
        let count = self.fresh.len() + paired.map_or(0, |agents| agents.len());
        if self.hot.contains(&terms.client) || count > FEW {
            return None;
        }
        let mut agents: Vec<AgentIx> =
            self.fresh.iter().chain(paired.into_iter().flatten().copied()).collect();
        agents.sort_unstable();
        agents.dedup();
        Some(agents)
    }

    /// What one of a shape would be on an agent, if it can be there.
    fn one_on(&self, terms: &Terms, wanted: &mut WantedShape, pool: Pool, agent: AgentIx) -> Option<Charge> {
        let unit = match pool {
            Pool::Usual => self.shape_unit(terms, &wanted.need, agent),
            Pool::Revocable => self.revocable_unit(terms, Some(&wanted.need), agent),
        };
        let charge = unit.ok()?;
        let Some(constraint) = &wanted.shape.constraint else { return Some(charge) };
        let slot = &self.slots[agent.0];
        wanted.verdicts.holds(&self.classes, constraint, wanted.need.by_class, slot).then_some(charge)
    }

    fn place_on(
        &self,
        agents: &[AgentIx],
        terms: &Terms,
        wanted: &mut WantedShape,
        pool: Pool,
    ) -> Option<(AgentIx, Charge)> {
        let preference = wanted.shape.preference.clone();
        let mut best: Option<(u64, AgentIx, Charge)> = None;
        for agent in agents.iter().copied() {
            let rank = match &preference {
                Preference::None => 0,
                Preference::Pack => self.fullness(agent, pool),
                Preference::Spread(attribute) => self.spread_count(terms, attribute, agent),
            };
            if best.as_ref().is_some_and(|(least, _, _)| *least <= rank) {
                continue;
            }
            let Some(charge) = self.one_on(terms, wanted, pool, agent) else { continue };
            best = Some((rank, agent, charge));
            if preference == Preference::None {
                break;
            }
        }
        best.map(|(_, agent, charge)| (agent, charge))
    }

    /// How much an agent has free, as a part of what it has.
    fn fullness(&self, agent: AgentIx, pool: Pool) -> u64 {
        match pool {
            Pool::Usual => self.index.free_part(agent),
            Pool::Revocable => self.revocable_index.free_part(agent),
        }
    }

    /// How much a client has where the attribute is as on this agent.
    fn spread_count(&self, terms: &Terms, attribute: &str, agent: AgentIx) -> u64 {
        let value = self.classes.value(attribute, agent);
        u64::from(count_of(self.spread_counts(terms, attribute), value))
    }

    fn spread_counts(&self, terms: &Terms, attribute: &str) -> &[u32] {
        let spreads = &self.clients[terms.client.0].spreads;
        let counts = spreads.iter().find(|(name, _)| name == attribute);
        counts.map(|(_, counts)| counts.as_slice()).unwrap_or_default()
    }

    fn place_by_index(
        &mut self,
        terms: &Terms,
        wanted: &mut WantedShape,
        pool: Pool,
    ) -> Option<(AgentIx, Charge)> {
        let place = match pool {
            Pool::Usual => &mut self.index,
            Pool::Revocable => &mut self.revocable_index,
        };
        let mut index = std::mem::take(place);
        let found = self.ask_index(&mut index, terms, wanted, pool);
        match pool {
            Pool::Usual => self.index = index,
            Pool::Revocable => self.revocable_index = index,
        }
        found
    }

    fn ask_index(
        &self,
        index: &mut Index,
        terms: &Terms,
        wanted: &mut WantedShape,
        pool: Pool,
    ) -> Option<(AgentIx, Charge)> {
        let (room, preference) = (wanted.need.room, wanted.shape.preference.clone());
        let from = AgentIx(wanted.search.from);
        let mut found = None;
        let mut accept = |agent: AgentIx| {
            found = self.one_on(terms, wanted, pool, agent);
            found.is_some()
        };
        let agent = match preference {
            Preference::None => {
                // What was passed in the usual pool may do in the other.
                let from = if pool == Pool::Usual { from } else { AgentIx::MIN };
                index.first_fit(&room, from, accept)?
            }
            Preference::Pack => index.least_free(&room, accept)?,
            Preference::Spread(attribute) => {
                let values = self.classes.values(&attribute);
                let counts = self.spread_counts(terms, &attribute);
                let count =
                    |agent: AgentIx| count_of(counts, values.get(agent.0).copied().unwrap_or_default());
                levels(counts).into_iter().find_map(|level| {
                    index.first_fit(&room, AgentIx::MIN, |agent| count(agent) == level && accept(agent))
                })?
            }
        };
        if pool == Pool::Usual && preference_is_none(wanted) {
            wanted.search.from = agent.0;
        }
        found.map(|charge| (agent, charge))
    }
}

fn preference_is_none(wanted: &WantedShape) -> bool {
    wanted.shape.preference == Preference::None
}

fn count_of(counts: &[u32], value: ValueIx) -> u32 {
    counts.get(value.at()).copied().unwrap_or_default()
}

/// The counts that there are, the least first. A value that nobody has counted yet has none.
fn levels(counts: &[u32]) -> Vec<u32> {
    let mut levels: Vec<u32> = counts.iter().copied().chain([0]).collect();
    levels.sort_unstable();
    levels.dedup();
    levels
}
