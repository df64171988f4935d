//! A scheduler against a master: how a framework is described, started, looked at and ended.
//!
//! Not here: any decision (see [`crate::driver`]), nor how calls and writes are carried out (see `shell`).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use divvy_proto::Invalid;
use divvy_proto::role::RolePath;
use divvy_proto::scheduler::{Capability, DEFAULT_FAILOVER_TIMEOUT, FrameworkInfo, StreamError};
use divvy_store::{Key, Store, StoreError};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::driver::{Config, Restored};
use crate::shell::{self, Message, storage};
use crate::{Actions, Scheduler, View};

/// Where a master is looked for if neither the program nor `DIVVY_MASTER` names one.
pub const DEFAULT_MASTER: &str = "127.0.0.1:5050";

/// Why a framework ended, or did not begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The master ended the subscription for good.
    #[error("framework {name}: the master ended the subscription: {error}{}", hint(.error, .prefix.as_ref()))]
    Ended {
        /// The framework's name.
        name: String,
        /// Where it keeps its state, if it does.
        prefix: Option<Key>,
        /// Why.
        error: StreamError,
    },
    /// What has to be durable cannot be kept, or what was kept cannot be read.
    #[error("framework {name}: {source}")]
    Store {
        /// The framework's name.
        name: String,
        /// Why.
        source: StoreError,
    },
    /// What an earlier process has stored makes no sense.
    #[error("the stored state below {prefix} cannot be used: {source}")]
    Restore {
        /// Where it was found.
        prefix: Key,
        /// What is wrong with it.
        source: Invalid,
    },
    /// How the framework describes itself makes no sense.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The framework was stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// What a person can do about it.
fn hint(error: &StreamError, prefix: Option<&Key>) -> String {
    match (error, prefix) {
        (StreamError::Refused(_), Some(prefix)) => format!(
            "\nIf this is the right master and it has lost its state: end the framework's tasks, then delete what is stored below \
             {prefix}/framework, to begin anew under another id."
        ),
        (StreamError::TornDown, Some(_)) => {
            "\nIts tasks are killed. Start it again to begin anew under another id.".to_owned()
        }
        (StreamError::TakenOver, _) => "\nIs it running twice?".to_owned(),
        _ => String::new(),
    }
}

/// The framework does not run any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the framework has stopped")]
pub struct Stopped;

/// The failover timeout of a framework without a store that states none.
const FORGETFUL_FAILOVER_TIMEOUT: Duration = Duration::from_secs(60);

/// A framework to be run: a scheduler, and how it introduces itself.
pub struct Framework<S: Scheduler> {
    info: FrameworkInfo,
    scheduler: S,
    master: Option<String>,
    store: Option<(Arc<dyn Store>, String)>,
    failover_timeout: Option<Duration>,
}

impl<S: Scheduler> fmt::Debug for Framework<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Framework")
            .field("info", &self.info)
            .field("master", &self.master)
            .finish_non_exhaustive()
    }
}

impl<S: Scheduler> Framework<S> {
    /// Under this name, in the role `*`, against the master that `DIVVY_MASTER` names, or else `127.0.0.1:5050`.
    pub fn new(name: impl Into<String>, scheduler: S) -> Self {
        let info = FrameworkInfo {
            id: None,
            name: name.into(),
            user: None,
            roles: vec![RolePath::default()],
            principal: None,
            failover_timeout: DEFAULT_FAILOVER_TIMEOUT,
            url: None,
            labels: BTreeMap::new(),
            capabilities: Default::default(),
        };
        Self { info, scheduler, master: None, store: None, failover_timeout: None }
    }

    /// Against the master at this address: `127.0.0.1:5050`, or with `http://`.
    #[must_use]
    pub fn master(mut self, address: impl Into<String>) -> Self {
        self.master = Some(address.into());
        self
    }

    /// In this role.
    #[must_use]
    pub fn role(mut self, role: RolePath) -> Self {
        self.info.roles = vec![role];
        self
    }

    /// In these roles: it gets offers in each.
    #[must_use]
    pub fn roles(mut self, roles: impl IntoIterator<Item = RolePath>) -> Self {
        self.info.roles = roles.into_iter().collect();
        self
    }

    /// It can deal with resources that may be taken back at any time: offers of such are made to it, too.
    #[must_use]
    pub fn revocable(mut self) -> Self {
        self.info.capabilities.insert(Capability::Revocable);
        self
    }

    /// Its tasks run as this user unless they say otherwise; as the agent's default if it is not said.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.info.user = Some(user.into());
        self
    }

    /// With durable state below `prefix`, a key such as `service`: the framework keeps its id and its tasks when its process ends.
    /// Without it, the tasks are killed when the failover timeout after the end of the process has passed.
    ///
    /// ```no_run
    /// use std::sync::Arc;
    ///
    /// use divvy_sdk::store::Embedded;
    /// # use divvy_sdk::{Actions, Framework, Offer, Scheduler, View};
    /// # struct Mine;
    /// # impl Scheduler for Mine {
    /// #     fn reconcile(&mut self, _: &View, _: Vec<Offer>) -> Actions { Actions::none() }
    /// # }
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = Arc::new(Embedded::open("mine.redb")?);
    /// Framework::new("mine", Mine).store(store, "mine").run().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn store(mut self, store: Arc<dyn Store>, prefix: impl Into<String>) -> Self {
        self.store = Some((store, prefix.into()));
        self
    }

    /// With a REST API of its own at this base address.
    #[must_use]
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.info.url = Some(url.into());
        self
    }

    /// Its tasks outlive its connection by this long. By default a week with a store; without one, a minute: the process that
    /// ends cannot come back for them.
    #[must_use]
    pub fn failover_timeout(mut self, timeout: Duration) -> Self {
        self.failover_timeout = Some(timeout);
        self
    }

    /// With these labels, for people.
    #[must_use]
    pub fn labels(mut self, labels: BTreeMap<String, String>) -> Self {
        self.info.labels = labels;
        self
    }

    /// Runs until the master ends the subscription for good. A master that cannot be reached is waited for.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn run(self) -> Result<(), Error> {
        self.start().await?.done().await
    }

    /// Runs in the background. Returns when the stored state has been read; a master that cannot be reached is waited for
    /// in the background.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn start(self) -> Result<Running<S>, Error> {
        let Self { mut info, scheduler, master, store, failover_timeout } = self;
        let default = if store.is_some() { DEFAULT_FAILOVER_TIMEOUT } else { FORGETFUL_FAILOVER_TIMEOUT };
        info.failover_timeout = failover_timeout.unwrap_or(default);
        let name = info.name.clone();
        let environment = std::env::var("DIVVY_MASTER").ok();
        let master = shell::endpoint(master.or(environment).as_deref().unwrap_or(DEFAULT_MASTER))?;
        let (store, restored) = match store {
            None => (None, Restored::default()),
            Some((store, prefix)) => {
                let prefix =
                    Key::new(prefix).map_err(|source| Error::Store { name: name.clone(), source })?;
                let restored = restore(&name, store.as_ref(), &prefix).await?;
                (Some((store, prefix)), restored)
            }
        };
        let config = Config { durable: store.is_some(), ..Config::new(info, shell::seed()) };
        let (messages, task) = shell::spawn(config, scheduler, restored, master, store);
        Ok(Running { handle: Handle { messages }, task, ended: false })
    }
}

async fn restore(name: &str, store: &dyn Store, prefix: &Key) -> Result<Restored, Error> {
    let failed = |source| Error::Store { name: name.to_owned(), source };
    let records = storage::load(store, prefix).await.map_err(failed)?;
    let records = records.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
    Restored::from_records(records).map_err(|source| Error::Restore { prefix: prefix.clone(), source })
}

/// All that a framework has stored below its prefix, as keys relative to it: to restore a scheduler from, before
/// [`Framework::new`]. Keys below `framework/` are the driver's. Not to be called while a framework runs on the same prefix: what an
/// earlier process was about to write is finished or undone.
///
/// # Errors
/// The store cannot be read.
pub async fn load(store: &dyn Store, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let failed = |source| Error::Store { name: prefix.to_owned(), source };
    let prefix = Key::new(prefix).map_err(failed)?;
    storage::load(store, &prefix).await.map_err(failed)
}

/// A framework that runs in the background, until this is dropped.
#[derive(Debug)]
pub struct Running<S: Scheduler> {
    handle: Handle<S>,
    task: JoinHandle<Result<(), Error>>,
    ended: bool,
}

impl<S: Scheduler> Running<S> {
    /// To look at and change the scheduler from elsewhere.
    #[must_use]
    pub fn handle(&self) -> Handle<S> {
        self.handle.clone()
    }

    /// Waits until it has ended. May be given up and called again.
    ///
    /// # Errors
    /// Why it ended; [`Stopped`] if that has been answered before.
    pub async fn done(&mut self) -> Result<(), Error> {
        match self.ended {
            true => Err(Stopped.into()),
            false => {
                let result = (&mut self.task).await;
                self.ended = true;
                result.unwrap_or(Err(Stopped.into()))
            }
        }
    }

    /// Disconnects. The tasks run on, for the failover timeout. Returns when all that was to be kept is durable.
    pub async fn shutdown(mut self) {
        // If it has ended already, that is as well.
        let _ = self.handle.messages.send(Message::Shutdown).await;
        let _ = self.done().await;
    }

    /// Ends for good: the tasks are killed, the id is retired, and what the driver has stored is deleted. Returns when the master
    /// has taken note; waits for a master that cannot be reached.
    ///
    /// # Errors
    /// It ended for another reason before.
    pub async fn teardown(mut self) -> Result<(), Error> {
        let _ = self.handle.messages.send(Message::Teardown).await;
        match self.done().await {
            Err(Error::Ended { error: StreamError::TornDown, .. }) => Ok(()),
            other => other,
        }
    }
}

impl<S: Scheduler> Drop for Running<S> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Looks at and changes a scheduler that runs. Cheap to clone.
pub struct Handle<S> {
    messages: mpsc::Sender<Message<S>>,
}

impl<S> fmt::Debug for Handle<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handle")
    }
}

impl<S> Clone for Handle<S> {
    fn clone(&self) -> Self {
        Self { messages: self.messages.clone() }
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
        let (answer, answered) = oneshot::channel();
        let update: shell::Update<S> = Box::new(move |driver, now, effects| {
            let (result, token) = driver.apply(now, change, effects);
            // Whoever has stopped waiting does not want to know.
            (token, Box::new(move || drop(answer.send(result))))
        });
        self.messages.send(Message::Update(update)).await.map_err(|_| Stopped)?;
        answered.await.map_err(|_| Stopped)
    }

    /// Looks at the scheduler and its view.
    ///
    /// # Errors
    /// The framework has stopped.
    pub async fn read<R: Send + 'static>(
        &self,
        look: impl FnOnce(&S, &View) -> R + Send + 'static,
    ) -> Result<R, Stopped> {
        let (answer, answered) = oneshot::channel();
        let read: shell::Read<S> =
            Box::new(move |driver| drop(answer.send(look(driver.scheduler(), driver.view()))));
        self.messages.send(Message::Read(read)).await.map_err(|_| Stopped)?;
        answered.await.map_err(|_| Stopped)
    }
}
