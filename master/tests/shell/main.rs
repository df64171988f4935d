//! The master as others see it: over real sockets, in this process, with agents and frameworks that only speak the protocol.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod explain;
mod faults;
mod harness;
mod hostile;
mod http;
mod life;
mod operator;
mod policy;
mod proxy;
mod restart;
mod watch;
