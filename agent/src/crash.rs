//! Steps at which a test may have this process die, as by `kill -9`: whatever is half done there must be found and undone by the
//! next agent. Builds without debug assertions have none.

use std::fmt::Arguments;

/// The environment variable that names the step.
#[cfg(debug_assertions)]
const VARIABLE: &str = "DIVVY_CRASH_AT";

/// Ends this process at once if a test wants it to end here.
#[cfg(debug_assertions)]
pub(crate) fn point(step: Arguments<'_>) {
    if std::env::var_os(VARIABLE).is_some_and(|wanted| wanted.to_str() == Some(&step.to_string())) {
        let _ = nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL);
    }
}

#[cfg(not(debug_assertions))]
pub(crate) fn point(_step: Arguments<'_>) {}

/// Lets a process that gets nothing else from this one know of the step.
#[cfg(debug_assertions)]
pub(crate) fn hand_down(command: &mut std::process::Command) {
    if let Some(step) = std::env::var_os(VARIABLE) {
        command.env(VARIABLE, step);
    }
}

#[cfg(not(debug_assertions))]
pub(crate) fn hand_down(_command: &mut std::process::Command) {}
