//! Ports of a cluster's own: a block below those that the system gives to outgoing connections, held by a lock that other
//! test processes see, too.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Blocks are taken from here, below the ports of `divvy dev`.
const FIRST: u16 = 12_000;
const END: u16 = 20_000;
const SIZE: u16 = 200;

/// The next block that this process tries.
static NEXT: AtomicU16 = AtomicU16::new(0);

/// Two hundred ports that no other cluster of any test uses.
pub struct Ports {
    first: u16,
    _lock: TcpListener,
}

impl Ports {
    /// Takes a block that nobody has.
    pub fn take() -> Self {
        let blocks = (END - FIRST) / SIZE;
        for _ in 0..blocks {
            let first = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % blocks * SIZE;
            let is_free = |port| TcpListener::bind(("127.0.0.1", port)).ok();
            if let (Some(lock), Some(_)) = (is_free(first), is_free(first + 1)) {
                return Self { first, _lock: lock };
            }
        }
        panic!("no free block of ports between {FIRST} and {END}")
    }

    /// The master's.
    pub fn master(&self) -> u16 {
        self.first + 1
    }

    /// What an agent may give to tasks: `first-last`.
    pub fn of_agent(&self, number: u16) -> String {
        let first = self.first + 10 + (number - 1) * 40;
        format!("{first}-{}", first + 39)
    }
}
