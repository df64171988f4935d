//! All that the driver wants done.

use divvy_proto::scheduler::{Call, StreamError};

use crate::Write;

/// Names what is to be made durable. Ascending within one driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersistToken(pub u64);

/// Something to be done, in this order.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "effects are moved once, out of the vector they were pushed to")]
pub enum Effect {
    /// Open a stream to the leading master, closing any earlier one; then feed `Input::Connected` or `Input::Disconnected`.
    Connect,
    /// Close the stream.
    Disconnect,
    /// Send this on the stream.
    Send(Call),
    /// Make these changes durable, all or none, keys below the framework's prefix; then feed `Input::Persisted`.
    Persist {
        /// Names it.
        token: PersistToken,
        /// What.
        writes: Vec<Write>,
    },
    /// Nothing follows: the master ended the subscription for good. What was to be persisted still is.
    Stop(StreamError),
}
