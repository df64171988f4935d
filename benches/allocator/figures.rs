//! What was measured: times of steps, by scenario and size.

use std::ops::Add;
use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::{common, mesos};

/// Time on the clock, and processor time of this thread.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spent {
    pub wall: Duration,
    pub cpu: Duration,
}

pub struct Begun {
    wall: Instant,
    cpu: Duration,
}

impl Spent {
    pub fn begin() -> Begun {
        Begun { cpu: thread_time(), wall: Instant::now() }
    }
}

impl Begun {
    pub fn end(self) -> Spent {
        let wall = self.wall.elapsed();
        Spent { wall, cpu: thread_time().saturating_sub(self.cpu) }
    }
}

impl Add for Spent {
    type Output = Self;
    fn add(self, more: Self) -> Self {
        Self { wall: self.wall + more.wall, cpu: self.cpu + more.cpu }
    }
}

impl std::iter::Sum for Spent {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}

fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists on every Linux, and `time` is written by the call and read after it.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// How large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Size {
    pub agents: usize,
    pub frameworks: usize,
    pub roles: usize,
}

pub const fn size(agents: usize, frameworks: usize, roles: usize) -> Size {
    Size { agents, frameworks, roles }
}

/// One step of one scenario at one size.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    pub scenario: String,
    pub size: Size,
    pub step: String,
    /// How often it was done.
    pub repetitions: usize,
    /// What one repetition consists of: offers, calls, or agents.
    pub items: u64,
    pub median_us: f64,
    pub worst_us: f64,
    /// Processor time, the median.
    pub cpu_us: f64,
    /// Of latencies only.
    pub p99_us: Option<f64>,
    /// What Mesos's allocator needs for the same step, elsewhere: see `mesos.rs`.
    pub mesos_cpu_us: Option<f64>,
    /// What the floor needs for as many items, measured here.
    pub floor_us: Option<f64>,
}

impl Row {
    pub fn per_item_us(&self) -> f64 {
        self.cpu_us / self.items.max(1) as f64
    }
}

/// Any other number: a count of rounds, bytes of memory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fact {
    pub scenario: String,
    pub size: Size,
    pub what: String,
    pub value: f64,
    pub target: Option<f64>,
}

/// All that was measured.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Book {
    pub rows: Vec<Row>,
    pub facts: Vec<Fact>,
}

impl Book {
    /// A step that was repeated, each time with so many items.
    pub fn record(&mut self, scenario: &str, size: Size, step: &str, items: u64, all: &[Spent]) {
        // A full run takes minutes, and its tables come last.
        eprintln!("{scenario} {}: {step}", show_size(size));
        let mut wall: Vec<f64> = all.iter().map(|spent| micros(spent.wall)).collect();
        let mut cpu: Vec<f64> = all.iter().map(|spent| micros(spent.cpu)).collect();
        wall.sort_by(f64::total_cmp);
        cpu.sort_by(f64::total_cmp);
        let middle = |sorted: &[f64]| sorted.get(sorted.len() / 2).copied().unwrap_or_default();
        self.rows.push(Row {
            scenario: scenario.to_owned(),
            size,
            step: step.to_owned(),
            repetitions: all.len(),
            items,
            median_us: middle(&wall),
            worst_us: wall.last().copied().unwrap_or_default(),
            cpu_us: middle(&cpu),
            p99_us: None,
            mesos_cpu_us: mesos::cpu_us(scenario, size, step),
            floor_us: None,
        });
    }

    /// Latencies of single events, each measured on the clock alone.
    pub fn record_latencies(
        &mut self,
        scenario: &str,
        size: Size,
        step: &str,
        all: &[Duration],
    ) -> Result<()> {
        let mut histogram = Histogram::<u64>::new(3)?;
        for time in all {
            histogram.record(u64::try_from(time.as_nanos())?)?;
        }
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        self.rows.push(Row {
            scenario: scenario.to_owned(),
            size,
            step: step.to_owned(),
            repetitions: all.len(),
            items: 1,
            median_us: at(0.5),
            worst_us: histogram.max() as f64 / 1e3,
            cpu_us: at(0.5),
            p99_us: Some(at(0.99)),
            mesos_cpu_us: mesos::cpu_us(scenario, size, step),
            floor_us: None,
        });
        Ok(())
    }

    /// Notes what the floor needs for what the last row did.
    pub fn against(&mut self, floor: Duration) {
        self.rows.last_mut().into_iter().for_each(|row| row.floor_us = Some(micros(floor)));
    }

    pub fn fact(&mut self, scenario: &str, size: Size, what: &str, value: f64, target: Option<f64>) {
        let (scenario, what) = (scenario.to_owned(), what.to_owned());
        self.facts.push(Fact { scenario, size, what, value, target });
    }

    /// How many times more an item of this row costs than one of the smallest cluster with as many frameworks and roles.
    fn growth(&self, row: &Row) -> Option<f64> {
        let alike = |other: &&Row| {
            (&other.scenario, &other.step) == (&row.scenario, &row.step)
                && (other.size.frameworks, other.size.roles) == (row.size.frameworks, row.size.roles)
        };
        let smallest = self.rows.iter().filter(alike).min_by_key(|other| other.size)?;
        let is_smaller = smallest.size.agents < row.size.agents && smallest.per_item_us() > 0.0;
        is_smaller.then(|| row.per_item_us() / smallest.per_item_us())
    }

    pub fn print(&self) {
        let mut scenarios: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !scenarios.contains(&row.scenario.as_str()) {
                scenarios.push(&row.scenario);
            }
        }
        for scenario in scenarios {
            let rows = self.rows.iter().filter(|row| row.scenario == scenario);
            let header = [
                "agents/frameworks/roles",
                "step",
                "n",
                "items",
                "median",
                "p99",
                "worst",
                "CPU/item",
                "growth",
                "Mesos",
                "Mesos/ours",
                "ours/floor",
            ];
            common::print_table(scenario, header, rows.map(|row| self.show(row)));
        }
        let facts = self.facts.iter().map(|fact| {
            let target = fact.target.map(|target| format!("{target}")).unwrap_or_default();
            [
                fact.scenario.clone(),
                show_size(fact.size),
                fact.what.clone(),
                format!("{:.2}", fact.value),
                target,
            ]
        });
        common::print_table(
            "Counts and memory",
            ["scenario", "agents/frameworks/roles", "what", "is", "target"],
            facts,
        );
    }

    fn show(&self, row: &Row) -> [String; 12] {
        let times = |factor: Option<f64>| factor.map(|factor| format!("{factor:.1}x")).unwrap_or_default();
        [
            show_size(row.size),
            row.step.clone(),
            row.repetitions.to_string(),
            row.items.to_string(),
            show_micros(row.median_us),
            row.p99_us.map(show_micros).unwrap_or_default(),
            show_micros(row.worst_us),
            show_micros(row.per_item_us()),
            times(self.growth(row)),
            row.mesos_cpu_us.map(show_micros).unwrap_or_default(),
            times(row.mesos_cpu_us.map(|mesos| mesos / row.cpu_us)),
            times(row.floor_us.map(|floor| row.cpu_us / floor)),
        ]
    }

    /// Prints how this compares with figures that an earlier commit got on the same machine.
    pub fn compare(&self, before: &Self) {
        let rows = self.rows.iter().filter_map(|row| {
            let old = before
                .rows
                .iter()
                .find(|old| (&old.scenario, old.size, &old.step) == (&row.scenario, row.size, &row.step))?;
            let ratio = row.cpu_us / old.cpu_us;
            let verdict = match ratio {
                ratio if ratio < 0.9 => "faster",
                ratio if ratio > 1.1 => "slower",
                _ => "",
            };
            Some([
                row.scenario.clone(),
                show_size(row.size),
                row.step.clone(),
                show_micros(old.cpu_us),
                show_micros(row.cpu_us),
                format!("{ratio:.2}x"),
                verdict.to_owned(),
            ])
        });
        let header = ["scenario", "agents/frameworks/roles", "step", "before", "now", "now/before", ""];
        common::print_table("Against the earlier figures (processor time, medians)", header, rows);
    }
}

fn show_size(size: Size) -> String {
    format!("{}/{}/{}", size.agents, size.frameworks, size.roles)
}

pub fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn show_micros(value: f64) -> String {
    match value {
        value if value < 1.0 => format!("{:.0} ns", value * 1e3),
        value if value < 1e3 => format!("{value:.2} us"),
        value if value < 1e6 => format!("{:.2} ms", value / 1e3),
        value => format!("{:.2} s", value / 1e6),
    }
}
