//! What a Divvy framework is written with.
//!
//! A scheduler is one function, called whenever anything changed. It sees the framework's own tasks and the offers of
//! the moment, and says what to do. It is synchronous, has no clock and does no I/O, so the very code that runs against a
//! master runs in a unit test. It is level-triggered: it looks at what is, not at what happened.
//!
//! A whole framework (`examples/keep_alive.rs`):
//!
//! ```no_run
#![doc = include_str!("../examples/keep_alive.rs")]
//! ```
//!
//! Four rungs, each usable alone: [`hosted`] is a framework with a REST API of its own; [`Framework`] runs a [`Scheduler`]
//! against a master; [`driver`] is the same as a pure state machine; [`divvy_proto::scheduler`] is the raw stream of calls and
//! events.

mod accept;
mod actions;
#[cfg(feature = "cli")]
pub mod cli;
pub mod driver;
mod framework;
mod group;
pub mod hosted;
mod offer;
mod operations;
pub mod placement;
pub mod rest;
mod scheduler;
mod shape;
mod shell;
pub mod spec;
mod task_spec;
mod view;

pub use accept::{Accept, Launch};
pub use actions::{Actions, Kill, Write};
pub use framework::{DEFAULT_MASTER, Error, Framework, Handle, Running, Stopped, load};
pub use group::TaskGroup;
pub use offer::Offer;
pub use scheduler::Scheduler;
pub use task_spec::{Constraint, HealthSpec, PortRequest, ProbeSpec, TaskSpec};
pub use view::{Task, View};

pub use divvy_proto as proto;
pub use divvy_proto::ids::TaskId;
pub use divvy_proto::quantity::{Bytes, Cpus};
pub use divvy_proto::task::TaskState;
pub use divvy_store as store;
