//! How a story is told: one line an effect.

use divvy_proto::agent::MasterMessage;
use divvy_proto::scheduler::{Event, InverseOffer, OfferInfo, Outcome};
use divvy_proto::task::TaskStatus;

use super::{Cluster, START};
use crate::kernel::{Absence, Effect, LinkId, RegistryChange};

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

    pub(super) fn tell_story(&mut self, effect: &Effect) {
        let line = match effect {
            Effect::Changed(_) => return,
            Effect::ToAgent { message: MasterMessage::Ping, .. }
            | Effect::ToFramework { event: Event::Heartbeat, .. }
                if !self.with_heartbeats =>
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
            format!("{agent} reserves {} parts, {} volumes", reserved.len(), volumes.len())
        }
        RegistryChange::PutDrain { agent, deactivated, drain } => match (drain, deactivated) {
            (Some(drain), _) if drain.drained => format!("{agent} drained"),
            (Some(_), _) => format!("{agent} drains"),
            (None, true) => format!("{agent} deactivated"),
            (None, false) => format!("{agent} offered again"),
        },
        RegistryChange::PutMaintenance { windows } => format!("{} windows of maintenance", windows.len()),
        RegistryChange::PutTaskIds { framework, bucket, .. } => format!("{framework} used {bucket:?}"),
        RegistryChange::RemoveAgent { id } => format!("{id} forgotten"),
        RegistryChange::RemoveFramework { id } => format!("{id} forgotten"),
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

fn show_event(event: &Event) -> String {
    match event {
        Event::Subscribed { framework_id, .. } => format!("subscribed as {framework_id}"),
        Event::Reply { call_id, outcome: Outcome::Accepted } => format!("{call_id} accepted"),
        Event::Reply { call_id, outcome: Outcome::Refused(why) } => format!("{call_id} refused: {why}"),
        Event::Offers(offers) => {
            let show = |offer: &OfferInfo| {
                let role =
                    if offer.role.as_str() == "*" { String::new() } else { format!(" for {}", offer.role) };
                format!("{} of {}{role}: {}", offer.id, offer.agent_id, offer.resources)
            };
            format!("offers {}", show_all(offers, show))
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
