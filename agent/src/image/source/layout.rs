//! A directory with the OCI image layout: `oci-layout`, `index.json`, `blobs/sha256/<digest>`.

use std::fs::File;
use std::path::PathBuf;

use divvy_proto::container::Digest;
use serde::Deserialize;

use super::super::error::ImageError;
use super::super::manifest::{self, Descriptor, Document, Platform, json};
use super::{open_regular, read_small};

/// An opened layout.
#[derive(Debug, Clone)]
pub(in crate::image) struct Layout {
    path: PathBuf,
    tag: Option<String>,
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Mark {
    #[serde(rename = "imageLayoutVersion")]
    version: String,
}

impl Layout {
    pub(super) fn open(path: PathBuf, tag: Option<String>) -> Result<Self, ImageError> {
        let name = path.display().to_string();
        let mark: Mark = json(&format!("{name}/oci-layout"), &read_small(&path.join("oci-layout"))?)?;
        if !mark.version.starts_with("1.") {
            let why = format!("its version is {:?}, expected 1.x", mark.version);
            return Err(ImageError::malformed(format!("the OCI layout {name}"), why));
        }
        let what = format!("{name}/index.json");
        match manifest::document(&what, &read_small(&path.join("index.json"))?)? {
            Document::Index(manifests) => Ok(Self { path, tag, manifests }),
            Document::Manifest(_) => Err(ImageError::malformed(what, "it is not an index")),
        }
    }

    /// The manifest or index of the wanted image.
    pub(super) fn top(&self, machine: &Platform) -> Result<Descriptor, ImageError> {
        let what = format!("the OCI layout {}", self.path.display());
        let tags = || self.manifests.iter().filter_map(Descriptor::tag);
        let wanted = match &self.tag {
            Some(tag) => Some(tag.as_str()),
            None if tags().any(|tag| tag == "latest") => Some("latest"),
            None => tags().next(),
        };
        if self.tag.is_none() && wanted != Some("latest") && tags().any(|tag| Some(tag) != wanted) {
            let tags: Vec<_> = tags().collect();
            return Err(ImageError::NotFound(format!(
                "{what} has several images: name one of {}",
                tags.join(", ")
            )));
        }
        let matching =
            self.manifests.iter().filter(|descriptor| wanted.is_none() || descriptor.tag() == wanted);
        if matching.clone().next().is_none() {
            let tags: Vec<_> = tags().collect();
            let there = if tags.is_empty() { "no tags".to_owned() } else { tags.join(", ") };
            let wanted = wanted.unwrap_or("any image");
            return Err(ImageError::NotFound(format!("{what} does not have {wanted}, only {there}")));
        }
        manifest::choose(&what, matching, machine).cloned()
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.path.join("blobs/sha256").join(digest.hex())
    }

    pub(super) fn read(&self, digest: &Digest) -> Result<Vec<u8>, ImageError> {
        read_small(&self.blob(digest))
    }

    pub(super) fn open_blob(&self, digest: &Digest) -> Result<File, ImageError> {
        let path = self.blob(digest);
        open_regular(&path).map_err(ImageError::file("open", &path))
    }
}
