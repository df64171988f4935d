//! Task groups: when the tasks of one may start, and who ends with whom. What to do is derived anew from what its tasks are, so
//! that another process of the agent goes on where this one was.
//!
//! The lead is the first task, by id, of those that do not end alone; the others use its network and ipc namespaces. Before the
//! lead runs, any end ends the group; from then on only that of a task which does not end alone.

use std::time::Duration;

use divvy_proto::container::GroupMember;
use divvy_proto::ids::{FrameworkId, TaskGroupId};
use divvy_proto::time::Timestamp;

use super::record::KillCause;
use super::task::Task;
use super::{Effect, Supervisor, TaskKey, environment};
use crate::container::{ContainerId, PortMap};

/// The tasks of a group come in one call to the master, one right after another. What is missing after so long never comes.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A group among all groups.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GroupKey {
    framework_id: FrameworkId,
    id: TaskGroupId,
}

/// What is to become of one task.
#[derive(Debug, Clone, PartialEq)]
enum Move {
    /// All are there.
    Complete,
    /// As the lead, with the ports of all.
    Lead(Vec<PortMap>),
    /// In the lead's namespaces.
    Join(ContainerId),
    End(String),
    /// The lead's container has to stay for as long as the others use its network.
    Hold(bool),
}

pub(super) fn key_of(task: &Task) -> Option<GroupKey> {
    let record = task.record();
    let id = member(task)?.id.clone();
    Some(GroupKey { framework_id: record.framework_id.clone(), id })
}

fn member(task: &Task) -> Option<&GroupMember> {
    task.record().info.container.as_deref()?.group.as_ref()
}

impl Supervisor {
    /// Brings every group forward of which a task has handled an input.
    pub(super) fn settle_groups(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        while let Some(key) = self.touched.pop_first() {
            for (task, next) in self.moves(&key) {
                self.on_task(now, &task, effects, |task, turn| match next {
                    Move::Complete => task.has_company(),
                    Move::Lead(ports) => task.start(turn, None, ports),
                    Move::Join(lead) => task.start(turn, Some(lead), Vec::new()),
                    Move::End(why) => task.kill(turn, KillCause::GroupEnded(why), None),
                    Move::Hold(held) => task.hold(turn, held),
                });
            }
        }
    }

    fn moves(&self, key: &GroupKey) -> Vec<(TaskKey, Move)> {
        let members = self.groups.get(key).into_iter().flatten();
        moves(&members.filter_map(|key| self.tasks.get_key_value(key)).collect::<Vec<_>>())
    }
}

/// What is to be done now. Once it is done there is nothing more to do.
fn moves(tasks: &[(&TaskKey, &Task)]) -> Vec<(TaskKey, Move)> {
    let ends_alone = |task: &Task| member(task).is_none_or(|member| member.ends_alone);
    let lead = tasks.iter().find(|(_, task)| !ends_alone(task));
    let started = lead.is_some_and(|(_, lead)| lead.has_run());
    let ends_all = |task: &Task| task.is_ending() && (!started || !ends_alone(task));
    let mut moves = match tasks.iter().find(|(_, task)| ends_all(task)) {
        Some((_, first)) => end_all(tasks, first),
        None => lead.map(|(_, lead)| start(tasks, lead)).unwrap_or_default(),
    };
    for (key, task) in tasks {
        let leads = lead.is_some_and(|(lead, _)| lead == key);
        let held = leads && tasks.iter().any(|(other, task)| other != key && task.has_container());
        if task.is_held() != held {
            moves.push(((*key).clone(), Move::Hold(held)));
        }
    }
    moves
}

fn end_all(tasks: &[(&TaskKey, &Task)], first: &Task) -> Vec<(TaskKey, Move)> {
    let id = &first.record().info.id;
    let why = match &first.record().latest.message {
        how if first.has_ended() && first.has_run() => format!("task {id} of its group ended: {how}"),
        how if first.has_ended() => format!("task {id} of its group did not start: {how}"),
        _ => format!("task {id} of its group is killed"),
    };
    let others = tasks.iter().filter(|(_, task)| !task.is_ending());
    others.map(|(key, _)| ((*key).clone(), Move::End(why.clone()))).collect()
}

fn start(tasks: &[(&TaskKey, &Task)], lead: &Task) -> Vec<(TaskKey, Move)> {
    let size = member(lead).map_or(0, |member| member.size as usize);
    let ready = || tasks.iter().filter(|(_, task)| task.is_prepared());
    let mut moves = Vec::new();
    if lead.has_run() || tasks.len() >= size {
        let lonely = tasks.iter().filter(|(_, task)| task.misses_company());
        moves.extend(lonely.map(|(key, _)| ((*key).clone(), Move::Complete)));
    }
    if lead.is_running() {
        let join = Move::Join(lead.record().container.clone());
        moves.extend(ready().map(|(key, _)| ((*key).clone(), join.clone())));
    } else if lead.is_prepared() && ready().count() >= size {
        let ports = tasks.iter().flat_map(|(_, task)| environment::port_maps(&task.record().info)).collect();
        moves.push((lead.record().key(), Move::Lead(ports)));
    }
    moves
}
