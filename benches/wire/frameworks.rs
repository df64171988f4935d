//! Frameworks that take all they are offered, as fast as they can.

use std::sync::Arc;

use anyhow::{Result, bail};
use divvy_proto::pb;
use divvy_proto::pb::call::Body;
use divvy_proto::pb::event::Event;
use tokio::sync::watch;

use crate::agents::{CPUS, MEM};
use crate::common::{Stream, accept, acknowledge, amount, is_terminal, task};
use crate::counters::Counters;

/// What a framework does with an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    /// Declines it, without a filter.
    Decline,
    /// Fills it with tasks, of which so many fit on an agent.
    Launch { per_agent: i64 },
}

/// A framework with a habit, until it is told to stop and its tasks have ended.
pub struct Framework {
    name: String,
    habit: Habit,
    stream: Stream,
    counters: Arc<Counters>,
    launched: u64,
    in_flight: u64,
    offered: bool,
}

impl Framework {
    pub async fn subscribe(
        master: &str,
        name: String,
        habit: Habit,
        counters: Arc<Counters>,
    ) -> Result<Self> {
        let stream = Stream::subscribe(master, &name, &format!("bench/{name}")).await?;
        Ok(Self { name, habit, stream, counters, launched: 0, in_flight: 0, offered: true })
    }

    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<()> {
        while self.offered || self.in_flight > 0 {
            tokio::select! {
                event = self.stream.event() => self.handle(event?)?,
                _ = stop.changed(), if self.offered => self.offered = false,
            }
        }
        self.stream.tear_down().await
    }

    fn call(&mut self, body: Body) -> Result<()> {
        self.counters.messages.add(1);
        self.stream.call(body)
    }

    fn handle(&mut self, event: Event) -> Result<()> {
        self.counters.messages.add(1);
        match event {
            Event::Offers(offers) => self.use_offers(offers.offers),
            Event::Update(status) => self.note(&status),
            _ => Ok(()),
        }
    }

    fn use_offers(&mut self, offers: Vec<pb::OfferInfo>) -> Result<()> {
        self.counters.offers.add(offers.len());
        offers.iter().for_each(|offer| self.counters.offered(&offer.hostname));
        match self.habit {
            _ if !self.offered => Ok(()), // held to the end, so that the phase ends
            Habit::Decline => {
                let filters = Some(pb::Filters { refuse_ms: Some(0) });
                let offers = offers.iter().map(|offer| offer.id).collect();
                self.call(Body::Decline(pb::Decline { offers, filters }))
            }
            Habit::Launch { per_agent } => {
                offers.into_iter().try_for_each(|offer| self.launch(&offer, per_agent))
            }
        }
    }

    fn launch(&mut self, offer: &pb::OfferInfo, per_agent: i64) -> Result<()> {
        let size = (CPUS / per_agent, MEM / per_agent);
        let fit = offer.resources.as_ref().map_or(0, |resources| resources.cpus_millis / size.0);
        let tasks: Vec<_> = (0..fit)
            .map(|_| {
                self.launched += 1;
                task(format!("{}-{}", self.name, self.launched), &["true"], amount(size.0, size.1))
            })
            .collect();
        self.in_flight += u64::try_from(fit)?;
        self.counters.accepts.add(1);
        self.call(accept(vec![offer.id], tasks))
    }

    fn note(&mut self, status: &pb::TaskStatus) -> Result<()> {
        self.counters.updates.add(1);
        acknowledge(status).map(|body| self.call(body)).transpose()?;
        match status.state() {
            pb::TaskState::Finished => self.in_flight -= 1,
            state if is_terminal(state) => bail!("a task is {}: {}", state.as_str_name(), status.message),
            _ => {}
        }
        Ok(())
    }
}
