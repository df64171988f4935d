//! stdout and stderr into pipes, which the shim empties into the sandbox; stdin from nowhere.
//!
//! Not here: the files, and their rotation; see the shim's `log`.

use std::fs::File;
use std::os::fd::AsFd;

use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::{Host, Isolator, step};
use crate::container::LaunchError;
use crate::container::plan::{Plan, Record};

pub(super) struct Logs;

impl Isolator for Logs {
    fn prepare(&self, host: &Host, _record: &Record, plan: &mut Plan) -> Result<(), LaunchError> {
        plan.logs = host.config.logs;
        Ok(())
    }

    fn isolate(&self, plan: &Plan) -> Result<(), LaunchError> {
        let nowhere = File::open("/dev/null").map_err(step("open /dev/null"))?;
        let pipes = plan.pipes.as_ref();
        let pipes = pipes.ok_or_else(|| step("redirect stdout and stderr")("there are no pipes"))?;
        dup2_stdin(nowhere.as_fd())
            .and_then(|()| dup2_stdout(pipes.stdout.as_fd()))
            .and_then(|()| dup2_stderr(pipes.stderr.as_fd()))
            .map_err(step("redirect stdin, stdout and stderr"))
    }
}
