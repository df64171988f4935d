//! Long-running services on Divvy: apps with instances, health, rolling updates, and the endpoints where they are reached.
//!
//! An ordinary framework: everything it does it does through `divvy_sdk`.

pub mod api_types;
pub mod planner;
