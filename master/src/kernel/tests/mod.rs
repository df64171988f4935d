//! The rules of the kernel, each as a short story whose every effect is compared.

mod agents;
mod allocation;
mod decisions;
mod demand;
mod explain;
mod fairness;
mod frameworks;
mod gangs;
mod groups;
mod histories;
mod inverse;
mod launches;
mod limits;
mod maintenance;
mod policy;
mod preemption;
mod rate_limits;
mod reconciliation;
mod reservations;
mod task_ids;
mod watching;
