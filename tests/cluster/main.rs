//! Clusters of real processes, told as stories: started, used, killed, and counted afterwards. Needs root on Linux, no network.
//!
//! Each test has a cluster of its own in a temporary directory and on ports of its own, so that tests run side by side. When one
//! fails, the logs of all its processes are printed and kept below `target/tmp/cluster`; whatever the outcome, nothing that it
//! started is left.
//!
//! Not here: the order of messages, races and lost packets; `tests/sim` tries thousands of those. Here the kernel, the disk and
//! the sockets are real.

#![allow(unreachable_pub, missing_docs, reason = "a test's modules are its own")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may fail"
)]

mod bad_input;
mod dev;
mod failures;
mod harness;
mod hostile;
mod isolation;
mod operating;
mod promises;
mod restarts;
mod rolling;
mod streams;
mod tour;
