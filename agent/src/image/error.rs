//! Why an image is not to be had.

use std::io;
use std::path::{Path, PathBuf};

use divvy_proto::container::Digest;

/// Each names what it is about, so that whoever wrote the image's name can act on it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageError {
    /// The system says no.
    #[error("cannot {what} {}: {source}", .path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not what it should be.
    #[error("{what} is not valid: {why}")]
    Malformed {
        /// Which part of the image.
        what: String,
        /// What is wrong, and what was expected.
        why: String,
    },
    /// Its content is not what its digest promises.
    #[error("{what} has the digest {found}, not {expected}: it is damaged, or somebody has changed it")]
    Digest {
        /// Which part of the image.
        what: String,
        /// What was promised.
        expected: Digest,
        /// What is there.
        found: String,
    },
    /// A layer cannot be unpacked.
    #[error("layer {layer}: {why}")]
    Layer {
        /// Which.
        layer: Digest,
        /// What in it is wrong.
        why: LayerError,
    },
    /// There is no such image.
    #[error("{0}")]
    NotFound(String),
    /// A registry does not deliver.
    #[error("registry {host}: {why}")]
    Registry {
        /// Which.
        host: String,
        /// What it said.
        why: String,
    },
    /// A registry does not answer, or stopped half-way.
    #[error("registry {host} does not answer: {why}")]
    Unreachable {
        /// Which.
        host: String,
        /// How that showed.
        why: String,
    },
    /// Containers run in it.
    #[error("{image} is used by {}", .by.join(", "))]
    InUse {
        /// Which image.
        image: String,
        /// By which containers.
        by: Vec<String>,
    },
    /// The agent ends.
    #[error("the agent is being stopped")]
    Stopped,
}

impl ImageError {
    pub(super) fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File { what, path, source }
    }

    pub(super) fn malformed(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Malformed { what: what.into(), why: why.into() }
    }
}

/// Why a layer cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LayerError {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Read(io::Error),
    /// It is no archive.
    #[error("it is not a tar archive, plain or compressed by gzip or zstd: {0}")]
    Archive(String),
    /// Something in it is not allowed.
    #[error("{path:?}: {why}")]
    Refused {
        /// Which entry.
        path: String,
        /// Why.
        why: &'static str,
    },
    /// Something in it cannot be written.
    #[error("cannot write {path:?}: {source}")]
    Write {
        /// Which entry.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// It is larger than an agent takes.
    #[error("it is too large: {0}")]
    TooLarge(String),
}
