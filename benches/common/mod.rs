//! What both benches share: options, processes under measurement, a raw stream, and the report.
//!
//! Not here: what is measured.

#![allow(dead_code, reason = "each bench uses its own part of this")]

mod options;
mod process;
mod report;
mod stream;

pub use options::{Mode, mode};
pub use process::Divvy;
pub use report::{Conditions, Latency, latency, millis, per_second, print_table, ratio, write_json};
pub use stream::{Stream, accept, acknowledge, amount, is_terminal, task};
