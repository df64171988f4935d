//! The one function that a framework must have.

use crate::{Actions, Offer, View};

/// Decides what runs where.
pub trait Scheduler: Send + 'static {
    /// Called whenever anything changed: a task, an offer, the time that was asked for with [`Actions::wake_at`].
    /// What is not used of `offers` is declined.
    ///
    /// A task that has ended stays in `view` until it is forgotten with [`Actions::forget`]; a scheduler that forgets none
    /// is spared all but the latest.
    fn reconcile(&mut self, view: &View, offers: Vec<Offer>) -> Actions;
}
