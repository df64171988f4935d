//! Whether the tasks of task groups come together: all of a group in one operation, on one agent.

use std::collections::{BTreeMap, BTreeSet};

use divvy_proto::Invalid;
use divvy_proto::container::{GroupMember, Network};
use divvy_proto::ids::{AgentId, TaskGroupId};
use divvy_proto::task::TaskInfo;

use crate::kernel::frameworks::Framework;
use crate::kernel::tasks::Task;

/// A task's place in its group, if it is of one.
pub(super) fn group_of(task: &TaskInfo) -> Option<&GroupMember> {
    task.container.as_deref()?.group.as_ref()
}

/// Checks the groups of an operation's tasks on an agent. A task that ends alone may come again, alone, while its group runs
/// there.
///
/// # Errors
/// Which task's field is not right: some of the group are missing, or elsewhere, or do not agree on what it is.
pub(super) fn check_groups(
    framework: &Framework,
    agent: &AgentId,
    tasks: &[TaskInfo],
) -> Result<(), Invalid> {
    let mut groups: BTreeMap<&TaskGroupId, Vec<(usize, &TaskInfo, &GroupMember)>> = BTreeMap::new();
    for (nth, task) in tasks.iter().enumerate() {
        if let Some(group) = group_of(task) {
            groups.entry(&group.id).or_default().push((nth, task, group));
        }
    }
    for (id, members) in &groups {
        let is_of_it = |task: &&Task| task.still_runs() && task.group().is_some_and(|group| group.id == **id);
        let live: Vec<&Task> = framework.tasks.values().filter(is_of_it).collect();
        check_group(agent, members, &live)?;
    }
    Ok(())
}

/// # Errors
/// The tasks of a `LaunchGroup` are not those of one group.
pub(super) fn check_is_group(tasks: &[TaskInfo]) -> Result<(), Invalid> {
    let ids: BTreeSet<Option<&TaskGroupId>> =
        tasks.iter().map(|task| group_of(task).map(|group| &group.id)).collect();
    match ids.len() == 1 && !ids.contains(&None) {
        true => Ok(()),
        false => Err(Invalid::new("", format!("{} tasks", tasks.len()), "the tasks of one group")),
    }
}

fn check_group(
    agent: &AgentId,
    members: &[(usize, &TaskInfo, &GroupMember)],
    live: &[&Task],
) -> Result<(), Invalid> {
    let Some((_, first, lead)) = members.first() else { return Ok(()) };
    let (size, network) = (lead.size, network(first));
    let count = members.len() + live.len();
    for (nth, task, group) in members {
        let field = |name: &str| format!("[{nth}].container.{name}");
        let sizes = live.iter().filter_map(|task| task.group()).map(|group| group.size);
        if group.size != size || sizes.clone().any(|other| other != size) {
            return Err(Invalid::new(field("group.size"), group.size, "the size that all of the group name"));
        }
        if usize::try_from(size) != Ok(count) {
            let expected = format!("all {size} tasks of group {} in one operation, not {count}", group.id);
            return Err(Invalid::new(field("group"), &group.id, expected));
        }
        if self::network(task) != network {
            let expected = format!("the network of the others of the group, {network}");
            return Err(Invalid::new(field("network"), self::network(task), expected));
        }
        if live.iter().any(|other| other.agent != *agent) {
            return Err(Invalid::new(field("group"), &group.id, "the agent on which the group runs"));
        }
        if !live.is_empty() && !group.ends_alone {
            let expected = "true for a task that joins a group which runs";
            return Err(Invalid::new(field("group.ends_alone"), false, expected));
        }
    }
    let all = members.iter().map(|(.., group)| *group).chain(live.iter().filter_map(|task| task.group()));
    match all.into_iter().all(|group| group.ends_alone) {
        true => {
            Err(Invalid::new("[0].container.group.ends_alone", true, "false for at least one of the group"))
        }
        false => Ok(()),
    }
}

fn network(task: &TaskInfo) -> Network {
    task.container.as_ref().map(|container| container.network.clone()).unwrap_or_default()
}
