//! Where images come from: an OCI layout, an archive of `docker save`, a registry. Each says which layers an image has, and opens
//! them.
//!
//! Not here: what is kept of them; see [`super::store`].

mod archive;
mod credentials;
mod layout;
mod registry;

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use divvy_proto::container::{Digest, ImageName};

use self::archive::Archive;
use self::layout::Layout;
pub(super) use self::registry::Registries;
use self::registry::Repository;
use super::error::ImageError;
use super::layer;
use super::manifest::{self, Configuration, Descriptor, Document, MAX_DOCUMENT, Manifest, Platform};

/// Of indexes that name indexes.
const MAX_DEPTH: usize = 4;

/// An image as its source has it.
#[derive(Debug)]
pub(super) struct Found {
    /// Of its manifest; of its configuration if it has none.
    pub(super) digest: Digest,
    pub(super) configuration: Configuration,
    /// As many as the configuration names, the lowest first.
    pub(super) layers: Vec<Blob>,
}

/// Where a layer lies in its source.
#[derive(Debug, Clone)]
pub(super) enum Blob {
    /// By its digest.
    Named(Descriptor),
    /// In an archive.
    Part { offset: u64, size: u64 },
}

impl Blob {
    pub(super) const fn size(&self) -> u64 {
        match self {
            Self::Named(descriptor) => descriptor.size,
            Self::Part { size, .. } => *size,
        }
    }

    pub(super) const fn digest(&self) -> Option<&Digest> {
        match self {
            Self::Named(descriptor) => Some(&descriptor.digest),
            Self::Part { .. } => None,
        }
    }
}

/// What was found under a name.
#[derive(Debug)]
pub(super) enum Finding {
    /// An image that is here already.
    Known(Digest),
    New(Box<Found>),
}

/// One image's source.
pub(super) enum Source {
    Layout(Layout),
    Archive(Archive),
    Registry(Box<Repository>),
}

impl Source {
    /// Opens the place that `name` names; temporary files lie in `tmp`.
    ///
    /// # Errors
    /// There is nothing of the kind.
    pub(super) async fn open(
        name: &ImageName,
        registries: &Registries,
        tmp: &Path,
    ) -> Result<Self, ImageError> {
        match name {
            ImageName::OciLayout { path, tag } => {
                let (path, tag) = (path.clone(), tag.clone());
                blocking(move || Layout::open(path.into(), tag)).await.map(Self::Layout)
            }
            ImageName::DockerArchive { path, tag } => {
                let (path, tag, tmp) = (path.clone(), tag.clone(), tmp.to_owned());
                blocking(move || Archive::open(path.into(), tag, &tmp)).await.map(Self::Archive)
            }
            ImageName::Registry { host, name, reference } => {
                let repository = registries.repository(host, name, reference.clone()).await?;
                Ok(Self::Registry(Box::new(repository)))
            }
        }
    }

    /// Finds the image for this machine. What `is_known` is not read further.
    ///
    /// # Errors
    /// There is none, or it is not valid, or its source does not deliver.
    pub(super) async fn find(&self, is_known: impl Fn(&Digest) -> bool) -> Result<Finding, ImageError> {
        let machine = Platform::own();
        let (top, what) = match self {
            Self::Archive(archive) => return archive.find(is_known, &machine),
            Self::Layout(layout) => (layout.top(&machine)?, "the OCI layout's manifest"),
            Self::Registry(repository) => {
                let (digest, bytes) = repository.top().await?;
                return self.follow(digest, &bytes, is_known, &machine).await;
            }
        };
        let bytes = self.document(what, &top).await?;
        self.follow(top.digest, &bytes, is_known, &machine).await
    }

    /// From the top document to the manifest, its configuration and its layers.
    async fn follow(
        &self,
        mut digest: Digest,
        bytes: &[u8],
        is_known: impl Fn(&Digest) -> bool,
        machine: &Platform,
    ) -> Result<Finding, ImageError> {
        let mut document = manifest::document(&format!("manifest {digest}"), bytes)?;
        for _ in 0..MAX_DEPTH {
            match document {
                Document::Manifest(_) if is_known(&digest) => return Ok(Finding::Known(digest)),
                Document::Manifest(manifest) => return self.found(digest, manifest, machine).await,
                Document::Index(manifests) => {
                    let what = format!("index {digest}");
                    let chosen = manifest::choose(&what, &manifests, machine)?;
                    let bytes = self.document("a manifest", chosen).await?;
                    digest = chosen.digest.clone();
                    document = manifest::document(&format!("manifest {digest}"), &bytes)?;
                }
            }
        }
        Err(ImageError::malformed(format!("index {digest}"), "indexes are nested too deeply"))
    }

    async fn found(
        &self,
        digest: Digest,
        manifest: Manifest,
        machine: &Platform,
    ) -> Result<Finding, ImageError> {
        let bytes = self.document("the image's configuration", &manifest.config).await?;
        let what = format!("configuration {}", manifest.config.digest);
        let configuration = manifest::configuration(&what, &bytes, machine)?;
        let (layers, diff_ids) = (manifest.layers.len(), configuration.diff_ids.len());
        if layers != diff_ids {
            let why = format!("it names {diff_ids} layers, and the manifest {layers}");
            return Err(ImageError::malformed(what, why));
        }
        let layers = manifest.layers.into_iter().map(Blob::Named).collect();
        Ok(Finding::New(Box::new(Found { digest, configuration, layers })))
    }

    /// A small blob, checked.
    async fn document(&self, what: &str, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
        if descriptor.size > MAX_DOCUMENT {
            let why = format!("it has {} bytes, expected at most {MAX_DOCUMENT}", descriptor.size);
            return Err(ImageError::malformed(what, why));
        }
        let bytes = match self {
            Self::Layout(layout) => {
                let layout = layout.clone();
                let digest = descriptor.digest.clone();
                blocking(move || layout.read(&digest)).await?
            }
            Self::Registry(repository) => repository.document(descriptor).await?,
            Self::Archive(_) => return Err(ImageError::NotFound("archives have no blobs".to_owned())),
        };
        check(what, &descriptor.digest, &bytes)?;
        Ok(bytes)
    }

    /// Opens a layer, downloading it first if need be; `progress` is told how much of it there is. Whoever reads it checks it.
    ///
    /// # Errors
    /// The source does not deliver.
    pub(super) async fn layer(
        &self,
        blob: &Blob,
        tmp: &Path,
        progress: impl Fn(u64) + Send,
    ) -> Result<Part, ImageError> {
        match (self, blob) {
            (Self::Layout(layout), Blob::Named(descriptor)) => {
                let (layout, digest) = (layout.clone(), descriptor.digest.clone());
                blocking(move || layout.open_blob(&digest))
                    .await
                    .map(|file| Part::whole(file, descriptor.size))
            }
            (Self::Registry(repository), Blob::Named(descriptor)) => {
                let file = repository.blob(descriptor, tmp, progress).await?;
                Ok(Part::whole(file, descriptor.size))
            }
            (Self::Archive(archive), Blob::Part { offset, size }) => Ok(archive.part(*offset, *size)),
            _ => Err(ImageError::NotFound("the layer is of another source".to_owned())),
        }
    }

    /// What changes when the source does, for sources that are costly to read.
    pub(super) fn stamp(&self) -> Option<String> {
        match self {
            Self::Archive(archive) => Some(archive.stamp().to_owned()),
            _ => None,
        }
    }
}

/// What the file of an archive looks like now: see [`Source::stamp`].
pub(super) fn stamp_of(name: &ImageName) -> Option<String> {
    match name {
        ImageName::DockerArchive { path, .. } => {
            open_regular(Path::new(path)).and_then(|file| archive::stamp(&file)).ok()
        }
        _ => None,
    }
}

/// A part of a file, read without moving the file's own position: several layers lie in one archive.
#[derive(Debug)]
pub(super) struct Part {
    file: Arc<File>,
    at: u64,
    end: u64,
    /// The most that there may be.
    pub(super) size: u64,
}

impl Part {
    /// All of a file, which should have `size` bytes.
    fn whole(file: File, size: u64) -> Self {
        Self { file: Arc::new(file), at: 0, end: u64::MAX, size }
    }
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(buffer.get_mut(..most).unwrap_or_default(), self.at)?;
        self.at += u64::try_from(count).unwrap_or(0);
        Ok(count)
    }
}

/// Compares some bytes with what they should be.
fn check(what: &str, expected: &Digest, bytes: &[u8]) -> Result<(), ImageError> {
    let found = layer::digest_of(bytes);
    match found == expected.as_str() {
        true => Ok(()),
        false => Err(ImageError::Digest { what: what.to_owned(), expected: expected.clone(), found }),
    }
}

/// Never blocks, whatever the file is.
fn open_regular(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is not a regular file")),
    }
}

/// A small file, whole.
fn read_small(path: &Path) -> Result<Vec<u8>, ImageError> {
    let file = open_regular(path).map_err(ImageError::file("open", path))?;
    let mut bytes = Vec::new();
    file.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes).map_err(ImageError::file("read", path))?;
    match u64::try_from(bytes.len()).is_ok_and(|length| length <= MAX_DOCUMENT) {
        true => Ok(bytes),
        false => Err(ImageError::malformed(path.display().to_string(), "it is longer than 4 MiB")),
    }
}

/// Does what waits for a disk on a thread that may wait.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ImageError::Stopped)?
}
