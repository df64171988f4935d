//! The phases of the bench, each on the cluster that the one before has left idle.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use divvy_proto::pb;
use divvy_proto::pb::call::Body;
use divvy_proto::pb::event::Event;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::Scale;
use crate::agents::{self, CPUS, MEM};
use crate::common::{Divvy, Stream, accept, acknowledge, amount, task};
use crate::counters::{Counters, Counts};
use crate::echo::{self, Peer};
use crate::frameworks::{Framework, Habit};

/// Nothing that is waited for takes longer.
const DEADLINE: Duration = Duration::from_secs(60);

/// A phase that runs for a while: counts and processor time of the server between its two ends.
#[derive(Debug, Clone)]
pub struct Window {
    pub phase: &'static str,
    pub time: Duration,
    pub from: Counts,
    pub to: Counts,
    pub cpu: Duration,
    /// From the end of a task to the next offer of its agent, where one task fills an agent.
    pub latencies: Vec<Duration>,
}

/// All that was measured.
#[derive(Debug, Default)]
pub struct Figures {
    pub registration: Duration,
    pub registration_cpu: Duration,
    pub windows: Vec<Window>,
    /// Messages over the bare library, the time, and its server's processor time.
    pub echoes: Vec<(u64, Duration, Duration)>,
    /// One message there and back over the bare library.
    pub echo_round_trips: Vec<Duration>,
    /// One call and its reply.
    pub round_trips: Vec<Duration>,
    /// From the end of the only task that runs to the next offer.
    pub idle_latencies: Vec<Duration>,
    /// Resident KiB of the master: before the agents came, when they were registered, at most.
    pub memory_before: u64,
    pub memory_registered: u64,
    pub memory_peak: u64,
}

pub async fn all(master: &Divvy, echo: &Divvy, scale: Scale) -> Result<Figures> {
    let mut figures = Figures { memory_before: master.memory()?.0, ..Figures::default() };
    let counters = Arc::new(Counters::new(scale.agents));
    let (cpu, begun) = (master.cpu()?.0, Instant::now());
    let mut agents = agents::start(&master.url, scale.agents, &counters);
    until(&mut agents, || counters.registered.get() == scale.agents as u64).await.context("registration")?;
    figures.registration = begun.elapsed();
    figures.registration_cpu = master.cpu()?.0.saturating_sub(cpu);
    figures.memory_registered = master.memory()?.0;
    let mut peers = Vec::new();
    for _ in 0..scale.agents {
        peers.push(Peer::connect(&echo.url).await?);
    }
    let measured = tokio::select! {
        measured = rounds(master, echo, scale, &counters, &mut peers, &mut figures) => measured,
        ended = agents.join_next() => bail!("an agent has ended: {ended:?}"),
    };
    measured?;
    figures.memory_peak = master.memory()?.1;
    Ok(figures)
}

/// All phases in turn, again and again, so that what disturbs hits all alike.
async fn rounds(
    master: &Divvy,
    echo: &Divvy,
    scale: Scale,
    counters: &Arc<Counters>,
    peers: &mut Vec<Peer>,
    figures: &mut Figures,
) -> Result<()> {
    let phases = [
        ("offer + decline", 1, Habit::Decline),
        ("lives, 1 task fills an agent", scale.frameworks, Habit::Launch { per_agent: 1 }),
        ("lives, 10 tasks fill an agent", scale.frameworks, Habit::Launch { per_agent: 10 }),
    ];
    for round in 0..scale.rounds {
        let cpu = echo.cpu()?.0;
        let (messages, time) = echo::all_at_once(peers, Duration::from_millis(scale.measured_ms / 2)).await?;
        figures.echoes.push((messages, time, echo.cpu()?.0.saturating_sub(cpu)));
        for (phase, frameworks, habit) in phases {
            let names = (0..frameworks).map(|number| format!("{}-{round}-{number}", phase_name(habit)));
            figures.windows.push(run(master, scale, counters, phase, names.collect(), habit).await?);
        }
        let samples = scale.samples / scale.rounds;
        let peer = peers.first_mut().context("no peer")?;
        for _ in 0..samples {
            figures.echo_round_trips.push(peer.round_trip().await?);
        }
        one_at_a_time(master, counters, round, samples, figures).await?;
    }
    Ok(())
}

fn phase_name(habit: Habit) -> String {
    match habit {
        Habit::Decline => "decline".to_owned(),
        Habit::Launch { per_agent } => format!("launch{per_agent}"),
    }
}

/// Waits for a condition; an agent that ends meanwhile is an error.
async fn until(agents: &mut JoinSet<Result<()>>, condition: impl Fn() -> bool) -> Result<()> {
    let condition = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        () = condition => Ok(()),
        ended = agents.join_next() => bail!("an agent has ended: {ended:?}"),
        () = tokio::time::sleep(DEADLINE) => bail!("not within {DEADLINE:?}"),
    }
}

/// Lets frameworks live out their habit, and counts for a while.
async fn run(
    master: &Divvy,
    scale: Scale,
    counters: &Arc<Counters>,
    phase: &'static str,
    names: Vec<String>,
    habit: Habit,
) -> Result<Window> {
    let (stop, stopped) = watch::channel(false);
    let mut frameworks = JoinSet::new();
    for name in names {
        let framework = Framework::subscribe(&master.url, name, habit, counters.clone()).await?;
        frameworks.spawn(framework.run(stopped.clone()));
    }
    let window = async {
        tokio::time::sleep(Duration::from_millis(scale.warm_ms)).await;
        drop(counters.take_latencies());
        let (from, cpu) = (counters.now(), master.cpu()?.0);
        tokio::time::sleep(Duration::from_millis(scale.measured_ms)).await;
        let (to, cpu) = (counters.now(), master.cpu()?.0.saturating_sub(cpu));
        let mut latencies = counters.take_latencies();
        if habit != (Habit::Launch { per_agent: 1 }) {
            latencies.clear();
        }
        Ok::<_, anyhow::Error>(Window { phase, time: to.at - from.at, from, to, cpu, latencies })
    };
    let window = tokio::select! {
        window = window => window?,
        ended = frameworks.join_next() => bail!("{phase}: a framework has ended: {ended:?}"),
    };
    stop.send(true)?;
    while let Some(ended) = frameworks.join_next().await {
        ended?.with_context(|| phase.to_owned())?;
    }
    Ok(window)
}

/// A cluster at rest, and one thing at a time: calls that change nothing, and tasks that each need the offer of the last.
async fn one_at_a_time(
    master: &Divvy,
    counters: &Counters,
    round: usize,
    samples: usize,
    figures: &mut Figures,
) -> Result<()> {
    let mut stream = Stream::subscribe(&master.url, "one", "bench/one").await?;
    // All other offers are held, so that only this agent's come and go.
    let mut offer = loop {
        if let Event::Offers(offers) = stream.event().await?
            && let Some(offer) = offers.offers.into_iter().next()
        {
            break offer;
        }
    };
    for _ in 0..samples {
        let begun = Instant::now();
        // It changes nothing: there are no filters, and nothing is free.
        stream.call(Body::Revive(pb::Revive { roles: Vec::new() }))?;
        while !matches!(stream.event().await?, Event::Reply(_)) {}
        figures.round_trips.push(begun.elapsed());
    }
    drop(counters.take_latencies());
    for number in 0..samples {
        let launched = task(format!("one-{round}-{number}"), &["true"], amount(CPUS, MEM));
        stream.call(accept(vec![offer.id], vec![launched]))?;
        offer = next_offer(&mut stream, counters, &offer.hostname).await?;
    }
    figures.idle_latencies.extend(counters.take_latencies());
    stream.tear_down().await
}

/// Sees one task to its end, and takes what it held.
async fn next_offer(stream: &mut Stream, counters: &Counters, hostname: &str) -> Result<pb::OfferInfo> {
    let (mut offer, mut finished) = (None, false);
    loop {
        match stream.event().await? {
            Event::Offers(offers) => {
                offer = offers.offers.into_iter().find(|offer| offer.hostname == hostname).or(offer);
                counters.offered(offer.as_ref().map_or("", |offer| &offer.hostname));
            }
            Event::Update(status) => {
                finished |= status.state() == pb::TaskState::Finished;
                acknowledge(&status).map(|body| stream.call(body)).transpose()?;
            }
            _ => {}
        }
        if finished && let Some(offer) = offer.take() {
            return Ok(offer);
        }
    }
}
