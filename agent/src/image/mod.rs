//! Images: what an agent has of them on its disk, and what they say of the programs in them.
//!
//! ```text
//!   source (layout, archive, registry) ──► layer (compression, digests) ──► tar ──► unpack ──► store
//! ```
//!
//! Not here: what a container makes of the layers; that is the rootfs isolator's.

mod error;
mod gc;
mod images;
mod layer;
mod manifest;
mod source;
mod store;
mod tar;
mod tree;
mod unpack;

use std::collections::BTreeMap;
use std::path::PathBuf;

use divvy_proto::container::{Digest, StopSignal};
use serde::{Deserialize, Serialize};

pub(crate) use error::ImageError;
pub use images::ImageOptions;
pub(crate) use images::{Images, Progress};

/// An image that is on this machine, unpacked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Of its manifest, for this platform.
    pub digest: Digest,
    /// Directories with its layers as the overlay file system wants them, the lowest first.
    pub layers: Vec<PathBuf>,
    /// What it says of itself.
    pub config: ImageConfig,
}

/// What an image says of the program in it: the `config` of the OCI image specification.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// The program, with its first arguments.
    pub entrypoint: Vec<String>,
    /// Further arguments, or the program if there is no entry point.
    pub cmd: Vec<String>,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// Where it starts: an absolute path.
    pub workdir: Option<String>,
    /// Whom it runs as: `user`, `uid`, `user:group`, `uid:gid`.
    pub user: Option<String>,
    /// What asks it to end.
    pub stop_signal: Option<StopSignal>,
}
