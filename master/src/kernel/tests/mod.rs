//! The rules of the kernel, each as a short story whose every effect is compared.

mod agents;
mod allocation;
mod frameworks;
mod histories;
mod launches;
mod reconciliation;
mod watching;
