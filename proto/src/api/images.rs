//! Images that agents have, and what is done about them.

use serde::{Deserialize, Serialize};

use crate::container::{Digest, ImageName};
use crate::time::Timestamp;

/// An image that an agent has: `GET /api/v1/agents/{id}/images` answers a list of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentImage {
    /// Of its manifest.
    pub digest: Digest,
    /// Under which names it was asked for; none if each of them means another image by now.
    pub names: Vec<ImageName>,
    /// Of its files, in bytes. Layers that other images have too count for each.
    pub size: u64,
    /// How many layers it has.
    pub layers: usize,
    /// The containers that run in it.
    pub used_by: Vec<String>,
    /// Since when the agent has it.
    pub pulled: Timestamp,
    /// When a container was last started in it, or when it was pulled.
    pub used: Timestamp,
}

/// The body of `POST /api/v1/agents/{id}/images/pull` and `…/images/remove`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageOrder {
    /// Which: a name; to remove one, also its digest or the beginning of that.
    pub image: String,
}

/// The body of `POST /api/v1/agents/{id}/images/gc`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageCollection {
    /// Only what was not used for so many seconds.
    pub unused_for: u64,
}

/// What was removed: the answer to `POST /api/v1/agents/{id}/images/remove` and `…/images/gc`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedImages {
    /// Which.
    pub removed: Vec<Digest>,
    /// In bytes: layers that other images have too stay.
    pub freed: u64,
}

/// A line of the answer to `POST /api/v1/agents/{id}/images/pull`; the last one is `done` or `failed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum PullEvent {
    /// A layer comes along.
    Layer {
        /// Its archive's digest.
        layer: Digest,
        /// What happens to it.
        step: PullStep,
        /// So many bytes of it are here.
        have: u64,
        /// Of so many.
        size: u64,
    },
    /// The image is here.
    Done {
        /// What it is.
        image: AgentImage,
    },
    /// It is not to be had.
    Failed {
        /// Why.
        error: String,
    },
}

/// What happens to a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullStep {
    /// It was here before.
    Present,
    /// It is being downloaded.
    Downloading,
    /// It is being unpacked.
    Unpacking,
    /// It is here now.
    Done,
}
