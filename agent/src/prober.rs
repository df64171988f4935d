//! Health checks as they are made: http and tcp from the agent, commands inside the container. What a result means is the
//! supervisor's to say.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use divvy_proto::task::{HealthCheck, Probe};
use futures::StreamExt;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::causes::causes;
use crate::container::{ContainerId, Runtime};
use crate::supervisor::Input;

/// So many probes of an agent are under way at once; the others wait, and their timeout does not run meanwhile.
const AT_ONCE: usize = 64;
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
    http: reqwest::Client,
    runtime: Runtime,
    /// What tasks are told as HOST: they may listen there instead of on loopback.
    host: String,
    permits: Arc<Semaphore>,
}

impl Prober {
    pub(crate) fn new(
        runtime: Runtime,
        host: String,
        results: mpsc::Sender<Input>,
    ) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        let http = http.pool_max_idle_per_host(0).build()?;
        let asker = Asker { http, runtime, host, permits: Arc::new(Semaphore::new(AT_ONCE)) };
        Ok(Self { asker, results, running: BTreeMap::new() })
    }

    /// Begins the checks of a container, each with its own rhythm.
    pub(crate) fn start(&mut self, container: &ContainerId, checks: Vec<HealthCheck>) {
        let mut probes = JoinSet::new();
        for (index, check) in checks.into_iter().enumerate() {
            let (asker, results, container) = (self.asker.clone(), self.results.clone(), container.clone());
            probes.spawn(async move {
                tokio::time::sleep(offset(&container, index, check.interval.min(SPREAD))).await;
                loop {
                    let result = asker.ask(&container, &check).await;
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
    async fn ask(&self, container: &ContainerId, check: &HealthCheck) -> Result<(), String> {
        let _permit = self.permits.acquire().await;
        let late = || format!("no answer within {}", humantime::format_duration(check.timeout));
        let answer = async {
            match &check.probe {
                Probe::Tcp { port } => self.tcp(*port).await,
                Probe::Http { port, path } => self.http(*port, path).await,
                Probe::Https { .. } | Probe::Grpc { .. } => {
                    Err("this agent cannot make such a check yet".to_owned())
                }
                Probe::Command(command) => {
                    return self.command(container, &command.argv(), check.timeout).await;
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

    /// Loopback first, as Mesos does; then the address that the task was told.
    fn hosts(&self) -> impl Iterator<Item = &str> {
        let host = if self.host.contains(':') { "::1" } else { "127.0.0.1" };
        std::iter::once(host).chain(Some(self.host.as_str()).filter(|other| *other != host))
    }

    async fn tcp(&self, port: u16) -> Result<(), String> {
        let mut refused = String::new();
        for host in self.hosts() {
            match TcpStream::connect((host, port)).await {
                Ok(_) => return Ok(()),
                Err(error) => refused = error.to_string(),
            }
        }
        Err(refused)
    }

    async fn http(&self, port: u16, path: &str) -> Result<(), String> {
        let slash = if path.starts_with('/') { "" } else { "/" };
        let mut refused = String::new();
        for host in self.hosts() {
            let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
            let url = format!("http://{host}:{port}{slash}{path}");
            match self.http.get(url).send().await {
                Ok(answer) if (200..400).contains(&answer.status().as_u16()) => {
                    // Some servers log a client that hangs up; reading a little is kinder, and bounded by the timeout.
                    let _pieces = answer.bytes_stream().take(16).count().await;
                    return Ok(());
                }
                Ok(answer) => return Err(format!("the answer was {}", answer.status())),
                Err(error) if error.is_connect() => refused = "the connection was refused".to_owned(),
                Err(error) => return Err(causes(&error.without_url())),
            }
        }
        Err(refused)
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
