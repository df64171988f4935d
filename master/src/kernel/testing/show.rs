//! How a story is told: one line an effect.

use divvy_proto::agent::MasterMessage;
use divvy_proto::scheduler::{Event, InverseOffer, OfferInfo, Outcome};
use divvy_proto::task::TaskStatus;
use divvy_proto::{Reservation, Reserved, Volume};

use super::{Cluster, START};
use crate::kernel::{Absence, Effect, LinkId, RegistryChange, TaskIdBucket, UsedTaskIds};

impl Cluster {
    fn name(&self, link: LinkId) -> String {
        let agent = self.agents.iter().position(|agent| agent.link == Some(link));
        let framework = self.frameworks.iter().find(|framework| framework.link == Some(link));
        match (agent, framework) {
            (Some(agent), _) => format!("agent {agent}"),
            (_, Some(framework)) => framework.info.name.clone(),
            _ => format!("link {}", link.0),
        }
    }

    fn has_no_volumes(&self, link: LinkId) -> bool {
        self.agents.iter().any(|agent| agent.link == Some(link) && agent.volumes.is_empty())
    }

    pub(super) fn tell_story(&mut self, effect: &Effect) {
        let line = match effect {
            Effect::Changed(_) => return,
            Effect::ToAgent { message: MasterMessage::Ping, .. }
            | Effect::ToFramework { event: Event::Heartbeat, .. }
                if !self.with_heartbeats =>
            {
                return;
            }
            // That there are still none is no news.
            Effect::ToAgent { link, message: MasterMessage::Volumes(volumes) }
                if volumes.is_empty() && self.has_no_volumes(*link) =>
            {
                return;
            }
            Effect::ToAgent { link, message } => format!("{} < {}", self.name(*link), show_message(message)),
            Effect::ToFramework { link, event } => format!("{} < {}", self.name(*link), show_event(event)),
            Effect::Close { link, error } => format!("{} closed: {error}", self.name(*link)),
            Effect::Persist { changes, .. } => format!("persist {}", show_all(changes, show_record)),
            Effect::Answer { result: Ok(()), .. } => "answer: done".to_owned(),
            Effect::Answer { result: Err(why), .. } => format!("answer: {why}"),
        };
        self.story.push(line);
    }
}

fn show_all<T>(items: &[T], show: impl Fn(&T) -> String) -> String {
    items.iter().map(show).collect::<Vec<_>>().join(", ")
}

fn show_record(change: &RegistryChange) -> String {
    match change {
        RegistryChange::PutAgent { id, absence: None, .. } => format!("{id}"),
        RegistryChange::PutAgent { id, absence: Some(Absence::Unreachable(_)), .. } => {
            format!("{id} unreachable")
        }
        RegistryChange::PutAgent { id, absence: Some(Absence::Gone(_)), .. } => format!("{id} gone"),
        RegistryChange::PutFramework { id, retired: true, .. } => format!("{id} retired"),
        RegistryChange::PutFramework { id, disconnected: Some(_), .. } => format!("{id} disconnected"),
        RegistryChange::PutFramework { id, .. } => format!("{id}"),
        RegistryChange::PutQuota { role, quota: Some(_) } => format!("quota of {role}"),
        RegistryChange::PutQuota { role, quota: None } => format!("no quota of {role}"),
        RegistryChange::PutWeight { role, weight } => {
            format!("weight {} of {role}", weight.unwrap_or_default())
        }
        RegistryChange::PutReservations { agent, reserved, volumes } => {
            let (reserved, volumes) = (show_all(reserved, show_reserved), show_all(volumes, show_volume));
            format!("{agent} reserves [{reserved}], volumes [{volumes}]")
        }
        RegistryChange::PutDrain { agent, deactivated, drain } => match (drain, deactivated) {
            (Some(drain), _) if drain.drained => format!("{agent} drained"),
            (Some(_), _) => format!("{agent} drains"),
            (None, true) => format!("{agent} deactivated"),
            (None, false) => format!("{agent} offered again"),
        },
        RegistryChange::PutMaintenance { windows } => format!("{} windows of maintenance", windows.len()),
        RegistryChange::PutTaskIds { framework, bucket, ids } => {
            format!("{framework} used {}", show_used(bucket, ids))
        }
        RegistryChange::RemoveAgent { id } => format!("{id} forgotten"),
        RegistryChange::RemoveFramework { id } => format!("{id} forgotten"),
    }
}

/// `t[1-3,5]`, or how many hashes.
fn show_used(bucket: &TaskIdBucket, ids: &UsedTaskIds) -> String {
    match (bucket, ids) {
        (TaskIdBucket::Numbered(prefix), UsedTaskIds::Numbers(ranges)) => {
            let show = |(first, last): &(u64, u64)| match first == last {
                true => first.to_string(),
                false => format!("{first}-{last}"),
            };
            format!("{prefix}[{}]", ranges.iter().map(show).collect::<Vec<_>>().join(","))
        }
        (TaskIdBucket::Hashed(_), UsedTaskIds::Hashes(hashes)) => format!("{} hashed", hashes.len()),
        other => format!("{other:?}"),
    }
}

fn show_message(message: &MasterMessage) -> String {
    match message {
        MasterMessage::Registered { agent_id, .. } => format!("registered as {agent_id}"),
        MasterMessage::Ping => "ping".to_owned(),
        MasterMessage::Launch { framework_id, task, .. } => format!("launch {framework_id}/{}", task.id),
        MasterMessage::Kill { framework_id, task_id, .. } => format!("kill {framework_id}/{task_id}"),
        MasterMessage::Acknowledge { task_id, update_id, .. } => {
            format!("acknowledge {update_id} of {task_id}")
        }
        MasterMessage::ShutdownFramework { framework_id } => format!("shut down {framework_id}"),
        MasterMessage::Volumes(volumes) => {
            let ids: Vec<&str> = volumes.iter().map(|volume| volume.id.as_str()).collect();
            format!("volumes [{}]", ids.join(", "))
        }
        MasterMessage::Error(error) => format!("error: {error}"),
    }
}

/// What of an offer is reserved, the volumes with it, and for which demand it is; nothing in a classic offer.
fn show_rest(offer: &OfferInfo) -> String {
    let list = |open: &str, items: String, close: &str| match items.is_empty() {
        true => String::new(),
        false => format!(" {open}{items}{close}"),
    };
    let reserved = list("(", show_all(&offer.reserved, show_reserved), ")");
    let volumes = list("[", show_all(&offer.volumes, show_volume), "]");
    let gang = |gang: u64| format!(" of gang {gang}");
    let demand = offer.demand.as_ref().map_or(String::new(), |demand| {
        format!(" for {} {}{}", demand.count, demand.shape, demand.gang.map_or(String::new(), gang))
    });
    let revocable = if offer.revocable { " revocable" } else { "" };
    format!("{revocable}{reserved}{volumes}{demand}")
}

/// `eng>eng/ads: cpus=1`; a fixed reservation with `!`.
pub(super) fn show_reserved(piece: &Reserved) -> String {
    let show = |one: &Reservation| format!("{}{}", one.role, if one.fixed { "!" } else { "" });
    let stack: Vec<String> = piece.stack.iter().map(show).collect();
    format!("{}: {}", stack.join(">"), piece.resources)
}

pub(super) fn show_volume(volume: &Volume) -> String {
    format!("{} {}", volume.id, volume.size)
}

fn show_event(event: &Event) -> String {
    match event {
        Event::Subscribed { framework_id, .. } => format!("subscribed as {framework_id}"),
        Event::Reply { call_id, outcome: Outcome::Accepted } => format!("{call_id} accepted"),
        Event::Reply { call_id, outcome: Outcome::Refused(why) } => format!("{call_id} refused: {why}"),
        Event::Offers(offers) => {
            let show = |offer: &OfferInfo| {
                let role =
                    if offer.role.as_str() == "*" { String::new() } else { format!(" for {}", offer.role) };
                let resources = format!("{}{}", offer.resources, show_rest(offer));
                format!("{} of {}{role}: {resources}", offer.id, offer.agent_id)
            };
            format!("offers {}", show_all(offers, show))
        }
        Event::OperationUpdate { operation_id, outcome: Outcome::Accepted } => {
            format!("{operation_id} is done")
        }
        Event::OperationUpdate { operation_id, outcome: Outcome::Refused(why) } => {
            format!("{operation_id} is refused: {why}")
        }
        Event::Rescind(id) => format!("rescind {id}"),
        Event::Update(status) => show_update(status),
        Event::InverseOffers(offers) => format!("asked back {}", show_all(offers, show_inverse)),
        Event::RescindInverse(id) => format!("rescind {id}"),
        Event::Failure { agent_id } => format!("failure of {agent_id}"),
        Event::Heartbeat => "heartbeat".to_owned(),
        other => format!("{other:?}"),
    }
}

/// The deadline counts from when the cluster began.
fn show_inverse(offer: &InverseOffer) -> String {
    let tasks = show_all(&offer.tasks, ToString::to_string);
    let by = offer.deadline.map_or("never".to_owned(), |at| format!("+{}s", at.since(START).as_secs()));
    let reason = crate::kernel::inverse::show_reason(&offer.reason);
    format!("{} of {}: {tasks} ({}) by {by}, {reason}", offer.id, offer.agent_id, offer.resources)
}

fn show_update(status: &TaskStatus) -> String {
    let id = status.update_id.as_ref().map_or(String::new(), |id| format!(" ({id})"));
    format!("{} is {}: {}{id}", status.task_id, status.state, status.reason)
}
