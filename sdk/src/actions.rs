//! What a scheduler wants done.

use std::collections::BTreeMap;
use std::time::Duration;

use divvy_proto::demand::{Demand, DemandShape, Gang};
use divvy_proto::ids::{InverseOfferId, TaskId};
use divvy_proto::role::RolePath;
use divvy_proto::time::Timestamp;

use crate::Accept;

/// A task to be killed. Repeated by the driver until its end is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kill {
    /// Which.
    pub task_id: TaskId,
    /// From SIGTERM to SIGKILL; the task's own grace otherwise.
    pub grace: Option<Duration>,
}

/// A change of the framework's durable state, below its own prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Keep this under this key.
    Put {
        /// Slash-separated text.
        key: String,
        /// Any bytes.
        value: Vec<u8>,
    },
    /// Keep nothing under this key.
    Delete {
        /// Slash-separated text.
        key: String,
    },
}

/// What a scheduler wants done. All writes are durable, together with what the driver itself keeps, before anything leaves
/// for the master: a launch, a kill, an acknowledgement.
#[derive(Debug, Default, PartialEq)]
pub struct Actions {
    /// Offers to use, of those that this call of `reconcile` was given.
    pub accepts: Vec<Accept>,
    /// Tasks to kill.
    pub kills: Vec<Kill>,
    /// Changes of durable state.
    pub writes: Vec<Write>,
    /// Ended tasks that need not be shown again.
    pub forget: Vec<TaskId>,
    /// When to be called again at the latest. Each call of `reconcile` says it anew.
    pub wake_at: Option<Timestamp>,
    /// What is wanted from here on, by role, beyond what runs and what is launched by these very actions: level, not edge, so it
    /// may be said each time, and only what is new is told to the master. Roles that are not named want nothing. Unchanged if
    /// absent; from when it was first said, `needs_offers` has no meaning.
    pub demand: Option<BTreeMap<RolePath, Demand>>,
    /// Whether classic offers, of all that is free, are wanted from here on; the driver suppresses and revives accordingly. Unchanged if absent; wanted at
    /// the start.
    pub needs_offers: Option<bool>,
    /// Inverse offers that the scheduler sees to itself: it will have ended their tasks before the deadline. Said once or often.
    pub accept_inverse: Vec<InverseOfferId>,
    /// Drop all filters, as what is wanted has changed. At most once a second, so that it may be said too often.
    pub revive: bool,
    /// How long not to be offered what was left over or not used; 5 s if absent.
    pub refuse: Option<Duration>,
}

impl Actions {
    /// Nothing to be done.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Use an offer.
    pub fn accept(&mut self, accept: Accept) {
        self.accepts.push(accept);
    }

    /// Kill a task, with its own grace period.
    pub fn kill(&mut self, task_id: TaskId) {
        self.kills.push(Kill { task_id, grace: None });
    }

    /// Keep bytes under a key.
    pub fn put(&mut self, key: impl Into<String>, value: Vec<u8>) {
        self.writes.push(Write::Put { key: key.into(), value });
    }

    /// Keep nothing under a key.
    pub fn delete(&mut self, key: impl Into<String>) {
        self.writes.push(Write::Delete { key: key.into() });
    }

    /// Do not show an ended task again.
    pub fn forget(&mut self, task_id: TaskId) {
        self.forget.push(task_id);
    }

    /// Be called again at `time` or earlier.
    pub fn wake_at(&mut self, time: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(time, |earlier| earlier.min(time)));
    }

    /// Want nothing, in any role, beside what is asked for by [`Actions::want`] from here on.
    pub fn want_nothing(&mut self) {
        self.demand = Some(BTreeMap::new());
    }

    /// Want so many of a shape, in a role, beside what else these actions want there.
    ///
    /// ```
    /// # use divvy_sdk::{Actions, TaskSpec, View};
    /// fn three_of_it(spec: &TaskSpec, view: &View) -> Actions {
    ///     let missing = 3_usize.saturating_sub(view.live());
    ///     let mut actions = Actions::none();
    ///     actions.want(view.role(), spec.shape("web", u32::try_from(missing).unwrap_or(u32::MAX)));
    ///     actions
    /// }
    /// ```
    pub fn want(&mut self, role: &RolePath, shape: DemandShape) {
        let demand = self.demand.get_or_insert_default();
        if shape.count > 0 {
            demand.entry(role.clone()).or_default().shapes.push(shape);
        }
    }

    /// Want all of these together or none of them: their offers come in one call of `reconcile`, to be launched on with one
    /// [`Accept::together`]. The kernel holds what it has gathered for at most `hold` (1 s to an hour) while it waits for the
    /// rest. It is all that is wanted in this role.
    pub fn want_together(
        &mut self,
        role: &RolePath,
        shapes: impl IntoIterator<Item = DemandShape>,
        hold: Duration,
    ) {
        let shapes: Vec<_> = shapes.into_iter().filter(|shape| shape.count > 0).collect();
        let demand = self.demand.get_or_insert_default();
        if !shapes.is_empty() {
            demand.insert(role.clone(), Demand { shapes, gang: Some(Gang { hold }) });
        }
    }

    /// See to an inverse offer: its tasks will have ended before its deadline.
    pub fn accept_inverse(&mut self, offer: InverseOfferId) {
        self.accept_inverse.push(offer);
    }

    /// Say whether classic offers are wanted from here on.
    #[must_use]
    pub fn needs_offers(mut self, wanted: bool) -> Self {
        self.needs_offers = Some(wanted);
        self
    }
}

impl FromIterator<Accept> for Actions {
    fn from_iter<I: IntoIterator<Item = Accept>>(accepts: I) -> Self {
        Self { accepts: accepts.into_iter().collect(), ..Self::default() }
    }
}
