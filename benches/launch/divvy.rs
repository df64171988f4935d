//! The subject proper: a master and an agent as processes, and a framework in this one.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use divvy_proto::pb;
use divvy_proto::pb::event::Event;
use tempfile::TempDir;

use crate::common::{Divvy, Stream, accept, acknowledge, amount, is_terminal, task};
use crate::subject::{Parallel, Sample, Subject};

/// More than is used at a time, so that nothing waits for resources. What is charged is not what is there.
const RESOURCES: &str = "--resources=cpus=32;mem=32GiB;disk=10GiB;ports=[30000-30010]";

/// What a task is charged with.
const CPUS_MILLIS: i64 = 1000;

/// A cluster of one agent.
pub struct Cluster {
    name: &'static str,
    runtime: tokio::runtime::Runtime,
    stream: Stream,
    /// Held offers, and for how many tasks each has cpus.
    offers: BTreeMap<u64, usize>,
    launched: usize,
    master: Divvy,
    agent: Divvy,
    hostname: String,
    _dir: TempDir,
}

/// What became of a task, since its Accept.
#[derive(Default)]
struct Seen {
    running: Option<Duration>,
    ended: Option<Duration>,
}

impl Cluster {
    /// Starts one whose state is kept below `place`.
    pub fn start(name: &'static str, place: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("divvy-bench-").tempdir_in(place)?;
        let at = |option: &str, name: &str| format!("--{option}={}", dir.path().join(name).display());
        let listen = "--listen=127.0.0.1:0";
        // Offers are held while others are measured.
        let arguments = ["master", listen, &at("data-dir", "master"), "--offer-timeout=1h"];
        let master = Divvy::start(&arguments, dir.path())?;
        let address = format!("--master={}", master.url.trim_start_matches("http://"));
        let hostname = format!("{}-{}", name.replace([' ', ','], "-"), std::process::id());
        let named = format!("--hostname={hostname}");
        let arguments = ["agent", &address, listen, &at("work-dir", "agent"), &named, RESOURCES];
        let agent = Divvy::start(&arguments, dir.path())?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let stream = runtime.block_on(Stream::subscribe(&master.url, "bench-launch", "*"))?;
        let offers = BTreeMap::new();
        Ok(Self { name, runtime, stream, offers, launched: 0, master, agent, hostname, _dir: dir })
    }

    /// Of the master, the agent and its nursery, with all that the two have waited for: shims and containers.
    fn cpu(&self) -> Result<Duration> {
        let mut cpu = self.master.cpu()?.0 + self.agent.cpu()?.1;
        for child in self.agent.children()? {
            cpu += Divvy::cpu_of(child)?.1;
        }
        Ok(cpu)
    }
}

/// Runs so many tasks, never more than `width` at a time, and tells of each.
async fn run(
    stream: &mut Stream,
    offers: &mut BTreeMap<u64, usize>,
    first: usize,
    count: usize,
    width: usize,
) -> Result<Vec<Seen>> {
    let mut done = Vec::new();
    let mut in_flight: BTreeMap<String, (Instant, Seen)> = BTreeMap::new();
    let mut launched = 0;
    while done.len() < count {
        let free = (width - in_flight.len()).min(count - launched).min(offers.values().sum());
        if free > 0 {
            let ids: Vec<String> = (0..free).map(|more| format!("t{}", first + launched + more)).collect();
            launched += free;
            let tasks =
                ids.iter().map(|id| task(id.clone(), &crate::COMMAND, amount(CPUS_MILLIS, 64))).collect();
            let now = Instant::now();
            stream.call(accept(std::mem::take(offers).into_keys().collect(), tasks))?;
            in_flight.extend(ids.into_iter().map(|id| (id, (now, Seen::default()))));
        }
        match stream.event().await? {
            Event::Offers(new) => offers.extend(new.offers.iter().map(|offer| (offer.id, room_in(offer)))),
            Event::Rescind(rescind) => drop(offers.remove(&rescind.offer_id)),
            Event::Update(status) => {
                let now = Instant::now();
                acknowledge(&status).map(|body| stream.call(body)).transpose()?;
                let Some((begun, mut seen)) = in_flight.remove(&status.task_id) else { continue };
                note(&status, now - begun, &mut seen)?;
                match seen.ended {
                    Some(_) => done.push(seen),
                    None => drop(in_flight.insert(status.task_id, (begun, seen))),
                }
            }
            _ => {}
        }
    }
    Ok(done)
}

/// How many tasks an offer has cpus for.
fn room_in(offer: &pb::OfferInfo) -> usize {
    let millis = offer.resources.as_ref().map_or(0, |resources| resources.cpus_millis);
    usize::try_from(millis / CPUS_MILLIS).unwrap_or_default()
}

fn note(status: &pb::TaskStatus, after: Duration, seen: &mut Seen) -> Result<()> {
    match status.state() {
        pb::TaskState::Running => seen.running = Some(after),
        pb::TaskState::Finished => seen.ended = Some(after),
        state if is_terminal(state) => bail!("a task is {}: {}", state.as_str_name(), status.message),
        _ => {}
    }
    Ok(())
}

impl Subject for Cluster {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn sample(&mut self) -> Result<Sample> {
        let task = run(&mut self.stream, &mut self.offers, self.launched, 1, 1);
        let seen = self.runtime.block_on(task)?;
        self.launched += 1;
        let seen = seen.first().context("no task")?;
        Ok(Sample { running: seen.running, ended: seen.ended.context("no end")? })
    }

    fn parallel(&mut self, count: usize, width: usize) -> Result<Parallel> {
        let (cpu, begun) = (self.cpu()?, Instant::now());
        self.runtime.block_on(run(&mut self.stream, &mut self.offers, self.launched, count, width))?;
        self.launched += count;
        let time = begun.elapsed();
        settle(&self.hostname)?;
        Ok(Parallel { count, time, cpu: self.cpu()?.saturating_sub(cpu) })
    }

    fn finish(self: Box<Self>) -> Result<()> {
        let Self { runtime, stream, master, agent, hostname, _dir, .. } = *self;
        runtime.block_on(stream.tear_down())?;
        settle(&hostname)?;
        agent.stop()?;
        master.stop()?;
        remove_cgroups(&hostname);
        Ok(())
    }
}

/// Waits until the agent has removed all containers, so that their cost is counted and the next subject is alone.
fn settle(hostname: &str) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(20);
    while groups(hostname).iter().any(|group| has_children(group)) {
        if Instant::now() > end {
            bail!("containers of the agent are still there");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// The agent's own cgroups, in every hierarchy.
fn groups(hostname: &str) -> Vec<std::path::PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let trees = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    let parents = trees.chain([root.to_owned()]).map(|tree| tree.join("divvy"));
    let groups = parents.flat_map(|parent| fs::read_dir(parent).into_iter().flatten().flatten());
    let ours =
        groups.filter(|group| group.file_name().to_string_lossy().starts_with(&format!("{hostname}-")));
    ours.map(|group| group.path()).collect()
}

fn has_children(group: &Path) -> bool {
    fs::read_dir(group).into_iter().flatten().flatten().any(|entry| entry.path().is_dir())
}

/// An agent leaves its own cgroup for the next start; here there is none.
fn remove_cgroups(hostname: &str) {
    for group in groups(hostname) {
        // What is in use stays, and is seen.
        if let Err(error) = fs::remove_dir(&group) {
            eprintln!("left behind: {}: {error}", group.display());
        }
    }
}
