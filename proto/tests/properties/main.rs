//! Properties of the vocabulary: what goes over the wire or into text comes back the same, and sets and sums do what a naive
//! model does.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test fails by panicking"
)]

mod amounts;
mod any;
mod any_api;
mod any_container;
mod any_owned;
mod any_task;
mod names;
mod predicates;
mod quotas;
mod ranges;
mod refused;
mod wire;
