//! What goes over the wire, generated from `divvy/v1/*.proto`; the comments there are the documentation.
//!
//! Not here: any check. Whatever arrives becomes a domain type through [`crate::convert`] or is refused.
#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, clippy::restriction)]

include!(concat!(env!("OUT_DIR"), "/divvy.v1.rs"));

/// The encoded `FileDescriptorSet` of this package, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/divvy.v1.bin"));
