//! The kernel: who may use how much of which agent, decided without clock, sockets or randomness.
//!
//! ```text
//!      shell (sockets, store, timers)                 kernel (this module)
//!   ──────────────────────────────────   input    ─────────────────────────────
//!   a stream said something             ───────►   handle(now, input, effects)
//!   the store has acknowledged          ───────►      changes itself,
//!   next_deadline() has come            ───────►      pushes effects
//!   the queue is drained                ───────►   end_turn(now, effects)
//!                                       ◄───────      allocates once for the batch
//!   carries effects out, in order        effects
//! ```
//!
//! An effect that depends on a fact which must survive a crash is pushed only after [`Input::Persisted`] has named that
//! fact: the kernel says `Persist`, waits, and then speaks.
//!
//! Not here: what a service or a job is; protobuf; JSON but for the views in [`divvy_proto::api`].
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod effect;
mod input;

pub use effect::{Absence, Effect, LinkId, PersistToken, RegistryChange, RequestId};
pub use input::{Config, Input, OperatorRequest};

mod views;

use divvy_proto::time::Timestamp;

/// The state of the cluster and the rules by which it changes.
#[derive(Debug, Clone)]
pub struct Kernel {
    config: Config,
}

impl Kernel {
    /// A cluster without agents and frameworks.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config }
    }

    /// The cluster as the registry has it, after a restart of the master: its agents may come back until
    /// `config.reregister_timeout` has passed, its frameworks until their failover timeout has.
    #[must_use]
    pub fn recover(
        config: Config,
        records: impl IntoIterator<Item = RegistryChange>,
        now: Timestamp,
    ) -> Self {
        let _ = (records, now);
        Self::new(config)
    }

    /// Takes in what happened, and pushes what is to be done about it.
    pub fn handle(&mut self, now: Timestamp, input: Input, effects: &mut Vec<Effect>) {
        let _ = (now, input, effects);
    }

    /// Ends a batch of inputs: allocates once, and tells those who watch what changed.
    pub fn end_turn(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let _ = (now, effects);
    }

    /// When to feed `Input::Tick` (and end a turn) if nothing else happens before.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        None
    }

    /// Checks that the kernel agrees with itself.
    ///
    /// # Errors
    /// Which rule is broken, by what.
    pub fn check_invariants(&self) -> Result<(), String> {
        Ok(())
    }
}
