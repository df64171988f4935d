//! A framework with a REST API of its own, as a whole: its scheduler is restored from a store and run against a master, and its
//! routes look at it, change it and follow it.
//!
//! ```no_run
//! # use divvy_sdk::{Actions, Offer, Scheduler, View};
//! # struct Planner;
//! # impl Scheduler for Planner {
//! #     fn reconcile(&mut self, _: &View, _: Vec<Offer>) -> Actions { Actions::none() }
//! # }
//! # impl Planner {
//! #     fn restore(_: Vec<(String, Vec<u8>)>) -> Result<Self, divvy_sdk::proto::Invalid> { Ok(Self) }
//! #     fn count(&self) -> usize { 0 }
//! # }
//! # async fn example(store: std::sync::Arc<dyn divvy_store::Store>) -> Result<(), divvy_sdk::hosted::Error> {
//! use axum::{Router, extract::State, routing::get};
//! use divvy_sdk::hosted::{HostConfig, Hosted};
//! use divvy_sdk::rest::{Json, Refused, complete};
//!
//! async fn count(State(hosted): State<Hosted<Planner>>) -> Result<Json<usize>, Refused> {
//!     Ok(Json(hosted.look(|planner, _| planner.count()).await?))
//! }
//!
//! let config = HostConfig::new("mine", "127.0.0.1:5050", store);
//! let routes = |hosted| complete(Router::new().route("/v1/count", get(count))).with_state(hosted);
//! let mut running = config.start(Planner::restore, routes).await?;
//! println!("http://{}", running.addr()); // and at the master's, below /frameworks/mine/
//! running.done().await
//! # }
//! ```
//!
//! Not here: any route, any decision.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use divvy_proto::role::RolePath;
use divvy_store::Store;
use futures::{Stream, StreamExt};
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::rest::{BindError, Json, ListQuery, Listener, Refused, Waiting};
use crate::{Actions, Framework, Handle, Offer, Scheduler, Stopped, View};

/// A comment is sent after so long without an event, so that both sides notice a dead connection.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How a framework with a REST API is run.
#[derive(Clone)]
pub struct HostConfig {
    /// Address of the master: `127.0.0.1:5050`.
    pub master: String,
    /// Where the REST API listens.
    pub listen: SocketAddr,
    /// The base address at which the master reaches the REST API; that of `listen` by default.
    pub url: Option<String>,
    /// Where state is kept.
    pub store: Arc<dyn Store>,
    /// Keys in the store begin with this.
    pub prefix: String,
    /// The roles whose resources are used; the first is for what names none.
    pub roles: Vec<RolePath>,
    /// The framework's name: the master answers its REST API under `/frameworks/NAME/`.
    pub name: String,
}

impl fmt::Debug for HostConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostConfig")
            .field("name", &self.name)
            .field("master", &self.master)
            .field("listen", &self.listen)
            .finish_non_exhaustive()
    }
}

/// Why a framework with a REST API ended, or did not begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address of the REST API cannot be had.
    #[error("framework {name}: {source}")]
    Listen {
        /// The framework's name.
        name: String,
        /// Why.
        source: BindError,
    },
    /// What is in the store is not its scheduler's.
    #[error("framework {name}: restoring its state: {source}")]
    Restore {
        /// The framework's name.
        name: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The framework could not be run.
    #[error(transparent)]
    Framework(#[from] crate::Error),
}

impl HostConfig {
    /// Under this name, against this master, with state in this store below the name; the REST API on any free port of the
    /// loopback address.
    #[must_use]
    pub fn new(name: impl Into<String>, master: impl Into<String>, store: Arc<dyn Store>) -> Self {
        let name = name.into();
        Self {
            master: master.into(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            url: None,
            store,
            prefix: name.clone(),
            roles: vec![RolePath::default()],
            name,
        }
    }

    /// Starts. `restore` makes the scheduler of what is stored below the prefix (see [`crate::load`]), `routes` its REST API.
    ///
    /// # Errors
    /// The address is taken, the store cannot be read, or the framework cannot start. That the master is not there yet is no error.
    pub async fn start<S: Scheduler, E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        self,
        restore: impl FnOnce(Vec<(String, Vec<u8>)>) -> Result<S, E>,
        routes: impl FnOnce(Hosted<S>) -> Router,
    ) -> Result<Running<S>, Error> {
        let name = self.name.clone();
        let listener = Listener::bind_anywhere(self.listen).await;
        let listener = listener.map_err(|source| Error::Listen { name: name.clone(), source })?;
        let records = crate::load(self.store.as_ref(), &self.prefix).await?;
        let scheduler = restore(records).map_err(|error| Error::Restore { name, source: error.into() })?;
        let (revision, changes) = watch::channel(0);
        let framework = Framework::new(self.name, Watched { scheduler, revision })
            .master(self.master)
            .roles(self.roles)
            .store(self.store, self.prefix)
            .url(self.url.unwrap_or_else(|| listener.url()))
            .start()
            .await?;
        let stop = CancellationToken::new();
        let addr = listener.addr();
        let hosted = Hosted { handle: framework.handle(), changes, stop: stop.clone() };
        let server = tokio::spawn(listener.serve(routes(hosted), stop.clone().cancelled_owned()));
        Ok(Running { addr, framework, server, stop })
    }
}

/// A scheduler, and a number that rises whenever it has looked: what waits for changes looks again then.
struct Watched<S> {
    scheduler: S,
    revision: watch::Sender<u64>,
}

impl<S: Scheduler> Scheduler for Watched<S> {
    fn reconcile(&mut self, view: &View, offers: Vec<Offer>) -> Actions {
        let actions = self.scheduler.reconcile(view, offers);
        self.revision.send_modify(|revision| *revision += 1);
        actions
    }
}

/// What the routes have of the framework. Cheap to clone.
pub struct Hosted<S> {
    handle: Handle<Watched<S>>,
    changes: watch::Receiver<u64>,
    stop: CancellationToken,
}

impl<S> Clone for Hosted<S> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone(), changes: self.changes.clone(), stop: self.stop.clone() }
    }
}

impl<S> fmt::Debug for Hosted<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hosted")
    }
}

impl<S: Scheduler> Hosted<S> {
    /// Looks at the scheduler and its view.
    ///
    /// # Errors
    /// The framework has stopped.
    pub async fn look<R: Send + 'static>(
        &self,
        look: impl FnOnce(&S, &View) -> R + Send + 'static,
    ) -> Result<R, Stopped> {
        self.handle.read(move |watched, view| look(&watched.scheduler, view)).await
    }

    /// What `look` finds, or else the refusal `missing`.
    ///
    /// # Errors
    /// `look` finds nothing, or the framework has stopped.
    pub async fn find<R: Send + 'static>(
        &self,
        missing: impl Into<Refused>,
        look: impl FnOnce(&S, &View) -> Option<R> + Send + 'static,
    ) -> Result<R, Refused> {
        self.look(look).await?.ok_or_else(|| missing.into())
    }

    /// The answer to `GET` of a list: everything, or only what waits now, where the query asks for that.
    ///
    /// # Errors
    /// The query is wrong, or the framework has stopped.
    pub async fn list<T: Serialize + Send + 'static>(
        &self,
        query: Result<Query<ListQuery>, QueryRejection>,
        all: fn(&S, &View) -> Vec<T>,
        waiting: fn(&S, &View) -> Vec<Waiting>,
    ) -> Result<Response, Refused> {
        Ok(match query?.waiting {
            true => Json(self.look(waiting).await?).into_response(),
            false => Json(self.look(all).await?).into_response(),
        })
    }

    /// Changes the scheduler: whole and durable when this returns, or refused and nothing is written.
    ///
    /// # Errors
    /// The command was refused, or the framework has stopped.
    pub async fn command<R: Send + 'static, E: Into<Refused> + Send + 'static>(
        &self,
        command: impl FnOnce(&mut S, &View) -> Result<(R, Actions), E> + Send + 'static,
    ) -> Result<R, Refused> {
        let update = |watched: &mut Watched<S>, view: &View| match command(&mut watched.scheduler, view) {
            Ok((answer, actions)) => (Ok(answer), actions),
            Err(refusal) => (Err(refusal), Actions::none()),
        };
        self.handle.update(update).await?.map_err(Into::into)
    }

    /// Server-sent events of this name, with what `look` sees as JSON: the first at once, then one whenever it sees something
    /// else. A slow reader is not sent what it missed, but what is.
    pub fn events<T, L>(&self, name: &'static str, look: L) -> Response
    where
        T: Serialize + PartialEq + Send + 'static,
        L: Fn(&S, &View) -> Seen<T> + Clone + Send + 'static,
    {
        Sse::new(self.follow(name, look)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
    }

    fn follow<T, L>(
        &self,
        name: &'static str,
        look: L,
    ) -> impl Stream<Item = Result<Event, Infallible>> + Send + use<S, T, L>
    where
        T: Serialize + PartialEq + Send + 'static,
        L: Fn(&S, &View) -> Seen<T> + Clone + Send + 'static,
    {
        let start = Some((self.clone(), None));
        let events = futures::stream::unfold(start, move |state| {
            let look = look.clone();
            async move {
                let (mut hosted, sent) = state?;
                loop {
                    hosted.changes.borrow_and_update();
                    match hosted.look(look.clone()).await.ok()? {
                        Seen::Gone => return Some((Ok(Event::default().event("gone").data("{}")), None)),
                        Seen::Unknown => {}
                        Seen::Is(now) if sent.as_ref() == Some(&now) => {}
                        Seen::Is(now) => {
                            let event = Event::default().event(name).json_data(&now).ok()?;
                            return Some((Ok(event), Some((hosted, Some(now)))));
                        }
                    }
                    hosted.changes.changed().await.ok()?;
                }
            }
        });
        events.take_until(self.stop.clone().cancelled_owned())
    }
}

/// What is seen of something that is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen<T> {
    /// It is there, and is so.
    Is(T),
    /// It is there, and how it is cannot be said yet: nothing is sent.
    Unknown,
    /// It is not there any more: `gone` is sent, and the stream ends.
    Gone,
}

impl<T> From<Option<T>> for Seen<T> {
    fn from(there: Option<T>) -> Self {
        there.map_or(Self::Gone, Self::Is)
    }
}

/// A framework that runs with its REST API.
pub struct Running<S: Scheduler> {
    addr: SocketAddr,
    framework: crate::Running<Watched<S>>,
    server: JoinHandle<()>,
    stop: CancellationToken,
}

impl<S: Scheduler> fmt::Debug for Running<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl<S: Scheduler> Running<S> {
    /// Where the REST API listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Waits until the framework has ended by itself.
    ///
    /// # Errors
    /// Why it ended.
    pub async fn done(&mut self) -> Result<(), Error> {
        Ok(self.framework.done().await?)
    }

    /// Stops. The tasks run on, and are taken up again by the next start with the same store.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.framework.shutdown().await;
        let _ = self.server.await;
    }
}
