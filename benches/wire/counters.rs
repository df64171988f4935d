//! What was seen on all streams so far, from the side of the agents and frameworks.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One thing that is counted.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Shared by all simulated peers.
#[derive(Debug)]
pub struct Counters {
    /// Agents that are registered.
    pub registered: Counter,
    /// Offers that frameworks received; one message may carry many.
    pub offers: Counter,
    /// Accepts that frameworks sent; one that is refused ends the bench.
    pub accepts: Counter,
    /// Updates that frameworks received.
    pub updates: Counter,
    /// Tasks whose last acknowledgement has reached their agent.
    pub lives: Counter,
    /// Messages that the master received and sent; offers in one message are one.
    pub messages: Counter,
    epoch: Instant,
    /// When each agent last sent that a task has finished, in nanoseconds since `epoch`; 0 if an offer has come since.
    freed: Vec<AtomicU64>,
    /// From such an end to the next offer of the agent.
    latencies: Mutex<Vec<Duration>>,
}

/// Counts at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Counts {
    pub at: Instant,
    pub offers: u64,
    pub accepts: u64,
    pub updates: u64,
    pub lives: u64,
    pub messages: u64,
}

impl Counters {
    pub fn new(agents: usize) -> Self {
        Self {
            registered: Counter::default(),
            offers: Counter::default(),
            accepts: Counter::default(),
            updates: Counter::default(),
            lives: Counter::default(),
            messages: Counter::default(),
            epoch: Instant::now(),
            freed: (0..agents).map(|_| AtomicU64::new(0)).collect(),
            latencies: Mutex::default(),
        }
    }

    pub fn now(&self) -> Counts {
        Counts {
            at: Instant::now(),
            offers: self.offers.get(),
            accepts: self.accepts.get(),
            updates: self.updates.get(),
            lives: self.lives.get(),
            messages: self.messages.get(),
        }
    }

    /// An agent is about to send that a task has finished.
    pub fn freed(&self, agent: usize) {
        if let (Some(freed), Ok(now)) =
            (self.freed.get(agent), u64::try_from(self.epoch.elapsed().as_nanos()))
        {
            freed.store(now, Ordering::Relaxed);
        }
    }

    /// An offer has come; `sim-17` is the 17th agent.
    pub fn offered(&self, hostname: &str) {
        let agent = hostname.strip_prefix("sim-").and_then(|number| number.parse::<usize>().ok());
        let freed =
            agent.and_then(|agent| self.freed.get(agent)).map_or(0, |freed| freed.swap(0, Ordering::Relaxed));
        if freed > 0
            && let Ok(mut latencies) = self.latencies.lock()
        {
            latencies.push(self.epoch.elapsed().saturating_sub(Duration::from_nanos(freed)));
        }
    }

    /// What was noted since the last call.
    pub fn take_latencies(&self) -> Vec<Duration> {
        self.latencies.lock().map(|mut latencies| std::mem::take(&mut *latencies)).unwrap_or_default()
    }
}
