//! Batch jobs on Divvy: arrays of tasks with retries, timeouts and results that outlive the framework's own restarts.
//!
//! An ordinary framework: it uses only what one outside this tree could use. [`serve`] runs it; [`cli`] is `divvy batch …`.

mod api;
pub mod cli;
mod client;
pub mod file;
pub mod planner;
mod serve;

pub use serve::{NAME, Running, serve};
