//! Which instances to stop and how many to launch, by counts alone. The two bounds of an update are kept here and nowhere
//! else:
//!
//! - stopping never takes the healthy count below `min_healthy`;
//! - launching never takes the number of tasks that run above `max_total`.
//!
//! One exception: what is wanted back stops shortly before its deadline in any case, so that its endpoint is withdrawn before the
//! kernel kills it.

use std::cmp::Reverse;

use divvy_sdk::proto::ids::TaskId;

use super::census::{Member, Standing};

/// What an app wants, and the bounds on the way there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) instances: u32,
    pub(super) min_healthy: u32,
    pub(super) max_total: u32,
    /// The version to part with last among equals.
    pub(super) stable: Option<u32>,
}

/// What is to be done now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Decision {
    /// These instances are to be stopped.
    pub(super) stop: Vec<TaskId>,
    /// So many instances are to be launched.
    pub(super) launch: u32,
}

/// Decides the next step from what there is to what is wanted.
pub(super) fn decide(members: &[Member<'_>], bounds: Bounds) -> Decision {
    let in_standing = |standing| move |member: &&Member<'_>| member.standing == standing;
    let mut keep: Vec<&Member<'_>> = members.iter().filter(in_standing(Standing::Keep)).collect();
    let mut replace: Vec<&Member<'_>> = members.iter().filter(in_standing(Standing::Replace)).collect();
    sort(&mut keep, bounds.stable);
    sort(&mut replace, bounds.stable);

    let running = members.iter().filter(|m| m.standing != Standing::Lost).count();
    let room = bounds.max_total.saturating_sub(count(running));
    let launch = bounds.instances.saturating_sub(count(keep.len())).min(room);

    let serving = keep.iter().chain(&replace);
    let available = count(serving.filter(|m| m.available).count());
    let mut spare = available.saturating_sub(bounds.min_healthy);
    let excess = keep.len().saturating_sub(bounds.instances as usize);
    let mut stop = give_up(&keep, excess, &mut spare);
    let (leaving, outdated): (Vec<_>, Vec<_>) = replace.into_iter().partition(|m| m.leaving.is_some());
    stop.extend(give_up(&outdated, outdated.len(), &mut spare));
    // What is wanted back leaves when another has taken its place, unless there is no room for another beside it.
    let one_more = bounds.max_total > bounds.instances;
    let floor = if one_more { bounds.instances } else { bounds.min_healthy };
    let mut spare = available.saturating_sub(floor).min(spare);
    let (due, in_time): (Vec<&Member<'_>>, Vec<&Member<'_>>) =
        leaving.into_iter().partition(|m| m.leaving.is_some_and(|leaving| leaving.due));
    stop.extend(due.iter().map(|m| m.task.id().clone()));
    stop.extend(give_up(&in_time, in_time.len(), &mut spare));
    Decision { stop, launch }
}

/// The first in this order are parted with first.
fn sort(members: &mut [&Member<'_>], stable: Option<u32>) {
    members.sort_by_key(|m| {
        let cherished = stable == Some(m.version);
        (!m.misplaced, m.worth(), cherished, Reverse((m.task.launched_at, m.task.id())))
    });
}

/// At most `most` of them, of those that count as healthy no more than can be spared.
fn give_up(members: &[&Member<'_>], most: usize, spare: &mut u32) -> Vec<TaskId> {
    let mut given_up = Vec::new();
    for member in members {
        if given_up.len() == most {
            break;
        }
        if member.available {
            if *spare == 0 {
                continue;
            }
            *spare -= 1;
        }
        given_up.push(member.task.id().clone());
    }
    given_up
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
