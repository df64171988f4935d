//! What the results of health checks mean: when a task is healthy, and when it has failed once too often.

use divvy_proto::task::{HealthCheck, Probe};
use divvy_proto::time::Timestamp;

/// What is known of each check of a task.
#[derive(Debug, Default)]
pub(super) struct Health {
    checks: Vec<Check>,
}

#[derive(Debug, Clone, Default)]
struct Check {
    passed_once: bool,
    failures: u32,
    passes: Option<bool>,
}

/// What follows from a result.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing yet.
    Unknown,
    /// All checks pass, or one does not.
    Healthy(bool),
    /// One has failed so often on end that the task is to be killed; says which and how.
    Dead(String),
}

impl Health {
    /// `known`: what an earlier process of the agent said of the task. Whatever it was, their grace was over.
    pub(super) fn new(checks: usize, known: Option<bool>) -> Self {
        let passes = known.filter(|healthy| *healthy);
        let check = Check { passed_once: known.is_some(), failures: 0, passes };
        Self { checks: vec![check; checks] }
    }

    /// Takes the result of check number `index`. Failures do not count before the check's grace has passed or its first
    /// success came, whichever is sooner (Mesos counts alike).
    pub(super) fn judge(
        &mut self,
        now: Timestamp,
        running_since: Timestamp,
        (index, spec): (usize, &HealthCheck),
        result: Result<(), String>,
    ) -> Verdict {
        let Some(check) = self.checks.get_mut(index) else { return Verdict::Unknown };
        match result {
            Ok(()) => *check = Check { passed_once: true, failures: 0, passes: Some(true) },
            Err(_) if !check.passed_once && now < running_since + spec.grace => return Verdict::Unknown,
            Err(how) => {
                check.failures = check.failures.saturating_add(1);
                check.passes = Some(false);
                if check.failures >= spec.failures.max(1) {
                    return Verdict::Dead(format!(
                        "{} failed {} times on end: {how}",
                        name(spec),
                        check.failures
                    ));
                }
            }
        }
        self.verdict()
    }

    fn verdict(&self) -> Verdict {
        if self.checks.iter().any(|check| check.passes == Some(false)) {
            return Verdict::Healthy(false);
        }
        match self.checks.iter().all(|check| check.passes == Some(true)) {
            true => Verdict::Healthy(true),
            false => Verdict::Unknown,
        }
    }
}

/// A check as people know it.
fn name(spec: &HealthCheck) -> String {
    match &spec.probe {
        Probe::Https { port, path } => format!("the https check of port {port}, path {path},"),
        Probe::Grpc { port, service } if service.is_empty() => format!("the grpc check of port {port}"),
        Probe::Grpc { port, service } => format!("the grpc check of port {port}, service {service},"),
        Probe::Http { port, path } => format!("the http check of port {port}, path {path},"),
        Probe::Tcp { port } => format!("the tcp check of port {port}"),
        Probe::Command(command) => format!("the check `{}`", command.argv().join(" ")),
    }
}
