//! The vocabulary of Divvy: the messages that its parts exchange, and the domain types that they carry.
//!
//! [`pb`] is what goes over the wire, generated from `divvy/v1/*.proto`. Everything else is what programs think in;
//! [`convert`] leads from one to the other, and refuses what no honest peer would send.
//!
//! Not here: sockets, clocks, decisions.

pub mod agent;
pub mod amounts;
pub mod api;
pub mod attributes;
pub mod container;
pub mod convert;
pub mod demand;
mod error;
pub mod exec;
pub mod ids;
pub mod pb;
pub mod predicate;
pub mod quantity;
pub mod quota;
pub mod ranges;
pub mod reservation;
pub mod resources;
pub mod role;
pub mod scheduler;
pub mod task;
mod text;
pub mod time;

pub use amounts::Amounts;
pub use attributes::{AttributeValue, Attributes};
pub use container::{ContainerInfo, ImageName, Network};
pub use demand::{Demand, DemandShape};
pub use error::Invalid;
pub use ids::{
    AgentId, CallId, Epoch, FrameworkId, Hostname, InverseOfferId, OfferId, OperationId, Principal, TaskId,
    UpdateId, VolumeId,
};
pub use predicate::Predicate;
pub use quantity::{Bytes, Cpus, Scalar};
pub use quota::{Quota, Weight};
pub use ranges::RangeSet;
pub use reservation::{Allocation, Reservation, Reserved, Volume, VolumeMount};
pub use resources::{Dimension, Resources, Shortage};
pub use role::RolePath;
pub use task::{TaskInfo, TaskState, TaskStatus};
pub use time::Timestamp;
