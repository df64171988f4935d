//! What is printed and written of the launch bench.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::WIDTH;
use crate::common::{Latency, latency, millis, per_second, print_table, ratio};
use crate::subject::Figures;

/// The subject that is compared with all others.
pub const DIVVY: &str = "divvy";

/// One line.
#[derive(Debug, Serialize)]
struct Line {
    name: String,
    /// Until it is known to run. Of an OCI runtime: `run --detach` of a `sleep`.
    running: Option<Latency>,
    /// Start, run, exit.
    ended: Option<Latency>,
    /// Width 8, over all rounds.
    parallel_per_second: f64,
    /// Of each container, side by side; 0 where no process is started.
    cpu_ms: f64,
}

/// All lines.
#[derive(Debug, Serialize)]
pub struct Summary {
    command: [&'static str; 2],
    width: usize,
    lines: Vec<Line>,
}

impl Summary {
    pub fn of(figures: Vec<Figures>) -> Result<Self> {
        let lines = figures.into_iter().map(line).collect::<Result<_>>()?;
        Ok(Self { command: crate::COMMAND, width: WIDTH, lines })
    }

    pub fn print(&self, missing: &[String]) {
        let title = "Start `busybox true`, ms (running: Accept to RUNNING, `run --detach`; ended: to FINISHED, to the end of `run`)";
        let header = [
            "subject",
            "n",
            "running p50",
            "p90",
            "p99",
            "max",
            "ended p50",
            "p90",
            "p99",
            "max",
            "8-way /s",
            "CPU",
        ];
        print_table(title, header, self.lines.iter().map(Line::row));
        let header = ["divvy as a ratio to", "running p50", "ended p50", "8-way /s", "CPU"];
        let Some(divvy) = self.lines.iter().find(|line| line.name == DIVVY) else { return };
        let others = self.lines.iter().filter(|line| line.name != divvy.name);
        print_table(
            "Divvy / other (times and CPU: less is better)",
            header,
            others.map(|line| divvy.against(line)),
        );
        for runtime in missing {
            println!("{runtime}");
        }
    }
}

fn line(figures: Figures) -> Result<Line> {
    let count: usize = figures.parallel.iter().map(|parallel| parallel.count).sum();
    let time: Duration = figures.parallel.iter().map(|parallel| parallel.time).sum();
    let cpu: Duration = figures.parallel.iter().map(|parallel| parallel.cpu).sum();
    Ok(Line {
        name: figures.name,
        running: latency(&figures.running)?,
        ended: latency(&figures.ended)?,
        parallel_per_second: per_second(u64::try_from(count)?, time),
        cpu_ms: cpu.as_secs_f64() * 1e3 / count as f64,
    })
}

fn columns(latency: Option<&Latency>) -> [String; 4] {
    let show = |value: fn(&Latency) -> f64| latency.map(value).map(millis).unwrap_or_default();
    [show(|l| l.p50_ms), show(|l| l.p90_ms), show(|l| l.p99_ms), show(|l| l.max_ms)]
}

impl Line {
    fn row(&self) -> [String; 12] {
        let count = self.ended.as_ref().map_or(0, |ended| ended.count);
        let [r50, r90, r99, rmax] = columns(self.running.as_ref());
        let [e50, e90, e99, emax] = columns(self.ended.as_ref());
        let (rate, cpu) = (
            format!("{:.0}", self.parallel_per_second),
            if self.cpu_ms > 0.0 { millis(self.cpu_ms) } else { String::new() },
        );
        [self.name.clone(), count.to_string(), r50, r90, r99, rmax, e50, e90, e99, emax, rate, cpu]
    }

    fn against(&self, other: &Self) -> [String; 5] {
        let p50 = |latency: &Option<Latency>| latency.as_ref().map(|latency| latency.p50_ms);
        [
            other.name.clone(),
            ratio(p50(&self.running), p50(&other.running)),
            ratio(p50(&self.ended), p50(&other.ended)),
            ratio(Some(self.parallel_per_second), Some(other.parallel_per_second)),
            ratio(Some(self.cpu_ms), Some(other.cpu_ms)),
        ]
    }
}
