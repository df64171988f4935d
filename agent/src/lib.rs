//! placeholder

pub mod container;
pub mod shim;
