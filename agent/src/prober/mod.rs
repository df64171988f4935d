//! Health checks as they are made: commands in the container; http, https, tcp and grpc from its network namespace, without a
//! process or a thread for any of them. What a result means is the supervisor's to say.

mod dial;
mod grpc;
mod http;
mod tls;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use divvy_proto::task::{HealthCheck, Probe};
use tokio::net::TcpStream;
use tokio::sync::{OnceCell, Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::container::{ContainerId, Runtime};
use crate::supervisor::Input;
use dial::{Dialer, Reach};
use tls::Tls;

/// So many probes of an agent are under way at once; the others wait, and their timeout does not run meanwhile.
const AT_ONCE: usize = 64;
/// Of these, so many may be commands, each of which is a process.
const COMMANDS_AT_ONCE: usize = 16;
/// Checks that start together are spread over at most this long.
const SPREAD: Duration = Duration::from_secs(1);
/// The longest part of a command's output that is shown.
const SHOWN: usize = 200;

/// Makes the health checks of all tasks of an agent.
#[derive(Debug)]
pub(crate) struct Prober {
    asker: Asker,
    results: mpsc::Sender<Input>,
    running: BTreeMap<ContainerId, JoinSet<()>>,
}

/// What a single probe needs.
#[derive(Debug, Clone)]
struct Asker {
    runtime: Runtime,
    dialer: Dialer,
    tls: Tls,
    /// What tasks are told as HOST: they may listen there instead of on loopback.
    host: String,
    permits: Arc<Semaphore>,
    commands: Arc<Semaphore>,
}

/// A container, and how it is reached, once that is known.
#[derive(Debug)]
struct Target {
    container: ContainerId,
    reach: OnceCell<Reach>,
}

impl Prober {
    /// # Errors
    /// A thread cannot be started.
    pub(crate) fn new(runtime: Runtime, host: String, results: mpsc::Sender<Input>) -> io::Result<Self> {
        let asker = Asker {
            runtime,
            dialer: Dialer::start()?,
            tls: Tls::trusting().map_err(io::Error::other)?,
            host,
            permits: Arc::new(Semaphore::new(AT_ONCE)),
            commands: Arc::new(Semaphore::new(COMMANDS_AT_ONCE)),
        };
        Ok(Self { asker, results, running: BTreeMap::new() })
    }

    /// Begins the checks of a container, each with its own rhythm. Their ports are those inside.
    pub(crate) fn start(&mut self, container: &ContainerId, checks: Vec<HealthCheck>) {
        let target = Arc::new(Target { container: container.clone(), reach: OnceCell::new() });
        let mut probes = JoinSet::new();
        for (index, check) in checks.into_iter().enumerate() {
            let (asker, results, target) = (self.asker.clone(), self.results.clone(), target.clone());
            probes.spawn(async move {
                let container = &target.container;
                tokio::time::sleep(offset(container, index, check.interval.min(SPREAD))).await;
                loop {
                    let result = asker.ask(&target, &check).await;
                    let input = Input::Health { container: container.clone(), check: index, result };
                    if results.send(input).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(check.interval).await;
                }
            });
        }
        self.running.insert(container.clone(), probes);
    }

    /// Ends them. What is under way is dropped.
    pub(crate) fn stop(&mut self, container: &ContainerId) {
        self.running.remove(container);
    }
}

/// A fraction of `within` that is the same each time, so that a hundred tasks of one launch do not probe as one.
fn offset(container: &ContainerId, index: usize, within: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    (container.as_str(), index).hash(&mut hasher);
    within.mul_f64(f64::from(u8::try_from(hasher.finish() & 0xff).unwrap_or_default()) / 256.0)
}

impl Asker {
    async fn ask(&self, target: &Target, check: &HealthCheck) -> Result<(), String> {
        let permits = if matches!(check.probe, Probe::Command(_)) { &self.commands } else { &self.permits };
        let _permit = permits.acquire().await;
        let late = || format!("no answer within {}", humantime::format_duration(check.timeout));
        let answer = async {
            match &check.probe {
                Probe::Tcp { port } => self.connect(target, *port).await.map(drop),
                Probe::Http { port, path } => {
                    let (stream, host) = self.connect(target, *port).await?;
                    http::get(stream, &host, path).await
                }
                Probe::Https { port, path } => {
                    let (stream, host) = self.connect(target, *port).await?;
                    http::get(self.tls.wrap(stream).await?, &host, path).await
                }
                Probe::Grpc { port, service } => {
                    let (stream, host) = self.connect(target, *port).await?;
                    grpc::check(stream, &host, service).await
                }
                Probe::Command(command) => {
                    self.command(&target.container, &command.argv(), check.timeout).await
                }
            }
        };
        // A command is ended by the runtime, which must also end its processes; this is for a runtime that hangs.
        let patience = match check.probe {
            Probe::Command(_) => check.timeout + Duration::from_secs(10),
            _ => check.timeout,
        };
        tokio::time::timeout(patience, answer).await.unwrap_or_else(|_| Err(late()))
    }

    /// Connects to the first of the container's hosts that takes it: loopback first, as Mesos does; then its addresses, or what
    /// it was told as HOST. Answers with host and port, too, as HTTP has them.
    async fn connect(&self, target: &Target, port: u16) -> Result<(TcpStream, String), String> {
        let reach = target.reach.get_or_try_init(|| self.find(&target.container)).await?;
        let mut refused = String::new();
        for host in &reach.hosts {
            match self.dialer.connect(reach, host, port).await {
                Ok(stream) => {
                    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
                    return Ok((stream, format!("{host}:{port}")));
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    refused = "the connection was refused".to_owned();
                }
                Err(error) => refused = error.to_string(),
            }
        }
        Err(refused)
    }

    async fn find(&self, container: &ContainerId) -> Result<Reach, String> {
        let network = self.runtime.network(container).await.map_err(|error| error.to_string())?;
        Ok(match network {
            Some((namespace, addresses)) => Reach::inside(namespace, &addresses),
            None => Reach::host(&self.host),
        })
    }

    async fn command(
        &self,
        container: &ContainerId,
        argv: &[String],
        timeout: Duration,
    ) -> Result<(), String> {
        let result = self.runtime.exec(container, argv, timeout).await.map_err(|error| error.to_string())?;
        match result.status.success() {
            true => Ok(()),
            false => {
                let output: String = result.output.trim().chars().take(SHOWN).collect();
                Err(format!("{}: {output}", result.status))
            }
        }
    }
}
