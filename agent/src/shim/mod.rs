//! The process between the agent and one container: it makes the container, is its parent, outlives the agent, keeps the
//! exit status, and answers the next agent over a socket. It is the agent's binary, executed anew, and has a single thread
//! from its first instruction: so what it clones may do more than a child of a program with threads may.
//!
//! `shim nursery` is executed once for each agent, and forks the shims that keep containers; they show themselves as
//! `shim run DIR`, where DIR is the container's record. `shim exec DIR` runs a command inside a container, for a health check;
//! `shim attach DIR` runs one for somebody who types and reads along.
//!
//! It is no subreaper: whatever loses its parent inside the container goes to the container's pid 1, which is the task's
//! command itself, and dies with it. A command that does not reap them keeps their zombies, within its limit on processes.

mod attach;
mod child;
mod exec;
mod log;
mod nursery;
mod run;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

use serde::Serialize;

use crate::container::{LaunchError, Plan, Record};

/// The entry of the hidden `divvy shim …` subcommand: `args` are what follows the word `shim`. It must be called before
/// the process has a second thread, and does not return.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ! {
    let mut args = args.into_iter();
    let verb = args.next();
    // What follows `nursery` is room.
    let record = args.next().map(|directory| Record::at(PathBuf::from(directory)));
    let code = match (verb.as_ref().and_then(|verb| verb.to_str()), record, args.next()) {
        (Some("nursery"), Some(_), None) => nursery::nursery(),
        (Some("exec"), Some(record), None) => exec::exec(&record),
        (Some("attach"), Some(record), None) => attach::attach(&record),
        _ => {
            eprintln!(
                "shim: it is the agent that starts this, with `nursery`, or `exec` or `attach` and a container's directory"
            );
            2
        }
    };
    std::process::exit(code)
}

/// The plan, which the agent wrote before it started the shim.
fn plan(record: &Record) -> Result<Plan, LaunchError> {
    let lost = |why: String| LaunchError::Step {
        what: format!("read the plan in {}", record.path().display()),
        why,
    };
    match record.plan() {
        Ok(Some(plan)) => Ok(plan),
        Ok(None) => Err(lost("there is none that is whole".to_owned())),
        Err(error) => Err(lost(error.to_string())),
    }
}

/// Tells something as JSON. Whoever does not listen any more does not want to know.
fn tell(mut listener: impl Write, words: &impl Serialize) {
    if let Ok(text) = serde_json::to_vec(words) {
        // Standard output is a buffer, which nothing empties at the end of the process.
        let _ = listener.write_all(&text).and_then(|()| listener.flush());
    }
}
