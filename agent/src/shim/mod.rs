//! The process between the agent and one container: it makes the container, is its parent, outlives the agent, keeps the
//! exit status, and answers the next agent over a socket. Single-threaded from its first instruction; no runtime, no tracing.

use std::ffi::OsString;

/// The entry of the hidden `divvy shim …` subcommand: `args` are what follows the word `shim`. It must be called before
/// the process has a second thread, and does not return.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ! {
    let _ = args.into_iter().count();
    std::process::exit(2)
}
