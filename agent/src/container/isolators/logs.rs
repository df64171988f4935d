//! stdout and stderr into files of these names in the sandbox; stdin from nowhere.
//!
//! The program writes to the files itself, appending: no pipe can fill, and nothing is lost with the shim. Rotation will put
//! a pipe in between.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::path::Path;

use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::{Isolator, step, step_on};
use crate::container::LaunchError;
use crate::container::plan::Plan;

pub(super) struct Logs;

impl Isolator for Logs {
    fn isolate(&self, plan: &Plan) -> Result<(), LaunchError> {
        let nowhere = File::open("/dev/null").map_err(step("open /dev/null"))?;
        let stdout = open(&plan.spec.sandbox.join("stdout"), plan)?;
        let stderr = open(&plan.spec.sandbox.join("stderr"), plan)?;
        dup2_stdin(nowhere.as_fd())
            .and_then(|()| dup2_stdout(stdout.as_fd()))
            .and_then(|()| dup2_stderr(stderr.as_fd()))
            .map_err(step("redirect stdin, stdout and stderr"))
    }
}

/// The sandbox may have been a task's before, so nothing is followed and nothing but a file is opened.
fn open(path: &Path, plan: &Plan) -> Result<File, LaunchError> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o644)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(step_on("open the log", path))?;
    let metadata = file.metadata().map_err(step_on("look at the log", path))?;
    if !metadata.is_file() {
        return Err(step_on("open the log", path)("it is not a file"));
    }
    fchown(&file, Some(plan.identity.uid), Some(plan.identity.gid))
        .map_err(step_on("give away the log", path))?;
    Ok(file)
}
