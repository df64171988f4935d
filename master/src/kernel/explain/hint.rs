//! What somebody could do about it: one sentence about the agent that comes nearest.

use std::time::Duration;

use divvy_proto::api::{Exclusion, Funnel, Nearest, Stage};
use divvy_proto::role::RolePath;
use divvy_proto::time::Timestamp;

use super::words;
use crate::kernel::Kernel;
use crate::kernel::allocator::Waiting;

impl Kernel {
    pub(super) fn hint(&self, now: Timestamp, waiting: &Waiting, funnel: &Funnel) -> String {
        if funnel.agents == 0 {
            return "Start agents: `divvy agent --master …`.".to_owned();
        }
        if let Some((role, dimension)) = self.limit_in_the_way(funnel) {
            return self.about_limit(funnel, &role, &dimension);
        }
        let gathered = self.gathered_for(waiting);
        let gang = waiting.gang.as_ref().map(|gang| about_gang(gang.hold, gathered));
        let nearest = match (&funnel.nearest, funnel.fits) {
            (Some(nearest), 0) => self.about_nearest(now, funnel, nearest),
            (_, 0) => String::new(),
            (_, _) if gang.is_some() => "One of it could be had now, but not all of it together.".to_owned(),
            (_, _) => "An offer is on its way.".to_owned(),
        };
        [gang.unwrap_or_default(), nearest].join(" ").trim().to_owned()
    }

    fn about_nearest(&self, now: Timestamp, funnel: &Funnel, nearest: &Nearest) -> String {
        let host = &nearest.hostname;
        match &nearest.reason {
            None => String::new(),
            Some(Exclusion::NotActive) => "Bring the agents back: none of them is connected.".to_owned(),
            Some(Exclusion::Draining) => {
                format!("`divvy reactivate {}` ends the drain of {host}.", nearest.agent_id)
            }
            Some(Exclusion::Constraint { clause }) => {
                format!("Relax `{clause}`, or add agents of which it is true: {}.", would_do(nearest))
            }
            Some(Exclusion::Filter { until }) => format!(
                "{host} has enough, but {} has refused it: it is asked again in {}, or at once after a Revive.",
                funnel.framework,
                words::until(now, *until)
            ),
            Some(Exclusion::Reservation { roles }) => format!(
                "Ask in the role {}, take the reservation away (`divvy unreserve`), or add agents.",
                words::list(roles)
            ),
            Some(Exclusion::TooSmall { dimension, .. }) => {
                format!(
                    "{}: ask for less {dimension}, or add larger agents.",
                    has(nearest, "comes nearest, and has")
                )
            }
            Some(Exclusion::HeldByOthers { dimension, holders, .. }) => {
                let owed = !self.allocator.unmet(&funnel.role).is_empty();
                about_held(funnel, nearest, dimension, holders, owed)
            }
            Some(Exclusion::HeldForWaiting { framework }) => {
                format!(
                    "Wait: {host} is kept for {framework}, whose demand is older, or whose guarantee is not met."
                )
            }
            Some(Exclusion::Limit { role, dimension }) => self.about_limit(funnel, role, dimension),
            Some(Exclusion::Headroom { roles }) => self.about_headroom(roles),
        }
    }

    /// The role whose limit leaves too little for one more on whatever agent, and of what; the role itself before those above it.
    pub(super) fn limit_in_the_way(&self, funnel: &Funnel) -> Option<(RolePath, String)> {
        let mut lineage = funnel.role.lineage();
        lineage.reverse();
        lineage.into_iter().filter(|_| funnel.fits == 0).find_map(|role| {
            let (limit, consumed) = (&self.allocator.quota(&role)?.limit, self.allocator.consumed(&role));
            let mut wants = funnel.wants.iter();
            let (dimension, _) = wants.find(|(dimension, needs)| {
                let used = consumed.get(dimension).unwrap_or_default();
                // What is set aside for the role counts already, and may be what it waits for.
                let set_aside = self.allocator.reserved_for(&role).get(dimension).is_some_and(|had| had > 0);
                !set_aside && limit.get(dimension).is_some_and(|limit| used.saturating_add(*needs) > limit)
            })?;
            let dimension = dimension.to_owned();
            Some((role, dimension))
        })
    }

    /// The funnel in words; before it the limit that stands in the way anyway.
    pub(super) fn summary(&self, now: Timestamp, waiting: &Waiting, funnel: &Funnel) -> String {
        let said = matches!(funnel.stages.as_slice(), [Stage { reason: Exclusion::Limit { .. }, .. }]);
        let limit = self.limit_in_the_way(funnel).filter(|_| !said).map(|(role, dimension)| {
            let limit = self.allocator.quota(&role).and_then(|quota| quota.limit.get(&dimension));
            let limit = words::amount(&dimension, limit.unwrap_or_default().into());
            format!("{role} is at its limit of {dimension}={limit} (`divvy quota set`).")
        });
        let parts = [limit, Some(words::funnel(now, funnel, waiting.gang.is_some()))];
        parts.into_iter().flatten().collect::<Vec<String>>().join(" ")
    }

    fn gathered_for(&self, waiting: &Waiting) -> usize {
        self.allocator.gathered().filter(|(_, client, _)| *client == waiting.client).count()
    }

    fn about_limit(&self, funnel: &Funnel, role: &RolePath, dimension: &str) -> String {
        let limit =
            self.allocator.quota(role).and_then(|quota| quota.limit.get(dimension)).unwrap_or_default();
        let consumed = self.allocator.consumed(role).get(dimension).unwrap_or_default();
        let show = |amount: i64| words::amount(dimension, amount.into());
        let needs = match funnel.wants.get(dimension) {
            Some(needs) => format!(", and one more needs {}", show(needs)),
            None => String::new(),
        };
        format!(
            "{role} uses {} of its limit of {} {dimension}{needs}: end something, or raise the limit (`divvy quota set \
             {role} --limit …`).",
            show(consumed),
            show(limit)
        )
    }

    fn about_headroom(&self, roles: &[RolePath]) -> String {
        let unmet = roles.iter().take(3).map(|role| format!("{role} lacks {}", self.allocator.unmet(role)));
        let unmet: Vec<String> = unmet.collect();
        format!(
            "It is kept for guarantees that are not met ({}): wait until they are, lower them (`divvy quota set`), or add \
             agents.",
            unmet.join(", ")
        )
    }
}

/// `host-3 comes nearest, and has 2 of 4 cpus`.
fn has(nearest: &Nearest, how: &str) -> String {
    let lacks = nearest
        .missing
        .iter()
        .map(|shortage| format!("{} of {} {}", shortage.available, shortage.wanted, shortage.dimension));
    let lacks: Vec<String> = lacks.collect();
    match lacks.is_empty() {
        true => format!("{} comes nearest", nearest.hostname),
        false => format!("{} {how} {}", nearest.hostname, words::list(&lacks)),
    }
}

fn about_gang(hold: Duration, gathered: usize) -> String {
    match gathered {
        0 => "It is a gang: all of it, or nothing.".to_owned(),
        1 => format!("One piece of the gang is gathered, and kept for {} at most.", words::duration(hold)),
        _ => format!(
            "{gathered} pieces of the gang are gathered, and kept for {} at most.",
            words::duration(hold)
        ),
    }
}

fn would_do(nearest: &Nearest) -> String {
    match nearest.missing.is_empty() {
        true => format!("{} would do", nearest.hostname),
        false => has(nearest, "would come nearest, but has only"),
    }
}

/// `owed`: the role has a guarantee already, which is not met.
fn about_held(funnel: &Funnel, nearest: &Nearest, dimension: &str, holders: &[String], owed: bool) -> String {
    let wait = match holders.first() {
        Some(holder) if *holder == funnel.framework => format!("wait until {holder} ends work of its own"),
        Some(holder) if owed => format!("wait for {holder} to give back what {} is owed", funnel.role),
        Some(holder) => format!("wait for {holder}, give {} a guarantee", funnel.role),
        None => "wait".to_owned(),
    };
    match funnel.shape.is_some() {
        true => format!(
            "{} free: ask for less {dimension}, {wait}, or add agents.",
            has(nearest, "comes nearest, with")
        ),
        false => format!("Everything is in use: {wait}, or add agents."),
    }
}
