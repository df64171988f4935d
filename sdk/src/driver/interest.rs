//! Whether offers are wanted, and whether the master has been told.

use std::time::Duration;

use divvy_proto::scheduler::CallBody;
use divvy_proto::time::Timestamp;

use super::Config;
use crate::Actions;

/// What the scheduler wants and what the master believes.
#[derive(Debug)]
pub(super) struct Interest {
    wanted: bool,
    told: bool,
    /// The scheduler wants filters dropped, and it is not yet time.
    revive_at: Option<Timestamp>,
    last_revive: Option<Timestamp>,
    floor: Duration,
}

impl Interest {
    pub(super) fn new(config: &Config) -> Self {
        Self { wanted: true, told: true, revive_at: None, last_revive: None, floor: config.revive_floor }
    }

    /// A subscription says it all: whether offers are wanted; and it has no filters.
    pub(super) fn subscribe(&mut self) -> bool {
        (self.told, self.revive_at) = (self.wanted, None);
        self.wanted
    }

    /// What to tell the master after these actions.
    pub(super) fn change(&mut self, now: Timestamp, actions: &Actions, subscribed: bool) -> Option<CallBody> {
        self.wanted = actions.needs_offers.unwrap_or(self.wanted);
        if !subscribed {
            return None;
        }
        match (self.told, self.wanted) {
            (true, false) => {
                (self.told, self.revive_at) = (false, None);
                Some(CallBody::Suppress { roles: Vec::new() })
            }
            (false, true) => Some(self.revive(now)),
            (true, true) if actions.revive && self.revive_at.is_none() => {
                self.revive_at = Some(self.last_revive.map_or(now, |last| now.max(last + self.floor)));
                self.due(now)
            }
            _ => None,
        }
    }

    pub(super) fn next(&self) -> Option<Timestamp> {
        self.revive_at
    }

    /// A revive whose time has come.
    pub(super) fn due(&mut self, now: Timestamp) -> Option<CallBody> {
        self.revive_at.is_some_and(|time| time <= now).then(|| self.revive(now))
    }

    fn revive(&mut self, now: Timestamp) -> CallBody {
        (self.told, self.revive_at, self.last_revive) = (true, None, Some(now));
        CallBody::Revive { roles: Vec::new() }
    }
}
