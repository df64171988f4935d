//! How much a message may bring. What is longer is refused, so that no peer can make another hold or copy without end.
//!
//! The numbers are far above what honest use needs and far below what hurts; none is part of a promise but as a minimum.

use std::time::Duration;

/// Largest encoded message, for the gRPC limits of servers and clients (tonic's default is 4 MiB, too little for an
/// Accept of [`TASKS_PER_ACCEPT`] tasks or a large agent's Register).
pub const MESSAGE_BYTES: usize = 64 << 20;

/// Most tasks that one Accept may launch, over all its operations.
pub const TASKS_PER_ACCEPT: usize = 10_000;
/// Most operations of one Accept.
pub const OPERATIONS: usize = 10_000;
/// Most offers in one call or event.
pub const OFFERS: usize = 100_000;
/// Most roles of a framework, and in one Revive or Suppress.
pub const ROLES: usize = 10_000;
/// Most shapes of one Demand.
pub const SHAPES: usize = 256;
/// Longest name of a shape, in bytes.
pub const SHAPE_NAME: usize = 128;
/// Most reservations that refine each other.
pub const RESERVATION_STACK: usize = 8;
/// Most labels of a reservation.
pub const RESERVATION_LABELS: usize = 64;
/// Most differently reserved parts of an agent, an offer or a task.
pub const RESERVED: usize = 10_000;
/// Most persistent volumes of an agent.
pub const VOLUMES: usize = 10_000;
/// Most persistent volumes of a task.
pub const TASK_VOLUMES: usize = 100;
/// Most capabilities of a framework.
pub const CAPABILITIES: usize = 100;
/// Most tasks in a Reconcile or a Register.
pub const TASKS: usize = 100_000;
/// Most objects of one kind in an answer to an operator.
pub const LISTED: usize = 10_000_000;

/// Most warnings in a status.
pub const WARNINGS: usize = 1_000;

/// Longest name, user, version or address, in bytes.
pub const NAME: usize = 255;
/// Longest URL, URI or path, in bytes.
pub const URL: usize = 4096;
/// Longest text for people, in bytes. A sender cuts what is longer.
pub const TEXT: usize = 16 << 10;
/// Command and environment of one task together, in bytes. Linux takes about 2 MiB (`ARG_MAX`), of which the agent's own
/// variables need a part.
pub const COMMAND_AND_ENV: usize = 1 << 20;
/// Most arguments of a command, and most variables of an environment.
pub const ARGUMENTS: usize = 10_000;
/// Most labels of one task or framework.
pub const LABELS: usize = 1_000;
/// All labels of one task or framework together, in bytes.
pub const LABEL_BYTES: usize = 64 << 10;
/// Most attributes of an agent.
pub const ATTRIBUTES: usize = 1_000;
/// Most custom scalars in one amount of resources.
pub const CUSTOM_SCALARS: usize = 100;
/// Most named ports of a task.
pub const TASK_PORTS: usize = 1_000;
/// Most artifacts of a task.
pub const ARTIFACTS: usize = 1_000;
/// Most health checks of a task.
pub const HEALTH_CHECKS: usize = 100;
/// Most bytes in a message to or from a task's agent.
pub const DATA: usize = 1 << 20;

/// Longest duration of any kind, ten years: a sum with a point in time never overflows. A sender sends no more.
pub const DURATION: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Shortest time for which the kernel holds what it gathers for a gang.
pub const GANG_HOLD_LEAST: Duration = Duration::from_secs(1);
/// Longest time for which the kernel holds what it gathers for a gang.
pub const GANG_HOLD: Duration = Duration::from_secs(3600);
/// Longest refusal, a year. What is longer is taken as a year (Mesos: 365 days).
pub const REFUSE: Duration = Duration::from_secs(365 * 24 * 3600);
/// The last millisecond that RFC 3339 can name: 9999-12-31T23:59:59.999Z.
pub const TIME_MS: u64 = 253_402_300_799_999;
/// Most mounts, secrets or devices of a container.
pub const MOUNTS: usize = 100;
/// Most groups beside a user's own (Linux takes 65,536).
pub const GROUPS: usize = 1_000;
/// Most limits of a container's processes: one of each kind.
pub const RLIMITS: usize = 16;
/// Most addresses of a container.
pub const ADDRESSES: usize = 100;
