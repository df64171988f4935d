//! The main loop: owns the supervisor, feeds it what happens, and carries out what it wants, without ever waiting for any of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use divvy_proto::agent::AgentMessage;
use divvy_proto::container::ImageName;
use divvy_proto::ids::VolumeId;
use divvy_proto::task::{Artifact, Reason};
use divvy_proto::time::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::checkpoint::Writer;
use crate::container::{ContainerId, ContainerSpec, ContainerState, Exited, Runtime, UserName};
use crate::disk::Disks;
use crate::fetcher::Fetcher;
use crate::http::Live;
use crate::image::{Image, Images};
use crate::link::{LinkEvent, Outgoing};
use crate::metrics::Metrics;
use crate::prober::Prober;
use crate::sandbox::Sandboxes;
use crate::supervisor::{Effect, Input, LinkId, Supervisor, TaskKey};
use crate::volumes::Volumes;

/// So many inputs are handled before the effects are looked at again.
const BATCH: usize = 256;
/// How long an agent that is to leave nothing behind may take.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);
/// From SIGTERM to SIGKILL at most, for an agent that is to leave nothing behind: somebody waits for it to end.
const LAST_GRACE: Duration = Duration::from_secs(10);
/// How long open HTTP connections may take to end.
const HTTP_TIMEOUT: Duration = Duration::from_secs(2);
/// First and longest pause before trying again to destroy a container that resists.
const DESTROY_PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Whether an agent that stops ends its tasks too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillTasks {
    /// All are killed, and nothing of them is left but their sandboxes.
    Yes,
    /// They run on, and the next agent on the work directory takes care of them.
    No,
}

/// An agent at work. Dropping it stops the agent as `shutdown(KillTasks::No)` does, without waiting.
#[derive(Debug)]
pub struct Running {
    pub(crate) http_addr: SocketAddr,
    pub(crate) orders: mpsc::Sender<KillTasks>,
    pub(crate) main: JoinHandle<()>,
    pub(crate) http: JoinHandle<()>,
    pub(crate) stop: CancellationToken,
}

impl Running {
    /// Where the agent's HTTP API listens.
    #[must_use]
    pub const fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// Waits until the agent has stopped by itself, which it does only if it is broken.
    pub async fn done(&mut self) {
        if let Err(error) = (&mut self.main).await {
            error!("the agent's main loop has died: {error}");
        }
    }

    /// Stops the agent. With [`KillTasks::Yes`] it returns when no container is left, or after a minute.
    pub async fn shutdown(mut self, kill: KillTasks) {
        if self.orders.send(kill).await.is_ok() {
            self.done().await;
        }
        self.stop.cancel();
        drop(tokio::time::timeout(HTTP_TIMEOUT, &mut self.http).await);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
        self.main.abort();
        self.http.abort();
    }
}

/// Reads a wall clock that never runs backwards: it is looked at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    began: Timestamp,
    at: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { began: Timestamp::wall_clock(), at: Instant::now() }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.began + self.at.elapsed()
    }
}

/// Everything through which effects are carried out.
pub(crate) struct Hands {
    pub(crate) inputs: mpsc::Sender<Input>,
    pub(crate) runtime: Runtime,
    pub(crate) writer: Writer,
    pub(crate) fetcher: Fetcher,
    pub(crate) images: Images,
    pub(crate) prober: Prober,
    pub(crate) disks: Disks,
    pub(crate) sandboxes: Sandboxes,
    pub(crate) volumes: Volumes,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) live: watch::Sender<Live>,
}

/// Where inputs come from.
pub(crate) struct Ears {
    pub(crate) inputs: mpsc::Receiver<Input>,
    pub(crate) links: mpsc::Receiver<LinkEvent>,
    pub(crate) orders: mpsc::Receiver<KillTasks>,
}

/// The supervisor and all around it.
pub(crate) struct MainLoop {
    supervisor: Supervisor,
    clock: Clock,
    hands: Hands,
    effects: Vec<Effect>,
    link: Option<(LinkId, Outgoing)>,
    preparing: BTreeMap<ContainerId, AbortHandle>,
    /// Whatever is under way; ends with the loop.
    jobs: JoinSet<()>,
    retention: Duration,
}

impl MainLoop {
    pub(crate) fn new(supervisor: Supervisor, clock: Clock, hands: Hands, retention: Duration) -> Self {
        Self {
            supervisor,
            clock,
            hands,
            effects: Vec::new(),
            link: None,
            preparing: BTreeMap::new(),
            jobs: JoinSet::new(),
            retention,
        }
    }

    /// Runs until it is told to stop. `first` is what was recovered.
    pub(crate) async fn run(mut self, first: Input, mut ears: Ears) {
        self.feed(first);
        let mut sweep = tokio::time::interval(sweep_interval(self.retention));
        let kill = loop {
            let pause = self.supervisor.next_deadline().map(|at| at.since(self.clock.now()));
            tokio::select! {
                order = ears.orders.recv() => break order.unwrap_or(KillTasks::No),
                Some(event) = ears.links.recv() => self.on_link(event),
                Some(input) = ears.inputs.recv() => self.feed_all(input, &mut ears.inputs),
                () = after(pause) => self.feed(Input::Tick),
                _ = sweep.tick() => self.sweep(),
            }
            while self.jobs.try_join_next().is_some() {}
        };
        if kill == KillTasks::Yes && tokio::time::timeout(DRAIN_TIMEOUT, self.drain(&mut ears)).await.is_err()
        {
            error!(
                "some containers could not be destroyed within {}",
                humantime::format_duration(DRAIN_TIMEOUT)
            );
        }
        drop(ears);
        self.jobs.shutdown().await;
        let writer = self.hands.writer;
        drop(tokio::task::spawn_blocking(move || writer.close()).await);
    }

    /// Ends every task, and whatever else has a container here.
    async fn drain(&mut self, ears: &mut Ears) {
        self.feed(Input::KillAll { grace: LAST_GRACE });
        while !self.supervisor.live_tasks().is_empty() {
            let pause = self.supervisor.next_deadline().map(|at| at.since(self.clock.now()));
            tokio::select! {
                Some(event) = ears.links.recv() => self.on_link(event),
                Some(input) = ears.inputs.recv() => self.feed_all(input, &mut ears.inputs),
                () = after(pause) => self.feed(Input::Tick),
            }
        }
        match self.hands.runtime.list().await {
            Ok(rest) => {
                for container in rest {
                    destroy(&self.hands.runtime, &container).await;
                }
            }
            Err(error) => error!("cannot see whether containers are left: {error}"),
        }
        if let Err(error) = self.hands.runtime.retire().await {
            warn!("{error}");
        }
    }

    fn feed_all(&mut self, first: Input, more: &mut mpsc::Receiver<Input>) {
        self.take(first);
        for _ in 1..BATCH {
            match more.try_recv() {
                Ok(input) => self.take(input),
                Err(_) => break,
            }
        }
        self.carry_out();
    }

    fn feed(&mut self, input: Input) {
        self.take(input);
        self.carry_out();
    }

    fn take(&mut self, input: Input) {
        self.note(&input);
        self.supervisor.handle(self.clock.now(), input, &mut self.effects);
    }

    /// What the world sees of an input beside the supervisor.
    fn note(&mut self, input: &Input) {
        match input {
            Input::Prepared { container, .. } => drop(self.preparing.remove(container)),
            Input::PrepareFailed { container, .. } => {
                self.preparing.remove(container);
                self.hands.images.release(container);
            }
            Input::Launched { .. } => Metrics::count(&self.hands.metrics.launches),
            Input::LaunchFailed { .. } => Metrics::count(&self.hands.metrics.launch_failures),
            Input::Exited { .. } => Metrics::count(&self.hands.metrics.exits),
            Input::Checkpointed(_) => Metrics::count(&self.hands.metrics.checkpoints),
            Input::Destroyed(container) => {
                self.hands.images.release(container);
                if let Some(task) = self.supervisor.task_of(container) {
                    self.hands.sandboxes.touch(task);
                }
            }
            _ => {}
        }
    }

    fn on_link(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Open(id, outgoing) => {
                self.link = Some((id, outgoing));
                self.feed(Input::Connected(id));
            }
            LinkEvent::Heard(link, message) => self.feed(Input::Master { link, message }),
            LinkEvent::Closed(id) => self.lose_link(id),
        }
    }

    fn lose_link(&mut self, id: LinkId) {
        self.link.take_if(|(link, _)| *link == id);
        self.feed(Input::Disconnected(id));
    }

    fn carry_out(&mut self) {
        while !self.effects.is_empty() {
            let mut jammed = None;
            for effect in std::mem::take(&mut self.effects) {
                match effect {
                    Effect::Send { link, message } if jammed.is_none() => jammed = self.send(link, message),
                    Effect::Send { .. } => {}
                    effect => self.carry_out_one(effect),
                }
            }
            if let Some(link) = jammed {
                warn!("the master does not take what it is sent; connecting anew");
                self.link = None;
                self.supervisor.handle(self.clock.now(), Input::Disconnected(link), &mut self.effects);
            }
        }
        self.hands.metrics.registered.store(self.supervisor.is_registered(), Ordering::Relaxed);
        let live = self.supervisor.live_tasks();
        self.hands.live.send_if_modified(|seen| {
            let changed = **seen != live;
            if changed {
                *seen = Arc::new(live);
            }
            changed
        });
    }

    /// The stream, if it takes no more.
    fn send(&mut self, to: LinkId, message: AgentMessage) -> Option<LinkId> {
        if matches!(message, AgentMessage::Update { .. }) {
            Metrics::count(&self.hands.metrics.updates_sent);
        }
        let (_, outgoing) = self.link.as_ref().filter(|(link, _)| *link == to)?;
        (!outgoing.send(message)).then_some(to)
    }

    fn carry_out_one(&mut self, effect: Effect) {
        match effect {
            Effect::Send { .. } => {}
            Effect::Disconnect { link, reason } => {
                warn!("hanging up: {reason}");
                self.link.take_if(|(open, _)| *open == link);
            }
            Effect::Checkpoint { token, record } => self.hands.writer.write(token, &record),
            Effect::Forget(container) => self.hands.writer.remove(&container),
            Effect::Prepare { container, task, user, artifacts, image } => {
                self.prepare(container, task, user, artifacts, image)
            }
            Effect::CancelPrepare(container) => {
                if let Some(job) = self.preparing.remove(&container) {
                    job.abort();
                }
                self.hands.images.release(&container);
            }
            Effect::Launch(spec) => self.launch(spec),
            Effect::Watch(container) => {
                self.hands.disks.watch(&container);
                let clock = self.clock;
                self.container_job(container, |runtime, container| async move {
                    let exited = watch_exit(&runtime, &container, clock).await;
                    Some(Input::Exited { container, exited })
                });
            }
            Effect::Terminate { container, signal } => {
                self.container_job(container, move |runtime, container| async move {
                    if let Err(error) = runtime.signal(&container, signal).await {
                        warn!("cannot send {signal} to container {container}: {error}");
                    }
                    None
                });
            }
            Effect::Destroy(container) => self.container_job(container, |runtime, container| async move {
                destroy(&runtime, &container).await;
                Some(Input::Destroyed(container))
            }),
            Effect::Volumes(volumes) => self.set_volumes(&volumes),
            Effect::SetVolumesAside(agent) => {
                if let Err(error) = self.hands.volumes.set_aside(&agent) {
                    error!("cannot set the volumes of {agent}, which this agent was, aside: {error}");
                }
            }
            Effect::StartHealth { container, checks } => self.hands.prober.start(&container, checks),
            Effect::StopHealth(container) => self.hands.prober.stop(&container),
        }
    }

    /// Directories are made and moved at once, so that a task that is launched next finds its own; what was in those that are
    /// removed goes in the background.
    fn set_volumes(&mut self, wanted: &BTreeSet<VolumeId>) {
        let volumes = self.hands.volumes.clone();
        if let Err(error) = volumes.set(wanted) {
            error!("cannot make or remove persistent volumes: {error}; tasks that want them fail");
        }
        self.jobs.spawn_blocking(move || volumes.collect());
    }

    fn prepare(
        &mut self,
        container: ContainerId,
        task: TaskKey,
        user: UserName,
        artifacts: Vec<Artifact>,
        image: Option<ImageName>,
    ) {
        let (sandboxes, fetcher) = (self.hands.sandboxes.clone(), self.hands.fetcher.clone());
        let (inputs, name, images) =
            (self.hands.inputs.clone(), container.clone(), self.hands.images.clone());
        let job = self.jobs.spawn(async move {
            let fetched = prepared(&sandboxes, &fetcher, &task, &user, &artifacts);
            let input = match tokio::try_join!(fetched, pulled(&images, image, &container)) {
                Ok(((), image)) => Input::Prepared { container, image },
                Err((reason, message)) => Input::PrepareFailed { container, reason, message },
            };
            drop(inputs.send(input).await);
        });
        self.preparing.insert(name, job);
    }

    fn launch(&mut self, spec: ContainerSpec) {
        let (runtime, inputs) = (self.hands.runtime.clone(), self.hands.inputs.clone());
        self.jobs.spawn(async move {
            let input = match runtime.launch(&spec).await {
                Ok(started) => {
                    Input::Launched { container: spec.id, pid: started.pid, addresses: started.addresses }
                }
                Err(error) => {
                    info!("container {} was not launched: {error}", spec.id);
                    Input::LaunchFailed { container: spec.id, message: error.to_string() }
                }
            };
            drop(inputs.send(input).await);
        });
    }

    fn container_job<F: Future<Output = Option<Input>> + Send + 'static>(
        &mut self,
        container: ContainerId,
        job: impl FnOnce(Runtime, ContainerId) -> F,
    ) {
        let inputs = self.hands.inputs.clone();
        let job = job(self.hands.runtime.clone(), container);
        self.jobs.spawn(async move {
            if let Some(input) = job.await {
                drop(inputs.send(input).await);
            }
        });
    }

    /// Removes old sandboxes, in the background, and lets go of images that nobody uses.
    fn sweep(&mut self) {
        let live = self.supervisor.live_tasks();
        self.hands.images.retain(&live.into_values().map(|task| task.container).collect());
        let known: BTreeSet<TaskKey> = self.supervisor.known_tasks().cloned().collect();
        let (sandboxes, retention) = (self.hands.sandboxes.clone(), self.retention);
        self.jobs.spawn_blocking(move || match sandboxes.collect(&known, retention) {
            Ok(count) => debug!("{count} old sandboxes removed"),
            Err(error) => warn!("cannot look for old sandboxes: {error}"),
        });
    }
}

/// Often enough that a sandbox does not live much longer than it should, and that a disk does not fill up meanwhile (Mesos:
/// `disk_watch_interval`, 1 min).
fn sweep_interval(retention: Duration) -> Duration {
    (retention / 10).clamp(Duration::from_secs(1), Duration::from_secs(60))
}

async fn after(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}

/// Makes the sandbox and fetches what belongs into it, one artifact after another.
async fn prepared(
    sandboxes: &Sandboxes,
    fetcher: &Fetcher,
    task: &TaskKey,
    user: &UserName,
    artifacts: &[Artifact],
) -> Result<(), (Reason, String)> {
    let sandbox = sandboxes.create(task).map_err(|error| {
        let path = sandboxes.path(task).display().to_string();
        let message = match error.kind() {
            io::ErrorKind::AlreadyExists => {
                format!("task {} has run here before: {path} exists", task.task_id)
            }
            _ => format!("cannot make the sandbox {path}: {error}"),
        };
        (Reason::LaunchFailed, message)
    })?;
    let fetched = fetcher.fetch_all(artifacts, &sandbox, user).await;
    fetched.map_err(|error| (Reason::FetchFailed, error.to_string()))
}

/// Has the image here, and keeps it for the container.
async fn pulled(
    images: &Images,
    image: Option<ImageName>,
    container: &ContainerId,
) -> Result<Option<Image>, (Reason, String)> {
    let Some(name) = image else { return Ok(None) };
    match images.ensure(&name, container).await {
        Ok(image) => Ok(Some(image)),
        Err(error) => Err((Reason::ImageFailed, format!("{name}: {error}"))),
    }
}

/// Waits for the end of a container's first process, however often that takes asking.
async fn watch_exit(runtime: &Runtime, container: &ContainerId, clock: Clock) -> Exited {
    loop {
        match runtime.wait(container).await {
            Ok(exited) => return exited,
            Err(error) => debug!("waiting for container {container}: {error}"),
        }
        match runtime.state(container).await {
            Ok(ContainerState::Exited(exited)) => return exited,
            Ok(ContainerState::Absent) => return Exited { status: None, oom: None, at: clock.now() },
            Ok(ContainerState::Running { .. }) | Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
}

async fn destroy(runtime: &Runtime, container: &ContainerId) {
    let (mut pause, longest) = DESTROY_PAUSE;
    while let Err(error) = runtime.destroy(container).await {
        warn!("cannot destroy container {container} yet: {error}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}
