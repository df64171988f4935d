//! Batch jobs on Divvy: arrays of tasks with retries, timeouts and results that outlive the framework's own restarts.
//!
//! An ordinary framework: it uses only what one outside this tree could use.

pub mod file;
pub mod planner;
