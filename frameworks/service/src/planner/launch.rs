//! Launching what is missing from the offers of the moment, and saying why it cannot be launched.

use std::collections::{BTreeMap, BTreeSet};

use divvy_sdk::placement::{PeerAt, Placement, allows, explain, place};
use divvy_sdk::proto::attributes::Attributes;
use divvy_sdk::proto::demand::{DemandShape, Preference};
use divvy_sdk::proto::ids::TaskId;
use divvy_sdk::proto::time::Timestamp;
use divvy_sdk::{Actions, Offer, Task, TaskSpec, View};

use super::app::{App, cause};
use super::census::{APP, INSTANCE, Member, Standing, VERSION};
use super::roll::decide;
use super::spec::AppId;
use super::{COUNTER, Planner, bounds};

/// Instances of an app that are to be launched now.
#[derive(Debug)]
pub(super) struct Want<'a> {
    app: AppId,
    version: u32,
    count: u32,
    spec: TaskSpec,
    /// Which of the instances run already.
    taken: BTreeSet<u32>,
    /// The app's tasks that hold a place, as placement must see them.
    peers: Vec<&'a Task>,
}

impl<'a> Want<'a> {
    /// What an app wants: `count` instances, unless it must wait for its back-off.
    pub(super) fn of(app: &App, members: &[Member<'a>], count: u32, now: Timestamp) -> Option<Self> {
        let version = app.growing();
        if count == 0 || app.backoff_until(version, now).is_some() {
            return None;
        }
        let instance = |member: &Member<'_>| (member.standing == Standing::Keep).then_some(member.instance);
        Some(Self {
            app: app.id().clone(),
            version,
            count,
            spec: app.definition(version)?.task.clone(),
            taken: members.iter().filter_map(instance).collect(),
            peers: members.iter().map(|member| member.task).collect(),
        })
    }

    fn next_instance(&self) -> u32 {
        (0..=u32::MAX).find(|instance| !self.taken.contains(instance)).unwrap_or_default()
    }

    fn spec_of(&self, instance: u32) -> TaskSpec {
        let mut spec = self.spec.clone();
        spec.labels.insert(APP.to_owned(), self.app.to_string());
        spec.labels.insert(VERSION.to_owned(), self.version.to_string());
        spec.labels.insert(INSTANCE.to_owned(), instance.to_string());
        spec.env.insert("DIVVY_APP_ID".to_owned(), self.app.to_string());
        spec.env.insert("DIVVY_APP_VERSION".to_owned(), self.version.to_string());
        spec.env.insert("DIVVY_INSTANCE".to_owned(), instance.to_string());
        spec
    }

    /// What the kernel is to look for. It spreads instances over machines, as [`place`] does.
    fn shape(&self, view: &View, offers: &[Offer]) -> DemandShape {
        let placement = Placement::new(&self.spec, &self.peers, view, offers);
        let mut shape = placement.shape(self.app.as_str(), self.count);
        if shape.preference == Preference::None {
            shape.preference = Preference::Spread("hostname".to_owned());
        }
        shape
    }

    /// Takes one instance from the best offer. Says whether there was one.
    fn launch_one(&mut self, incarnation: u64, view: &View, offers: &mut [Offer]) -> bool {
        let Some(index) = place(&self.spec, &self.peers, view, offers) else { return false };
        let instance = self.next_instance();
        let id = format!("{}.{}.{instance}-{incarnation}", self.app, self.version);
        let (Ok(id), Some(offer)) = (TaskId::new(id), offers.get_mut(index)) else { return false };
        if offer.take(id, &self.spec_of(instance)).is_err() {
            return false;
        }
        self.taken.insert(instance);
        self.count -= 1;
        true
    }
}

impl Planner {
    /// Launches what the offers have room for, one instance of each app in turn, so that a hungry app does not starve the
    /// others. Returns what is still missing.
    pub(super) fn launch(
        &mut self,
        mut wants: Vec<Want<'_>>,
        view: &View,
        mut offers: Vec<Offer>,
        actions: &mut Actions,
    ) -> BTreeMap<AppId, (u32, u32)> {
        let before = self.launched;
        let mut hungry: Vec<&mut Want<'_>> = wants.iter_mut().collect();
        while !hungry.is_empty() && !offers.is_empty() {
            hungry.retain_mut(|want| {
                let placed = want.launch_one(self.launched + 1, view, &mut offers);
                self.launched += u64::from(placed);
                placed && want.count > 0
            });
        }
        actions.want_nothing();
        for want in wants.iter().filter(|want| want.count > 0) {
            let role = want.spec.role.as_ref().unwrap_or(view.role());
            actions.want(role, want.shape(view, &offers));
        }
        if self.launched != before {
            actions.put(COUNTER, self.launched.to_string().into_bytes());
        }
        let used = offers.into_iter().filter(|offer| !offer.taken().is_empty());
        actions.accepts.extend(used.map(Offer::accept));
        let missing = wants.into_iter().filter(|want| want.count > 0);
        missing.map(|want| (want.app, (want.version, want.count))).collect()
    }
}

/// Why instances that are missing are not launched now; nothing if none are missing.
pub(super) fn waiting(app: &App, members: &[Member<'_>], view: &View) -> Option<String> {
    let missing = decide(members, bounds(app)).launch;
    if missing == 0 {
        return None;
    }
    let version = app.growing();
    if let Some(until) = app.backoff_until(version, view.now()) {
        let left = until.since(view.now()).as_millis().div_ceil(1000);
        let last = app.history.iter().find(|end| end.version == version);
        let after = last.map(|end| format!(" after {} ({})", cause(end), end.task)).unwrap_or_default();
        return Some(format!("restarting in {left}s{after}"));
    }
    if !view.connected() {
        return Some("the master cannot be reached".to_owned());
    }
    let peers: Vec<&Task> = members.iter().map(|member| member.task).collect();
    let definition = app.definition(version)?;
    Some(format!("{missing} to launch: {}", explain(&definition.task, &peers, view).summary))
}

/// Marks tasks that stand where their constraints do not allow it, seen from the oldest to the youngest.
pub(super) fn mark_misplaced(app: &App, members: &mut [Member<'_>], view: &View) {
    let constraints = &app.spec.task.constraints;
    if constraints.is_empty() {
        return;
    }
    let none = Attributes::default();
    members.sort_by_key(|member| (member.task.launched_at, member.task.id()));
    let mut older = Vec::new();
    for member in members.iter_mut().filter(|member| member.standing == Standing::Keep) {
        let hostname = &member.task.hostname;
        let attributes = view.agent(&member.task.agent_id).map_or(&none, |agent| &agent.attributes);
        member.misplaced = allows(constraints, hostname, attributes, &older).is_err();
        older.push(PeerAt { hostname, attributes });
    }
}
