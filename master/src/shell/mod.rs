//! The shell around the kernel: sockets, the registry, time.
//!
//! ```text
//!   grpc/ scheduler, agent ──┐                       ┌── queue: one bounded queue a stream ──► grpc/
//!   grpc/ operator           ├─► handle ─► turns ────┼── changes: one ring for all readers ──► http/ events
//!   http/ operator API ──────┘   (bounded) (owns the └── registry: commits under the fencing
//!                                           kernel)      token, then `Persisted` ──► turns
//! ```
//!
//! One task owns the kernel ([`turns`]), and nobody else touches it: there is no lock around it. Whoever is slow, waits or
//! is cut off alone. Not here: any decision about agents, frameworks, tasks or offers.

mod api;
mod changes;
mod clock;
mod config;
mod grpc;
mod handle;
mod http;
mod master;
mod metrics;
mod queue;
mod registry;
mod turns;

pub use config::MasterConfig;
pub use master::{Master, MasterError, Running, StartError};
