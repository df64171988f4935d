//! What the agent counts, in the text format of Prometheus.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counters of one agent.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) registered: AtomicBool,
    pub(crate) launches: AtomicU64,
    pub(crate) launch_failures: AtomicU64,
    pub(crate) exits: AtomicU64,
    pub(crate) updates_sent: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
}

impl Metrics {
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// All of them, and how many tasks have a container.
    pub(crate) fn render(&self, containers: usize) -> String {
        let mut text = String::new();
        let registered = u64::from(self.registered.load(Ordering::Relaxed));
        let gauges = [
            ("registered", "Whether a master has accepted this agent and talks to it.", registered),
            ("containers", "Tasks that have a container.", containers as u64),
        ];
        for (name, help, value) in gauges {
            line(&mut text, "gauge", name, help, value);
        }
        let counters = [
            ("launches_total", "Containers whose program was executed.", &self.launches),
            ("launch_failures_total", "Containers that could not be made.", &self.launch_failures),
            ("exits_total", "Containers whose first process ended.", &self.exits),
            ("updates_sent_total", "Status updates sent, repetitions included.", &self.updates_sent),
            ("checkpoints_total", "Records written to disk.", &self.checkpoints),
        ];
        for (name, help, value) in counters {
            line(&mut text, "counter", name, help, value.load(Ordering::Relaxed));
        }
        text
    }
}

fn line(text: &mut String, kind: &str, name: &str, help: &str, value: u64) {
    // Writing into a String cannot fail.
    let _ = writeln!(
        text,
        "# HELP divvy_agent_{name} {help}\n# TYPE divvy_agent_{name} {kind}\ndivvy_agent_{name} {value}"
    );
}
