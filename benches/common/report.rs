//! Figures for people (tables) and programs (JSON), with the conditions under which they were taken.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde::Serialize;

use super::Mode;

/// Under which conditions figures were taken. Without them they say nothing.
#[derive(Debug, Serialize)]
pub struct Conditions {
    /// `quick` figures only show that the bench works.
    mode: &'static str,
    profile: &'static str,
    divvy: &'static str,
    kernel: String,
    cpu: String,
    cores: usize,
    cgroups: &'static str,
    /// Load averages of the machine before and after; other work disturbs, so that ratios mean more than absolutes.
    load_before: String,
    load_after: String,
    date: String,
}

impl Conditions {
    /// Notes the conditions before the first measurement.
    pub fn note(mode: Mode) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        Self {
            mode: mode.pick("full", "quick"),
            profile: if cfg!(debug_assertions) { "debug" } else { "release" },
            divvy: env!("CARGO_PKG_VERSION"),
            kernel: read("/proc/sys/kernel/osrelease"),
            cpu: model.map_or("unknown", |(_, model)| model).to_owned(),
            cores: std::thread::available_parallelism().map_or(0, Into::into),
            cgroups: if unified { "v2" } else { "v1" },
            load_before: read("/proc/loadavg"),
            load_after: String::new(),
            date: humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string(),
        }
    }

    /// Notes the load after the last measurement, and prints all.
    pub fn finish(&mut self) {
        self.load_after = fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned();
        println!(
            "\n{} cores of {}, Linux {}, cgroups {}, divvy {} ({}, {}), {}\nload before {}, after {}",
            self.cores,
            self.cpu,
            self.kernel,
            self.cgroups,
            self.divvy,
            self.profile,
            self.mode,
            self.date,
            self.load_before,
            self.load_after
        );
        println!(
            "Other work on the machine moves absolute figures; the ratios are of subjects measured in turn."
        );
    }
}

/// A distribution of times in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Latency {
    pub count: u64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

/// The distribution of some times; none of no times.
pub fn latency(times: &[Duration]) -> Result<Option<Latency>> {
    let mut histogram = Histogram::<u64>::new(3)?;
    for time in times {
        histogram.record(u64::try_from(time.as_nanos())?)?;
    }
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e6;
    let summary = || Latency {
        count: histogram.len(),
        p50_ms: at(0.5),
        p90_ms: at(0.9),
        p99_ms: at(0.99),
        max_ms: histogram.max() as f64 / 1e6,
    };
    Ok((!times.is_empty()).then(summary))
}

/// How many in a second.
pub fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

/// Milliseconds for people: three digits that count.
pub fn millis(value: f64) -> String {
    match value {
        value if value < 1.0 => format!("{value:.3}"),
        value if value < 10.0 => format!("{value:.2}"),
        value if value < 100.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

/// How many times `base`; a dash where one was not measured.
pub fn ratio(value: Option<f64>, base: Option<f64>) -> String {
    match (value, base) {
        (Some(value), Some(base)) if base > 0.0 => format!("{:.2}x", value / base),
        _ => "-".to_owned(),
    }
}

/// Prints a table with a title.
pub fn print_table<const N: usize>(
    title: &str,
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) {
    println!("\n{title}\n{}", divvy_sdk::cli::table(header, rows));
}

/// Writes `target/bench/NAME.json`; a quick run does not replace the figures of a full one.
pub fn write_json(name: &str, mode: Mode, report: &impl Serialize) -> Result<()> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let path = dir.join(format!("{name}{}.json", mode.pick("", "-quick")));
    fs::write(&path, serde_json::to_string_pretty(report)? + "\n")
        .with_context(|| path.display().to_string())?;
    println!("\nwritten: {}", path.display());
    Ok(())
}
