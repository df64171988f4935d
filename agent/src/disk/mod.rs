//! Limits on what tasks write: what they use is measured now and then, and one that has too much is reported. And the removal of
//! what they have written.
//!
//! Not here: what becomes of such a task; the supervisor says that.

mod bin;
mod remove;
mod usage;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use divvy_proto::Bytes;
use tokio::sync::mpsc;
use tracing::warn;

use crate::container::{ContainerId, Runtime};
use crate::supervisor::Input;
pub(crate) use bin::Bin;
pub(crate) use remove::remove_all;
use usage::used;

/// Paths below a directory are kept at about this length: each look at one costs as much as it has parts, and the kernel takes no more
/// than 4096 bytes. Deeper down it goes on from a descriptor.
const LONG: usize = 512;

/// What a container may write, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskLimit {
    /// All of the directories together.
    pub limit: Bytes,
    /// Its sandbox, and what is its own of its root.
    pub directories: Vec<PathBuf>,
}

impl DiskLimit {
    /// What is used of it now: whole blocks, each file once however many names it has. Files that have no name any more are not
    /// found.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub fn used(&self) -> io::Result<Bytes> {
        used(&self.directories)
    }
}

/// The shortest and the longest time from one look to the next. In between, the time is so long that looking takes no more than
/// one part in [`THRIFT`] of it.
const RHYTHM: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
const THRIFT: u32 = 100;

/// Looks after the containers that have a limit.
#[derive(Debug)]
pub(crate) struct Disks {
    watched: mpsc::UnboundedSender<ContainerId>,
}

impl Disks {
    /// Reports to `inputs` until it is dropped.
    pub(crate) fn new(runtime: Runtime, inputs: mpsc::Sender<Input>) -> Self {
        let (watched, requests) = mpsc::unbounded_channel();
        tokio::spawn(watch(runtime, inputs, requests));
        Self { watched }
    }

    /// Looks at a container from now on until it is gone, if it has a limit.
    pub(crate) fn watch(&self, container: &ContainerId) {
        // Where nobody listens the agent ends.
        let _ = self.watched.send(container.clone());
    }
}

async fn watch(
    runtime: Runtime,
    inputs: mpsc::Sender<Input>,
    mut requests: mpsc::UnboundedReceiver<ContainerId>,
) {
    let mut due: BTreeMap<ContainerId, Instant> = BTreeMap::new();
    loop {
        let next = due.values().min().copied();
        tokio::select! {
            request = requests.recv() => match request {
                Some(container) => drop(due.insert(container, Instant::now())),
                None => return,
            },
            () = until(next) => {
                let now = Instant::now();
                let ready: Vec<_> =
                    due.iter().filter(|(_, at)| **at <= now).map(|(id, _)| id.clone()).collect();
                due.retain(|_, at| *at > now);
                let runtime = runtime.clone();
                let looks = tokio::task::spawn_blocking(move || {
                    ready.into_iter().map(|id| look(&runtime, id)).collect::<Vec<_>>()
                });
                for look in looks.await.unwrap_or_default() {
                    match look {
                        Look::Unlimited => {}
                        Look::Within(container, at) => drop(due.insert(container, at)),
                        Look::Beyond(container, limit, used) => {
                            drop(inputs.send(Input::DiskLimit { container, limit, used }).await);
                        }
                    }
                }
            }
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

enum Look {
    /// It has no limit, or is gone.
    Unlimited,
    /// To be looked at again then.
    Within(ContainerId, Instant),
    /// The limit, and what it has.
    Beyond(ContainerId, Bytes, Bytes),
}

fn look(runtime: &Runtime, container: ContainerId) -> Look {
    let begin = Instant::now();
    let disk = match runtime.disk(&container) {
        Ok(Some(disk)) => disk,
        Ok(None) => return Look::Unlimited,
        Err(error) => {
            warn!(%container, "cannot tell what it may write: {error}");
            return Look::Unlimited;
        }
    };
    match disk.used() {
        Ok(used) if used > disk.limit => return Look::Beyond(container, disk.limit, used),
        Ok(_) => {}
        Err(error) => warn!(%container, "cannot measure what it has written: {error}"),
    }
    let pause = (begin.elapsed() * THRIFT).clamp(RHYTHM.0, RHYTHM.1);
    Look::Within(container, Instant::now() + pause)
}
