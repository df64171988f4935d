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
