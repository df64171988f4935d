//! The master: the kernel, which decides, and the shell around it, which carries the decisions out.

pub mod kernel;
