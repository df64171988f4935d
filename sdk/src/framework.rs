//! A scheduler against a master: the driver's shell. Connects, keeps what must be durable, carries calls and events.
//!
//! Not here: any decision; the driver makes them all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use divvy_proto::role::RolePath;
use divvy_proto::scheduler::StreamError;

use crate::{Actions, Scheduler, View};

/// Why a framework ended, or did not begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The master ended the subscription for good.
    #[error("the master ended the subscription of framework {name}: {error}")]
    Ended {
        /// The framework's name.
        name: String,
        /// Why.
        error: StreamError,
    },
    /// The framework was stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// The framework does not run any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the framework has stopped")]
pub struct Stopped;

/// A framework to be run: a scheduler, and how it introduces itself.
#[derive(Debug)]
pub struct Framework<S: Scheduler> {
    name: String,
    scheduler: S,
    master: Option<String>,
    role: RolePath,
    url: Option<String>,
    failover_timeout: Duration,
    labels: BTreeMap<String, String>,
}

impl<S: Scheduler> Framework<S> {
    /// Under this name, against the master that `DIVVY_MASTER` names, `127.0.0.1:5050` by default.
    pub fn new(name: impl Into<String>, scheduler: S) -> Self {
        Self {
            name: name.into(),
            scheduler,
            master: None,
            role: RolePath::default(),
            url: None,
            failover_timeout: divvy_proto::scheduler::DEFAULT_FAILOVER_TIMEOUT,
            labels: BTreeMap::new(),
        }
    }

    /// Against the master at this address: `127.0.0.1:5050`, or with `http://`.
    #[must_use]
    pub fn master(mut self, address: impl Into<String>) -> Self {
        self.master = Some(address.into());
        self
    }

    /// In this role; `*` by default.
    #[must_use]
    pub fn role(mut self, role: RolePath) -> Self {
        self.role = role;
        self
    }

    /// With a REST API of its own at this base address.
    #[must_use]
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.url = Some(url.into());
        self
    }

    /// Its tasks outlive its connection by this long; a week by default.
    #[must_use]
    pub fn failover_timeout(mut self, timeout: Duration) -> Self {
        self.failover_timeout = timeout;
        self
    }

    /// With these labels, for people.
    #[must_use]
    pub fn labels(mut self, labels: BTreeMap<String, String>) -> Self {
        self.labels = labels;
        self
    }

    /// Runs until the master ends the subscription for good.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn run(self) -> Result<(), Error> {
        self.start().await?.done().await
    }

    /// Runs in the background.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn start(self) -> Result<Running<S>, Error> {
        Err(Stopped.into())
    }
}

/// A framework that runs in the background.
#[derive(Debug)]
pub struct Running<S: Scheduler> {
    handle: Handle<S>,
}

impl<S: Scheduler> Running<S> {
    /// To look at and change the scheduler from elsewhere.
    #[must_use]
    pub fn handle(&self) -> Handle<S> {
        self.handle.clone()
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// Why it ended.
    pub async fn done(&mut self) -> Result<(), Error> {
        Err(Stopped.into())
    }

    /// Disconnects. The tasks run on, for the failover timeout.
    pub async fn shutdown(self) {}

    /// Ends for good: the tasks are killed and the id is retired.
    pub async fn teardown(self) {}
}

/// Looks at and changes a scheduler that runs. Cheap to clone.
#[derive(Debug)]
pub struct Handle<S> {
    scheduler: std::marker::PhantomData<Arc<S>>,
}

impl<S> Clone for Handle<S> {
    fn clone(&self) -> Self {
        Self { scheduler: self.scheduler }
    }
}

impl<S: Scheduler> Handle<S> {
    /// Changes the scheduler. Returns when what was to be written is durable; then `reconcile` is called.
    ///
    /// # Errors
    /// The framework has stopped; the change may or may not have been made.
    pub async fn update<R: Send + 'static>(
        &self,
        change: impl FnOnce(&mut S, &View) -> (R, Actions) + Send + 'static,
    ) -> Result<R, Stopped> {
        drop(change);
        Err(Stopped)
    }

    /// Looks at the scheduler and its view.
    ///
    /// # Errors
    /// The framework has stopped.
    pub async fn read<R: Send + 'static>(
        &self,
        look: impl FnOnce(&S, &View) -> R + Send + 'static,
    ) -> Result<R, Stopped> {
        drop(look);
        Err(Stopped)
    }
}
