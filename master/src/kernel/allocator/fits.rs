//! How often the shapes in which headroom is kept still fit on the agents one by one, and how often they have to.

use std::collections::BTreeSet;
use std::sync::Arc;

use divvy_proto::resources::Resources;

use super::most::known_of;
use super::roles::NodeIx;
use super::size::{KNOWN, NAMES, Size};

/// What one of something needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Need {
    known: [i64; KNOWN],
    custom: Vec<(Arc<str>, i64)>,
}

/// More often than this nothing has to fit anywhere.
const MANY: u64 = 1 << 32;

fn custom_of(resources: &Resources, name: &str) -> i64 {
    resources.custom().find(|(mine, _)| *mine == name).map_or(0, |(_, amount)| amount)
}

impl Need {
    pub(super) fn of_size(size: &Size) -> Self {
        let amount = |name: &str| i64::try_from(size.get(name)).unwrap_or(i64::MAX);
        let custom = size.iter().filter(|(name, _)| !NAMES.contains(name));
        Self {
            known: NAMES.map(amount),
            custom: custom.map(|(name, _)| (Arc::from(name), amount(name))).collect(),
        }
    }

    /// How many of it fit into what `free` has beyond `taken`.
    pub(super) fn times_in(&self, free: &Resources, taken: &Resources) -> u64 {
        let known = self.known.iter().zip(known_of(free).into_iter().zip(known_of(taken)));
        let known = known.map(|(need, (free, taken))| (*need, free - taken));
        let left = |name: &str| custom_of(free, name) - custom_of(taken, name);
        let custom = self.custom.iter().map(|(name, need)| (*need, left(name)));
        let times = known.chain(custom).filter(|(need, _)| *need > 0).map(|(need, free)| free.max(0) / need);
        u64::try_from(times.min().unwrap_or_default()).unwrap_or_default()
    }

    fn needs(&self) -> impl Iterator<Item = (&str, i64)> + '_ {
        let names: [&str; KNOWN] = NAMES;
        let custom = self.custom.iter().map(|(name, need)| (name.as_ref(), *need));
        names.into_iter().zip(self.known).chain(custom).filter(|(_, need)| *need > 0)
    }

    /// How many of it are at least needed to cover what is named on both sides.
    fn times_for(&self, amount: &Size) -> u64 {
        let times = self.needs().map(|(name, need)| {
            let wanted = amount.get(name).max(0).unsigned_abs();
            wanted.div_ceil(u128::from(need.unsigned_abs()))
        });
        times.max().and_then(|times| u64::try_from(times).ok()).unwrap_or_default().min(MANY)
    }

    /// What so many of it need, by name.
    pub(super) fn many(&self, times: u64) -> impl Iterator<Item = (&str, i128)> + '_ {
        self.needs().map(move |(name, need)| (name, i128::from(need) * i128::from(times)))
    }
}

/// Names a shape in which headroom is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FitIx(usize);

impl FitIx {
    pub(super) const fn at(self) -> usize {
        self.0
    }
}

#[derive(Debug, Clone)]
struct Watched {
    need: Need,
    /// How often it fits on all active agents together, one by one; not known before they were counted.
    fits: Option<u64>,
    /// Who keeps headroom in it.
    watchers: BTreeSet<NodeIx>,
    /// How often it has to fit for whom.
    needed: BTreeSet<(u64, NodeIx)>,
}

impl Watched {
    /// How often it has to fit for somebody who is not on this path.
    fn needed_beside(&self, path: &[NodeIx]) -> Option<(u64, NodeIx)> {
        self.needed.iter().rev().find(|(_, node)| !path.contains(node)).copied()
    }
}

/// The shapes in which headroom is kept.
#[derive(Debug, Clone, Default)]
pub(super) struct FitTable {
    shapes: Vec<Option<Watched>>,
    /// How many of them there are.
    watched: usize,
    /// One of them may fit more often beyond what has to than it did.
    pub(super) moved: bool,
    /// Which have to fit so much less often for somebody, since this was last emptied.
    pub(super) fell: Vec<(FitIx, u64)>,
}

impl FitTable {
    pub(super) fn is_empty(&self) -> bool {
        self.watched == 0
    }

    fn of(&self, fit: FitIx) -> Option<&Watched> {
        self.shapes.get(fit.0)?.as_ref()
    }

    fn of_mut(&mut self, fit: FitIx) -> Option<&mut Watched> {
        self.shapes.get_mut(fit.0)?.as_mut()
    }

    pub(super) fn is_of(&self, fit: FitIx, shape: &Size) -> bool {
        self.of(fit).is_some_and(|watched| watched.need == Need::of_size(shape))
    }

    pub(super) fn watch(&mut self, need: Need, by: NodeIx) -> FitIx {
        let known = self.shapes.iter().position(|shape| shape.as_ref().is_some_and(|w| w.need == need));
        let fit = FitIx(known.unwrap_or_else(|| self.add(need)));
        if let Some(watched) = self.of_mut(fit) {
            watched.watchers.insert(by);
        }
        fit
    }

    fn add(&mut self, need: Need) -> usize {
        let (watchers, needed) = (BTreeSet::new(), BTreeSet::new());
        let watched = Some(Watched { need, fits: None, watchers, needed });
        let at = self.shapes.iter().position(Option::is_none).unwrap_or(self.shapes.len());
        match self.shapes.get_mut(at) {
            Some(place) => *place = watched,
            None => self.shapes.push(watched),
        }
        self.watched += 1;
        at
    }

    pub(super) fn forget(&mut self, fit: FitIx, by: NodeIx) {
        let Some(watched) = self.of_mut(fit) else { return };
        watched.watchers.remove(&by);
        watched.needed.retain(|(_, node)| *node != by);
        if watched.watchers.is_empty() {
            self.shapes.get_mut(fit.0).into_iter().for_each(|place| *place = None);
            self.watched -= 1;
        }
        self.moved = true;
    }

    /// How often a shape has to fit so that it covers this.
    pub(super) fn times(&self, fit: FitIx, unmet: &Size) -> u64 {
        self.of(fit).map_or(0, |watched| watched.need.times_for(unmet))
    }

    pub(super) fn set_needed(&mut self, fit: FitIx, by: NodeIx, before: u64, now: u64) {
        if now < before {
            self.fell.push((fit, before - now));
            self.moved = true;
        }
        let Some(watched) = self.of_mut(fit) else { return };
        watched.needed.remove(&(before, by));
        if now > 0 {
            watched.needed.insert((now, by));
        }
    }

    /// Whether some shape has not been counted yet.
    pub(super) fn is_uncounted(&self) -> bool {
        self.shapes.iter().flatten().any(|watched| watched.fits.is_none())
    }

    /// Counts what has not been, given what each active agent has free.
    pub(super) fn count<'a>(&mut self, free: impl Iterator<Item = &'a Resources> + Clone) {
        let nothing = Resources::new();
        for watched in self.shapes.iter_mut().flatten().filter(|watched| watched.fits.is_none()) {
            let times = free.clone().map(|free| watched.need.times_in(free, &nothing));
            watched.fits = Some(times.fold(0, u64::saturating_add));
        }
        self.moved = true;
    }

    /// An agent's free resources have changed.
    pub(super) fn update(&mut self, before: Option<&Resources>, now: Option<&Resources>) {
        let nothing = Resources::new();
        for watched in self.shapes.iter_mut().flatten() {
            let times =
                |free: Option<&Resources>| free.map_or(0, |free| watched.need.times_in(free, &nothing));
            let (before, now) = (times(before), times(now));
            if let Some(fits) = &mut watched.fits {
                *fits = fits.saturating_add(now).saturating_sub(before);
            }
            self.moved |= now > before;
        }
    }

    /// How often each fits now.
    pub(super) fn all(&self) -> Vec<u64> {
        self.shapes.iter().map(|w| w.as_ref().and_then(|w| w.fits).unwrap_or_default()).collect()
    }

    /// Whose headroom is in the way, for a client at the end of `path`, of giving `given` of an agent's free resources.
    pub(super) fn blocked(&self, path: &[NodeIx], free: &Resources, given: &Resources) -> Option<NodeIx> {
        let nothing = Resources::new();
        self.shapes.iter().flatten().find_map(|watched| {
            let (needed, node) = watched.needed_beside(path)?;
            let before = watched.need.times_in(free, &nothing);
            let lost = before - watched.need.times_in(free, given).min(before);
            let left = watched.fits.unwrap_or_default().saturating_sub(lost);
            (lost > 0 && left < needed).then_some(node)
        })
    }

    /// What an agent has to keep, so that it takes nobody's headroom, as shape and how often.
    pub(super) fn kept<'a>(
        &'a self,
        path: &'a [NodeIx],
        free: &'a Resources,
    ) -> impl Iterator<Item = (&'a Need, u64)> + 'a {
        self.shapes.iter().flatten().filter_map(move |watched| {
            let (needed, _) = watched.needed_beside(path)?;
            let here = watched.need.times_in(free, &Resources::new());
            let spare = watched.fits.unwrap_or_default().saturating_sub(needed);
            (here > spare).then(|| (&watched.need, here - spare))
        })
    }

    /// Checks that every shape fits as often as a recount says, given what each active agent has free.
    pub(super) fn check<'a>(&self, free: impl Iterator<Item = &'a Resources> + Clone) -> Result<(), String> {
        let nothing = Resources::new();
        for watched in self.shapes.iter().flatten() {
            let times = free.clone().map(|free| watched.need.times_in(free, &nothing));
            let recount = times.fold(0, u64::saturating_add);
            if watched.fits.is_some_and(|fits| fits != recount) {
                return Err(format!(
                    "{:?} fits {:?} times, a recount says {recount}",
                    watched.need, watched.fits
                ));
            }
        }
        Ok(())
    }
}
