//! What can start a command, and what was seen of it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// Something that starts the command in its own way and waits for its end.
pub trait Subject {
    /// What it is, with its version where that matters.
    fn name(&self) -> String;
    /// One at a time.
    fn sample(&mut self) -> Result<Sample>;
    /// So many, never more than `width` at a time.
    fn parallel(&mut self, count: usize, width: usize) -> Result<Parallel>;
    /// Removes what it has made.
    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// One start of the command.
pub struct Sample {
    /// Until it was known to run; none where nobody says so.
    pub running: Option<Duration>,
    /// Until its end was known.
    pub ended: Duration,
}

/// Many, side by side.
pub struct Parallel {
    pub count: usize,
    pub time: Duration,
    /// Of the processes that start, keep and are the containers; not of the bench.
    pub cpu: Duration,
}

/// All that was seen of a subject.
pub struct Figures {
    pub name: String,
    pub running: Vec<Duration>,
    pub ended: Vec<Duration>,
    pub parallel: Vec<Parallel>,
}

impl Figures {
    pub fn of(name: String) -> Self {
        Self { name, running: Vec::new(), ended: Vec::new(), parallel: Vec::new() }
    }

    pub fn add(&mut self, sample: Sample) {
        self.running.extend(sample.running);
        self.ended.push(sample.ended);
    }

    pub fn add_parallel(&mut self, parallel: Parallel) {
        self.parallel.push(parallel);
    }
}

/// Runs something that blocks on `width` threads until it has run `count` times. Its processor time is that of the children.
pub fn on_threads(count: usize, width: usize, once: impl Fn() -> Result<()> + Sync) -> Result<Parallel> {
    let (next, cpu, begun) = (AtomicUsize::new(0), cpu_of_children()?, Instant::now());
    let work = || -> Result<()> {
        while next.fetch_add(1, Ordering::Relaxed) < count {
            once()?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..width).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread has panicked"))?)
    })?;
    Ok(Parallel { count, time: begun.elapsed(), cpu: cpu_of_children()?.saturating_sub(cpu) })
}

/// Processor time of all children of this process that were waited for.
fn cpu_of_children() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("getrusage")?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(u64::try_from(micros)?))
}
