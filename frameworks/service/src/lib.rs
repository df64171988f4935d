//! Long-running services on Divvy: apps with instances, health, rolling updates, and the endpoints where they are reached.
//!
//! An ordinary framework: everything it does it does through `divvy_sdk`. [`serve`] runs it; [`cli`] is `divvy service …`.

mod api;
pub mod api_types;
pub mod app_file;
pub mod cli;
mod client;
pub mod planner;
mod serve;

pub use serve::{NAME, Running, serve};
