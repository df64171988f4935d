//! What is printed and written of the wire bench.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::Scale;
use crate::common::{Latency, latency, millis, per_second, print_table, ratio};
use crate::phases::{Figures, Window};

/// A phase over all rounds.
#[derive(Debug, Serialize)]
struct Phase {
    phase: &'static str,
    offers_per_second: f64,
    accepts_per_second: f64,
    updates_per_second: f64,
    /// Offer, accept, launch, RUNNING, FINISHED, both acknowledged.
    lives_per_second: f64,
    /// Received and sent by the master.
    messages_per_second: f64,
    /// Lives per second in each round: how steady it was.
    lives_per_second_by_round: Vec<f64>,
    master_cpu_us_per_message: f64,
    /// Of a life, or of an offer where there are none.
    master_cpu_us_each: f64,
    /// Of one core.
    master_cpu_percent: f64,
}

/// A server that does nothing, over all rounds.
#[derive(Debug, Serialize)]
struct Floor {
    messages_per_second: f64,
    cpu_us_per_message: f64,
    cpu_percent: f64,
    round_trip: Option<Latency>,
}

#[derive(Debug, Serialize)]
struct Registration {
    seconds: f64,
    per_second: f64,
    master_cpu_us_each: f64,
    master_rss_kib_each: f64,
}

#[derive(Debug, Serialize)]
pub struct Summary {
    registration: Registration,
    floor: Floor,
    phases: Vec<Phase>,
    call_and_reply: Option<Latency>,
    freed_to_offer_idle: Option<Latency>,
    freed_to_offer_loaded: Option<Latency>,
    master_rss_kib: [u64; 3],
}

impl Summary {
    pub fn of(figures: Figures, scale: Scale) -> Result<Self> {
        let agents = scale.agents as f64;
        let grown = figures.memory_registered.saturating_sub(figures.memory_before);
        let registration = Registration {
            seconds: figures.registration.as_secs_f64(),
            per_second: per_second(u64::try_from(scale.agents)?, figures.registration),
            master_cpu_us_each: micros(figures.registration_cpu) / agents,
            master_rss_kib_each: grown as f64 / agents,
        };
        let loaded: Vec<Duration> =
            figures.windows.iter().flat_map(|window| window.latencies.clone()).collect();
        let mut names: Vec<&'static str> = Vec::new();
        for window in &figures.windows {
            if !names.contains(&window.phase) {
                names.push(window.phase);
            }
        }
        let of_phase = |name| figures.windows.iter().filter(|window| window.phase == name).collect();
        Ok(Self {
            registration,
            floor: floor(&figures)?,
            phases: names.into_iter().map(|name| phase(name, of_phase(name))).collect(),
            call_and_reply: latency(&figures.round_trips)?,
            freed_to_offer_idle: latency(&figures.idle_latencies)?,
            freed_to_offer_loaded: latency(&loaded)?,
            master_rss_kib: [figures.memory_before, figures.memory_registered, figures.memory_peak],
        })
    }

    pub fn print(&self) {
        self.print_rates();
        self.print_ratios();
        self.print_latencies();
        let registration = &self.registration;
        println!(
            "\nregistration: {:.0} agents/s ({:.2} s in all), {:.0} us of the master's CPU each",
            registration.per_second, registration.seconds, registration.master_cpu_us_each
        );
        let [before, registered, peak] = self.master_rss_kib;
        println!(
            "master's resident memory: {before} KiB empty, {registered} KiB registered ({:.0} KiB an agent), {peak} KiB at most",
            registration.master_rss_kib_each
        );
    }

    fn print_rates(&self) {
        let header = [
            "per second",
            "offers",
            "accepts",
            "updates",
            "lives",
            "messages",
            "CPU us/msg",
            "us each",
            "CPU %",
        ];
        let floor = [
            "floor: bare tonic echo".to_owned(),
            String::new(),
            String::new(),
            String::new(),
            String::new(),
            format!("{:.0}", self.floor.messages_per_second),
            format!("{:.1}", self.floor.cpu_us_per_message),
            String::new(),
            format!("{:.0}", self.floor.cpu_percent),
        ];
        let rows = self.phases.iter().map(Phase::row);
        print_table(
            "Rates over the wire (each: per life, or per offer; CPU: of the server)",
            header,
            rows.chain([floor]),
        );
    }

    fn print_ratios(&self) {
        let header = ["as a ratio to the floor", "messages/s", "CPU per message"];
        // A decline is one message for hundreds of offers: not comparable.
        let lives = self.phases.iter().filter(|phase| phase.lives_per_second > 0.0);
        let rows = lives.map(|phase| {
            let messages = ratio(Some(phase.messages_per_second), Some(self.floor.messages_per_second));
            let cpu = ratio(Some(phase.master_cpu_us_per_message), Some(self.floor.cpu_us_per_message));
            [phase.phase.to_owned(), messages, cpu]
        });
        print_table("Against a server that does nothing", header, rows);
    }

    fn print_latencies(&self) {
        let row = |name: &str, latency: &Option<Latency>| {
            let show =
                |value: fn(&Latency) -> f64| latency.as_ref().map(value).map(millis).unwrap_or_default();
            let base = self.floor.round_trip.as_ref().map(|latency| latency.p50_ms);
            let count = latency.as_ref().map_or(0, |latency| latency.count).to_string();
            let against = ratio(latency.as_ref().map(|latency| latency.p50_ms), base);
            [
                name.to_owned(),
                count,
                show(|l| l.p50_ms),
                show(|l| l.p90_ms),
                show(|l| l.p99_ms),
                show(|l| l.max_ms),
                against,
            ]
        };
        let rows = [
            row("floor: echo, there and back", &self.floor.round_trip),
            row("call to reply, cluster at rest", &self.call_and_reply),
            row("FINISHED sent to next offer received, at rest", &self.freed_to_offer_idle),
            row("the same with every agent in that cycle", &self.freed_to_offer_loaded),
        ];
        print_table("Latency, ms", ["", "n", "p50", "p90", "p99", "max", "p50 / floor"], rows);
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn floor(figures: &Figures) -> Result<Floor> {
    let messages: u64 = figures.echoes.iter().map(|(messages, ..)| messages).sum();
    let time: Duration = figures.echoes.iter().map(|(_, time, _)| *time).sum();
    let cpu: Duration = figures.echoes.iter().map(|(.., cpu)| *cpu).sum();
    Ok(Floor {
        messages_per_second: per_second(messages, time),
        cpu_us_per_message: micros(cpu) / messages as f64,
        cpu_percent: cpu.as_secs_f64() / time.as_secs_f64() * 100.0,
        round_trip: latency(&figures.echo_round_trips)?,
    })
}

fn phase(phase: &'static str, windows: Vec<&Window>) -> Phase {
    let time: Duration = windows.iter().map(|window| window.time).sum();
    let cpu: Duration = windows.iter().map(|window| window.cpu).sum();
    let sum = |of: fn(&Window) -> u64| windows.iter().map(|window| of(window)).sum::<u64>();
    let (offers, lives) = (sum(|w| w.to.offers - w.from.offers), sum(|w| w.to.lives - w.from.lives));
    let messages = sum(|w| w.to.messages - w.from.messages);
    let each = if lives > 0 { lives } else { offers };
    Phase {
        phase,
        offers_per_second: per_second(offers, time),
        accepts_per_second: per_second(sum(|w| w.to.accepts - w.from.accepts), time),
        updates_per_second: per_second(sum(|w| w.to.updates - w.from.updates), time),
        lives_per_second: per_second(lives, time),
        messages_per_second: per_second(messages, time),
        lives_per_second_by_round: windows
            .iter()
            .map(|w| per_second(w.to.lives - w.from.lives, w.time))
            .collect(),
        master_cpu_us_per_message: micros(cpu) / messages as f64,
        master_cpu_us_each: micros(cpu) / each as f64,
        master_cpu_percent: cpu.as_secs_f64() / time.as_secs_f64() * 100.0,
    }
}

impl Phase {
    fn row(&self) -> [String; 9] {
        let whole = |value: f64| format!("{value:.0}");
        [
            self.phase.to_owned(),
            whole(self.offers_per_second),
            whole(self.accepts_per_second),
            whole(self.updates_per_second),
            whole(self.lives_per_second),
            whole(self.messages_per_second),
            format!("{:.1}", self.master_cpu_us_per_message),
            format!("{:.1}", self.master_cpu_us_each),
            whole(self.master_cpu_percent),
        ]
    }
}
