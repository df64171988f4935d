//! What roles are promised and do not have yet, and what that leaves for everyone else.
//!
//! ```text
//! unmet(node)    = guarantee - used - reserved - on offer, per dimension that the guarantee names, at least 0
//! required(node) = the larger of unmet(node) and the sum of required(child)
//! ```
//!
//! The free resources of the cluster may not sink below what is required by giving something to somebody for whom it is not
//! required. Where they are below it already, what is lacking may not grow.

use std::collections::BTreeMap;

use divvy_proto::quota::Quota;

use super::fits::{FitIx, Need};
use super::most::Most;
use super::roles::{Node, NodeIx, ROOT, RoleTree};
use super::size::Size;

/// A role's quota as the allocator keeps it.
#[derive(Debug, Clone)]
pub(super) struct Promise {
    pub(super) quota: Quota,
    pub(super) guarantee: Most,
    pub(super) limit: Most,
    /// The shapes of which its clients want some, by how large a part of the guarantee each is; and how many want each.
    demanded: BTreeMap<(u128, Size), u32>,
    /// In which shape headroom is kept for it, and how many times.
    fit: Option<(FitIx, u64)>,
}

impl Promise {
    pub(super) fn new(quota: Quota) -> Self {
        let (guarantee, limit) = (Most::of(&quota.guarantee), Most::of(&quota.limit));
        Self { quota, guarantee, limit, demanded: BTreeMap::new(), fit: None }
    }

    /// The largest part of any dimension of the guarantee that a shape takes, in fixed point.
    pub(super) fn part_of(&self, shape: &Size) -> u128 {
        let part = |(name, promised): (&str, i64)| {
            let (part, whole) = (shape.get(name).unsigned_abs(), u128::from(promised.unsigned_abs()));
            (part << 20).checked_div(whole).unwrap_or_default()
        };
        self.guarantee.iter().map(part).max().unwrap_or_default()
    }

    /// The shape in which headroom is kept: the one that was named, else the largest that is wanted.
    fn shape(&self) -> Option<Size> {
        match &self.quota.shape {
            Some(shape) => Some(Size::of(shape)),
            None => self.demanded.last_key_value().map(|((_, shape), _)| shape.clone()),
        }
    }
}

/// What is owed to a node and to those below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Owed {
    /// To the node itself.
    pub(super) unmet: Size,
    /// To its children, together.
    pub(super) below: Size,
    pub(super) required: Size,
}

impl Owed {
    pub(super) fn is_unmet(&self) -> bool {
        !self.unmet.is_zero()
    }
}

impl Node {
    /// What its own guarantee lacks, by dimension.
    pub(super) fn unmet(&self) -> Size {
        let Some(promise) = &self.promise else { return Size::new() };
        let mut unmet = Size::new();
        for (name, promised) in promise.guarantee.iter() {
            let had = self.used.get(name) + self.reserved.get(name) + self.offered.get(name);
            unmet.set(name, (i128::from(promised) - had).max(0));
        }
        unmet
    }

    pub(super) fn is_unmet(&self) -> bool {
        self.owed.as_ref().is_some_and(|owed| owed.is_unmet())
    }

    /// What its guarantee lacks as bounds: what is given must be within them to be what the guarantee is for.
    pub(super) fn unmet_bounds(&self) -> Option<Most> {
        let (promise, owed) = (self.promise.as_ref()?, self.owed.as_ref()?);
        let mut bounds = Most::new();
        promise.guarantee.iter().for_each(|(name, _)| bounds.lower(name, owed.unmet.get(name)));
        owed.is_unmet().then_some(bounds)
    }
}

#[allow(
    clippy::indexing_slicing,
    reason = "a NodeIx is made by this tree only, and forgotten before its node is"
)]
impl RoleTree {
    /// Promises something to a role, or no longer. `shapes` are those of which its clients want some, one for each.
    pub(super) fn promise(&mut self, at: NodeIx, promise: Option<Promise>, shapes: &[Size]) {
        let old = self.nodes[at.at()].promise.take();
        if let Some((fit, _)) = old.as_ref().and_then(|promise| promise.fit) {
            self.fits.forget(fit, at);
        }
        self.promises += usize::from(promise.is_some());
        self.promises -= usize::from(old.is_some());
        self.loosened.insert(at);
        self.owed_moved = true;
        self.nodes[at.at()].promise = promise.map(|mut promise| {
            for shape in shapes {
                *promise.demanded.entry((promise.part_of(shape), shape.clone())).or_default() += 1;
            }
            Box::new(promise)
        });
        let lineage: Vec<NodeIx> = self.path(at).map(|(above, _)| above).chain([ROOT]).collect();
        for above in &lineage {
            self.nodes[above.at()].owed.get_or_insert_default();
        }
        for above in lineage {
            self.settle_owed(above);
            self.settle(above);
        }
        self.settle_shape(at);
    }

    /// Counts again what is owed to a node, of which the sums have changed, and tells its parent.
    pub(super) fn settle_owed(&mut self, at: NodeIx) {
        let node = &mut self.nodes[at.at()];
        if node.owed.is_none() || at == ROOT {
            return;
        }
        let unmet = node.unmet();
        let Some(owed) = &mut node.owed else { return };
        let required = unmet.zip(&owed.below, i128::max);
        if owed.unmet == unmet && owed.required == required {
            return;
        }
        let before = std::mem::replace(&mut owed.required, required.clone());
        owed.unmet = unmet;
        let parent = node.parent;
        let above = self.nodes[parent.at()].owed.get_or_insert_default();
        above.below.sub(&before);
        above.below.add(&required);
        self.owed_moved = true;
        self.settle_need(at);
    }

    /// How often a node's shape has to fit.
    fn settle_need(&mut self, at: NodeIx) {
        let node = &mut self.nodes[at.at()];
        let (Some(promise), Some(owed)) = (&mut node.promise, &node.owed) else { return };
        let Some((fit, times)) = &mut promise.fit else { return };
        let needed = self.fits.times(*fit, &owed.unmet);
        if needed != *times {
            self.fits.set_needed(*fit, at, *times, needed);
            *times = needed;
        }
    }

    /// In which shape headroom is kept for a node: it may be another than before.
    fn settle_shape(&mut self, at: NodeIx) {
        let Some(promise) = &mut self.nodes[at.at()].promise else { return };
        let shape = promise.shape().filter(|shape| !promise.guarantee.is_open() && !shape.is_zero());
        let is_same = match (&shape, promise.fit) {
            (Some(shape), Some((fit, _))) => self.fits.is_of(fit, shape),
            (shape, fit) => shape.is_none() && fit.is_none(),
        };
        if is_same {
            return;
        }
        if let Some((fit, times)) = promise.fit.take() {
            self.fits.set_needed(fit, at, times, 0);
            self.fits.forget(fit, at);
        }
        promise.fit = shape.map(|shape| (self.fits.watch(Need::of_size(&shape), at), 0));
        self.owed_moved = true;
        self.settle_need(at);
    }

    /// A client wants, or no longer wants, some of a shape: it may be the one in which headroom is kept.
    pub(super) fn demanded(&mut self, client: NodeIx, shape: &Size, wants: bool) {
        if self.promises == 0 {
            return;
        }
        let promised = self.path(client).filter(|(_, node)| node.promise.is_some());
        for at in promised.map(|(at, _)| at).collect::<Vec<_>>() {
            let Some(promise) = &mut self.nodes[at.at()].promise else { continue };
            let key = (promise.part_of(shape), shape.clone());
            let count = promise.demanded.entry(key.clone()).or_default();
            *count = if wants { *count + 1 } else { count.saturating_sub(1) };
            if *count == 0 {
                promise.demanded.remove(&key);
            }
            self.settle_shape(at);
        }
    }

    /// What the whole cluster owes; absent if that is nothing.
    pub(super) fn required(&self) -> Option<&Size> {
        let owed = self.nodes[ROOT.at()].owed.as_ref()?;
        (!owed.below.is_zero()).then_some(&owed.below)
    }

    /// What a client may be given of the unreserved without what is lacking for others growing, where `free` is what the
    /// cluster has free; no bounds if nothing is owed to anybody.
    ///
    /// That is what is free beyond all that is required, and of what is required for the client's own lineage the part that
    /// nobody else below it needs.
    pub(super) fn spare(&self, client: NodeIx, free: &Size) -> Most {
        let mut most = Most::new();
        let Some(required) = self.required() else { return most };
        let mut spare = free.zip(required, |free, required| (free - required).max(0));
        let mut own = Size::new();
        for owed in self.path(client).filter_map(|(_, node)| node.owed.as_ref()) {
            spare.sub(&owed.below);
            spare.add(&own);
            own = owed.required.clone();
        }
        spare.add(&own);
        required.iter().for_each(|(name, _)| most.lower(name, spare.get(name)));
        most
    }

    /// The topmost roles whose guarantee is not met in this dimension, by how much, the largest first.
    pub(super) fn owed_in(&self, dimension: &str) -> Vec<(i128, NodeIx)> {
        let mut found = Vec::new();
        let mut open: Vec<NodeIx> = self.children(ROOT).collect();
        while let Some(at) = open.pop() {
            let Some(owed) = &self.nodes[at.at()].owed else { continue };
            match owed.unmet.get(dimension) {
                0 if owed.below.get(dimension) > 0 => open.extend(self.children(at)),
                0 => {}
                unmet => found.push((unmet, at)),
            }
        }
        found.sort_by_key(|(unmet, at)| (std::cmp::Reverse(*unmet), *at));
        found
    }

    pub(super) fn check_owed(&self, at: NodeIx) -> Result<(), String> {
        let mut below = Size::new();
        for owed in self.children(at).filter_map(|child| self.nodes[child.at()].owed.as_ref()) {
            below.add(&owed.required);
        }
        let node = &self.nodes[at.at()];
        let unmet = node.unmet();
        let required = if at == ROOT { Size::new() } else { unmet.zip(&below, i128::max) };
        let recount = Owed { unmet, below, required };
        match &node.owed {
            None if recount == Owed::default() && node.promise.is_none() => Ok(()),
            Some(owed) if **owed == recount => Ok(()),
            owed => Err(format!("role tree: {owed:?} is owed, but a recount says {recount:?}")),
        }
    }
}
