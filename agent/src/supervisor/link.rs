//! The stream to the master: which one counts, whether the agent is registered on it, and when it has been silent too long.

use std::time::Duration;

use divvy_proto::ids::Epoch;
use divvy_proto::time::Timestamp;

use super::input::LinkId;

/// The one stream that counts, and the newest master that was ever heard.
#[derive(Debug, Default)]
pub(super) struct Link {
    stream: Option<Stream>,
    /// Lower ones are deposed masters. Kept in memory only: a master whose data was wiped starts at 1 again, and an operator
    /// who restarts the agent says that this is meant.
    newest: Epoch,
}

#[derive(Debug)]
struct Stream {
    id: LinkId,
    ping_interval: Option<Duration>,
    silent_at: Timestamp,
}

impl Link {
    /// A new stream replaces any earlier one.
    pub(super) fn open(&mut self, now: Timestamp, id: LinkId, timeout: Duration) {
        self.stream = Some(Stream { id, ping_interval: None, silent_at: now + timeout });
    }

    pub(super) fn close(&mut self) {
        self.stream = None;
    }

    /// Whether this is the stream that counts.
    pub(super) fn is(&self, id: LinkId) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.id == id)
    }

    /// The stream, if the agent is registered on it.
    pub(super) const fn registered(&self) -> Option<LinkId> {
        match &self.stream {
            Some(Stream { id, ping_interval: Some(_), .. }) => Some(*id),
            _ => None,
        }
    }

    /// Any message is a sign of life.
    pub(super) fn heard(&mut self, now: Timestamp, missed_pings: u32) {
        if let Some(stream) = &mut self.stream
            && let Some(interval) = stream.ping_interval
        {
            stream.silent_at = now + interval.saturating_mul(missed_pings);
        }
    }

    /// The registration stands, or why it does not.
    pub(super) fn registered_as(
        &mut self,
        now: Timestamp,
        epoch: Epoch,
        ping_interval: Duration,
        missed_pings: u32,
    ) -> Result<(), String> {
        if epoch < self.newest {
            return Err(format!(
                "this master's epoch is {epoch}, but a newer one, {}, was heard",
                self.newest
            ));
        }
        self.newest = epoch;
        if let Some(stream) = &mut self.stream {
            stream.ping_interval = Some(ping_interval);
        }
        self.heard(now, missed_pings);
        Ok(())
    }

    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.stream.as_ref().map(|stream| stream.silent_at)
    }

    /// The stream, if nothing came from it for too long.
    pub(super) fn silent(&self, now: Timestamp) -> Option<LinkId> {
        self.stream.as_ref().filter(|stream| stream.silent_at <= now).map(|stream| stream.id)
    }
}
