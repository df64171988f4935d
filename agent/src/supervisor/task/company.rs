//! What a task is asked and told by its group.

use super::{Phase, Task};
use crate::container::{ContainerId, PortMap};
use crate::supervisor::{Effect, Turn, environment};

impl Task {
    pub(super) fn is_of_group(&self) -> bool {
        self.record.info.container.as_ref().is_some_and(|container| container.group.is_some())
    }

    pub(in super::super) fn is_prepared(&self) -> bool {
        self.phase == Phase::Prepared
    }

    pub(in super::super) fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    /// Whether it runs, or did.
    pub(in super::super) const fn has_run(&self) -> bool {
        self.record.running_since.is_some()
    }

    pub(in super::super) fn has_ended(&self) -> bool {
        self.phase >= Phase::Ended
    }

    /// Whether it has ended or is to end.
    pub(in super::super) fn is_ending(&self) -> bool {
        self.has_ended() || self.record.kill.is_some()
    }

    pub(in super::super) fn misses_company(&self) -> bool {
        self.company_by.is_some()
    }

    /// All tasks of its group are here.
    pub(in super::super) fn has_company(&mut self) {
        self.company_by = None;
    }

    pub(in super::super) const fn is_held(&self) -> bool {
        self.held
    }

    /// Keeps its container beyond its end, or no longer.
    pub(in super::super) fn hold(&mut self, turn: &mut Turn<'_>, held: bool) {
        self.held = held;
        if self.phase == Phase::Ended && self.unwritten.is_none() {
            self.proceed(turn);
        }
    }

    /// In the namespaces of another container of its group, or in its own, with the ports of all its group.
    pub(in super::super) fn start(
        &mut self,
        turn: &mut Turn<'_>,
        joins: Option<ContainerId>,
        ports: Vec<PortMap>,
    ) {
        if self.phase != Phase::Prepared {
            return;
        }
        self.phase = Phase::Launching;
        let mut spec = environment::container(turn, &self.record, self.image.take());
        if self.is_of_group() {
            (spec.joins, spec.port_maps) = (joins, ports);
        }
        turn.effects.push(Effect::Launch(spec));
    }
}
