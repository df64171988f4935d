//! The agent: runs the tasks of one machine in containers, and tells the master about them.
//!
//! ```text
//!   master ◄─── link ───►┐                        ┌──► container  (cgroups, namespaces, shims)
//!                        │                        ├──► fetcher    (artifacts into sandboxes)
//!   operator ──► http    ├── agent (main loop) ───┼──► prober     (health checks)
//!                        │        │    ▲          └──► checkpoint (what survives a crash)
//!                        │        ▼    │
//!                        └──── supervisor (decides, and does nothing)
//! ```
//!
//! [`Agent::start`] is the way in. There is no global state: one process may run many agents.

mod agent;
mod causes;
mod checkpoint;
mod config;
pub mod container;
mod crash;
mod detect;
mod disk;
mod fetcher;
mod http;
pub mod image;
mod link;
mod log;
mod metrics;
mod network;
mod prober;
mod sandbox;
pub mod shim;
mod start;
pub mod supervisor;
mod volumes;

pub use agent::{KillTasks, Running};
pub use checkpoint::CheckpointError;
pub use config::{AgentConfig, FixedReservation, MasterAddress, ResourceOverrides};
pub use container::UserName;
pub use detect::resources as machine_resources;
pub use image::ImageOptions;
pub use log::LogLimits;
pub use network::{NetworkConfig, Subnet};
pub use start::{Agent, StartError};
