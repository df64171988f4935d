//! From domain types to messages and back.
//!
//! Out is `From` and cannot fail: what is only for people is cut to the longest that a receiver takes ([`limits`]), and
//! durations are rounded to whole milliseconds. In is `TryFrom` with [`Invalid`], which names the field's path
//! (`accept.operations[0].launch[2].resources.cpus`), the value and what was expected; it takes nothing that breaks a rule
//! stated in the `.proto` files, and never panics.
//!
//! Not here: rules that need to know the state of the cluster, such as whether an offer is still outstanding.

mod agent;
mod call;
mod container;
mod demand;
mod event;
mod field;
mod framework;
pub mod limits;
mod operation;
mod operator;
mod policy;
mod refusal;
mod reservation;
mod resources;
mod status;
mod task;

use crate::error::Invalid;
use crate::ids::CallId;
use crate::pb;

/// The id of a call whose body may not be valid, so that its refusal reaches whoever waits for it.
///
/// # Errors
/// The id is missing or is not one.
pub fn call_id(call: &pb::Call) -> Result<CallId, Invalid> {
    field::parsed("id", &call.id)
}
