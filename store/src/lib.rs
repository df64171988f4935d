//! Durable state behind one trait: get, range, atomic compare-and-write batches, watch, and leadership with a fencing token.
//!
//! It is for what has to survive a crash and cannot be rebuilt, which is small: every value can be listed, and a batch is at
//! most [`MAX_BATCH_BYTES`]. Two engines are to implement it: [`Embedded`], in a file, for one process; and etcd (to come), for
//! several. Both obey the same limits and pass the same suite, so what works on one works on the other.
//!
//! Not here: what the values mean.
//!
//! # Notes for users
//!
//! - Begin with [`Store::range`], then [`Store::watch`] from its revision: together they miss nothing. A watch that ends with
//!   [`WatchEnd::Lagged`] or [`WatchEnd::TooSlow`] is begun again the same way.
//! - A condition that does not hold is a value ([`Commit::Conflict`]), not an error.
//! - After an error of [`Store::commit`] the batch may or may not have been done: read before repeating it.
//! - A leader puts its [`Leadership::fence`] as a condition on every write, and stops when [`Leadership::lost`] resolves.
//! - Many commits at once are cheap: the embedded engine makes them durable together.
//!
//! ```
//! use divvy_store::{Batch, Commit, Condition, Embedded, Key, Store};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), divvy_store::StoreError> {
//! let store = Embedded::in_memory()?;
//! let leadership = store.campaign(&Key::new("masters")?, "10.0.0.7:5050".into()).await?;
//! let fence = Condition::Fence(leadership.fence().clone());
//!
//! let agents = Key::new("agents")?;
//! let admit = Batch::new()
//!     .when(fence.clone())
//!     .when(Condition::Absent(agents.join("a1-1")?))
//!     .put(agents.join("a1-1")?, "host-7");
//! assert!(matches!(store.commit(admit.clone()).await?, Commit::Done { .. }));
//! assert!(matches!(store.commit(admit).await?, Commit::Conflict(Condition::Absent(_))));
//!
//! let listing = store.range(&agents.below()).await?;
//! assert_eq!(listing.entries.len(), 1);
//! let mut changes = store.watch(&agents.below(), listing.revision).await?;
//!
//! store.commit(Batch::new().when(fence.clone()).delete(agents.join("a1-1")?)).await?;
//! assert_eq!(changes.next().await.unwrap().unwrap().changes.len(), 1);
//!
//! leadership.resign().await;
//! let late = Batch::new().when(fence.clone()).put(agents.join("a1-2")?, "host-8");
//! assert_eq!(store.commit(late).await?, Commit::Conflict(fence));
//! # Ok(())
//! # }
//! ```

mod batch;
mod embedded;
mod error;
mod key;
mod leadership;
mod store;
#[cfg(any(test, feature = "suite"))]
pub mod suite;
mod watch;

pub use batch::{Batch, Commit, Condition, MAX_BATCH_BYTES, MAX_OPERATIONS, Write};
pub use embedded::Embedded;
pub use error::StoreError;
pub use key::{Key, MAX_KEY, Prefix};
pub use leadership::{Leadership, Release};
pub use store::{Entry, Fence, Leader, Listing, Revision, Store};
pub use watch::{Change, WATCH_BUFFER, Watch, WatchEnd, WatchEvent, WatchSender};
