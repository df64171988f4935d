//! The master: the kernel, which decides, and the shell around it, which carries the decisions out.

pub mod kernel;
mod shell;

pub use shell::{Master, MasterConfig, MasterError, Running, StartError};
