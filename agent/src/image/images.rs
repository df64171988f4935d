//! Everything that is done about images: had for a container, pulled, listed, removed, collected.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use divvy_proto::Timestamp;
use divvy_proto::api::{AgentImage, PullEvent, PullStep, RemovedImages};
use divvy_proto::container::{Digest, ImageName, ImageReference};
use futures::{StreamExt, TryStreamExt};
use tokio::sync::{Semaphore, mpsc};
use tracing::{info, warn};

use super::error::ImageError;
use super::source::{self, Blob, Finding, Found, Part, Registries, Source, blocking};
use super::store::{Hold, Record, Store};
use super::unpack::{self, Limits};
use super::{Image, gc};
use crate::container::ContainerId;

/// Layers of one image that are fetched at once (Docker: 3), and layers of all images together.
const LAYERS_AT_ONCE: usize = 3;
const ALL_LAYERS_AT_ONCE: usize = 6;
/// How often a download says how far it is.
const TELL: u64 = 1 << 20;
/// How often the disk is looked at (kubelet: 5 min).
const LOOK: Duration = Duration::from_secs(60);
/// What was used this lately stays even when the disk is full (kubelet: 2 min).
const YOUNG: Duration = Duration::from_secs(120);
/// An image may be removed between being found and being taken.
const TRIES: usize = 3;

/// What an operator says about images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageOptions {
    /// A Docker configuration file with credentials for registries.
    pub credentials: Option<PathBuf>,
    /// Registries that are asked without TLS: `host` or `host:port`. Those on loopback are anyway.
    pub insecure: BTreeSet<String>,
    /// When more than the first percentage of the disk is used, unused images are removed until the second one is (kubelet: 85, 80).
    pub watermarks: (u64, u64),
}

impl Default for ImageOptions {
    fn default() -> Self {
        Self { credentials: None, insecure: BTreeSet::new(), watermarks: (85, 80) }
    }
}

/// The images of an agent. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Images(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Arc<Store>,
    registries: Registries,
    limits: Limits,
    watermarks: (u64, u64),
    /// Who waits for whom: a layer is fetched once, however many want it.
    layers: Mutex<BTreeMap<Digest, Weak<tokio::sync::Mutex<()>>>>,
    slots: Semaphore,
}

/// Where a pull says how far it is, if somebody listens. What a slow listener does not take is not said.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress(pub(crate) Option<mpsc::Sender<PullEvent>>);

impl Progress {
    fn say(&self, layer: &Digest, step: PullStep, have: u64, size: u64) {
        if let Some(listener) = &self.0 {
            drop(listener.try_send(PullEvent::Layer { layer: layer.clone(), step, have, size }));
        }
    }
}

impl Images {
    /// Opens the images below `root`.
    ///
    /// # Errors
    /// The directory cannot be used, or there can be no HTTP client.
    pub(crate) fn open(root: PathBuf, options: &ImageOptions) -> Result<Self, ImageError> {
        let client = |error: reqwest::Error| ImageError::NotFound(format!("no HTTP client: {error}"));
        let registries =
            Registries::new(options.insecure.clone(), options.credentials.clone()).map_err(client)?;
        Ok(Self(Arc::new(Inner {
            store: Arc::new(Store::open(root)?),
            registries,
            limits: Limits::default(),
            watermarks: options.watermarks,
            layers: Mutex::default(),
            slots: Semaphore::new(ALL_LAYERS_AT_ONCE),
        })))
    }

    /// The image for a container, which keeps it until [`Images::release`]. What is here is not asked for anew, but for what is
    /// called `latest`, and for local sources, which may have changed.
    ///
    /// # Errors
    /// It is not to be had; the error says why.
    pub(crate) async fn ensure(
        &self,
        name: &ImageName,
        container: &ContainerId,
    ) -> Result<Image, ImageError> {
        let mut tries = 1;
        loop {
            let (digest, _hold) = match self.usable(name) {
                Some(digest) => (digest, None),
                None => self.pull_or_keep(name).await?,
            };
            let (store, container) = (self.0.store.clone(), container.clone());
            match blocking(move || store.pin(&digest, &container)).await {
                Err(ImageError::NotFound(_)) if tries < TRIES => tries += 1,
                pinned => return pinned,
            }
        }
    }

    /// An image that may be used without asking its source.
    fn usable(&self, name: &ImageName) -> Option<Digest> {
        if let ImageName::Registry { reference: ImageReference::Digest(digest), .. } = name
            && self.0.store.has_image(digest)
        {
            return Some(digest.clone());
        }
        let (digest, stamp) = self.0.store.named(name)?;
        let is_current = match name {
            ImageName::OciLayout { .. } => false,
            ImageName::DockerArchive { .. } => stamp.is_some() && stamp == source::stamp_of(name),
            ImageName::Registry { reference: ImageReference::Tag(tag), .. } => tag != "latest",
            ImageName::Registry { .. } => true,
        };
        is_current.then_some(digest)
    }

    /// What is called `latest` and cannot be asked for now is what it was.
    async fn pull_or_keep(&self, name: &ImageName) -> Result<(Digest, Option<Hold>), ImageError> {
        match self.fetch(name, &Progress::default()).await {
            Err(error @ ImageError::Unreachable { .. }) => match self.0.store.named(name) {
                Some((digest, _)) => {
                    warn!("{error}; {name} is taken to be what it was: {digest}");
                    Ok((digest, None))
                }
                None => Err(error),
            },
            fetched => fetched.map(|(digest, hold)| (digest, Some(hold))),
        }
    }

    /// Asks the image's source for it anew, and fetches what is not here.
    ///
    /// # Errors
    /// It is not to be had; the error says why.
    pub(crate) async fn pull(&self, name: &ImageName, progress: &Progress) -> Result<AgentImage, ImageError> {
        let (digest, _hold) = self.fetch(name, progress).await?;
        let gone = || ImageError::NotFound(format!("{name} was removed in this very instant"));
        self.0.store.view(&digest).ok_or_else(gone)
    }

    async fn fetch(&self, name: &ImageName, progress: &Progress) -> Result<(Digest, Hold), ImageError> {
        let store = &self.0.store;
        let source = Source::open(name, &self.0.registries, &store.tmp()).await?;
        match source.find(|digest| store.has_image(digest)).await? {
            Finding::Known(digest) => {
                let hold = store.hold(Vec::new());
                let (store, name, stamp) = (store.clone(), name.clone(), source.stamp());
                blocking(move || store.name(&digest, &name, stamp).map(|()| (digest, hold))).await
            }
            Finding::New(found) => self.fetch_layers(name, &source, *found, progress).await,
        }
    }

    async fn fetch_layers(
        &self,
        name: &ImageName,
        source: &Source,
        found: Found,
        progress: &Progress,
    ) -> Result<(Digest, Hold), ImageError> {
        let Found { digest, configuration, layers } = found;
        let hold = self.0.store.hold(configuration.diff_ids.clone());
        let wanted = configuration.diff_ids.iter().zip(&layers);
        let fetched: Vec<_> =
            wanted.map(|(diff_id, blob)| self.layer(source, diff_id, blob, progress)).collect();
        futures::stream::iter(fetched).buffer_unordered(LAYERS_AT_ONCE).try_collect::<()>().await?;
        let now = Timestamp::wall_clock();
        let record = Record {
            digest: digest.clone(),
            names: [(name.clone(), source.stamp())].into(),
            layers: configuration.diff_ids,
            config: configuration.config,
            pulled: now,
            used: now,
        };
        info!("image {name} is here: {digest}");
        let store = self.0.store.clone();
        blocking(move || store.add(record).map(|()| (digest, hold))).await
    }

    /// Sees to it that a layer is here.
    async fn layer(
        &self,
        source: &Source,
        diff_id: &Digest,
        blob: &Blob,
        progress: &Progress,
    ) -> Result<(), ImageError> {
        let (store, size) = (&self.0.store, blob.size());
        let turn = self.turn(diff_id);
        let _turn = turn.lock().await;
        if store.has_layer(diff_id) {
            progress.say(diff_id, PullStep::Present, size, size);
            return Ok(());
        }
        let _slot = self.0.slots.acquire().await.map_err(|_| ImageError::Stopped)?;
        self.has_room(size)?;
        progress.say(diff_id, PullStep::Downloading, 0, size);
        let told = AtomicU64::new(0);
        let tell = |have: u64| {
            if have.saturating_sub(told.load(Ordering::Relaxed)) >= TELL {
                told.store(have, Ordering::Relaxed);
                progress.say(diff_id, PullStep::Downloading, have, size);
            }
        };
        let part = source.layer(blob, &store.tmp(), tell).await?;
        progress.say(diff_id, PullStep::Unpacking, size, size);
        let (store, limits) = (store.clone(), self.0.limits);
        let (diff_id, expected) = (diff_id.clone(), blob.digest().cloned());
        let wanted = diff_id.clone();
        blocking(move || unpacked(&store, part, &diff_id, expected.as_ref(), limits)).await?;
        progress.say(&wanted, PullStep::Done, size, size);
        Ok(())
    }

    fn turn(&self, diff_id: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut layers = self.0.layers.lock().unwrap_or_else(PoisonError::into_inner);
        layers.retain(|_, turn| turn.strong_count() > 0);
        let known = layers.get(diff_id).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let turn = Arc::default();
            layers.insert(diff_id.clone(), Arc::downgrade(&turn));
            turn
        })
    }

    /// Before it is downloaded: a layer is at least as large unpacked.
    fn has_room(&self, size: u64) -> Result<(), ImageError> {
        let (_, _, left) = disk(self.0.store.root())?;
        if left < size.saturating_add(self.0.limits.spare) {
            let source = std::io::Error::other(format!("a layer has {size} bytes, and only {left} are left"));
            return Err(ImageError::file("unpack into", self.0.store.root())(source));
        }
        Ok(())
    }

    /// All images that are here, the latest used first.
    pub(crate) fn list(&self) -> Vec<AgentImage> {
        self.0.store.list()
    }

    /// Removes an image by a name or a digest.
    ///
    /// # Errors
    /// It is not here, or it is used.
    pub(crate) async fn remove(&self, image: String) -> Result<RemovedImages, ImageError> {
        let store = self.0.store.clone();
        blocking(move || store.remove(&image)).await
    }

    /// Removes whatever no container uses and was not used for `unused`.
    ///
    /// # Errors
    /// The file system says no.
    pub(crate) async fn collect(&self, unused: Duration) -> Result<RemovedImages, ImageError> {
        let store = self.0.store.clone();
        blocking(move || store.collect(unused, u64::MAX)).await
    }

    /// A container is gone: its image may go, too.
    pub(crate) fn release(&self, container: &ContainerId) {
        self.0.store.release(container);
    }

    /// These are all the containers that there are or will be: what others had may go.
    pub(crate) fn retain(&self, containers: &BTreeSet<ContainerId>) {
        self.0.store.retain(containers);
    }

    /// Removes unused images whenever the disk becomes full. Runs until it is dropped.
    pub(crate) async fn tend(self) {
        let mut look = tokio::time::interval(LOOK);
        loop {
            look.tick().await;
            let images = self.clone();
            match blocking(move || images.relieve()).await {
                Ok(removed) if removed.removed.is_empty() => {}
                Ok(removed) => {
                    info!(
                        "the disk is full: {} unused images removed, {} bytes",
                        removed.removed.len(),
                        removed.freed
                    );
                }
                Err(error) => warn!("cannot collect images: {error}"),
            }
        }
    }

    fn relieve(&self) -> Result<RemovedImages, ImageError> {
        let (size, used, _) = disk(self.0.store.root())?;
        match gc::needed(size, used, self.0.watermarks) {
            0 => Ok(RemovedImages::default()),
            need => self.0.store.collect(YOUNG, need),
        }
    }
}

/// Unpacks a layer beside its place, compares it with its digests, and moves it there.
fn unpacked(
    store: &Store,
    part: Part,
    diff_id: &Digest,
    expected: Option<&Digest>,
    limits: Limits,
) -> Result<(), ImageError> {
    let directory = store.new_layer()?;
    let most = part.size;
    let unpacked = unpack::unpack(part, most, directory.path(), limits);
    let unpacked = unpacked.map_err(|why| ImageError::Layer { layer: diff_id.clone(), why })?;
    let differs = |what: &str, expected: &Digest, found: &str| {
        (expected.as_str() != found).then(|| ImageError::Digest {
            what: format!("{what} {diff_id}"),
            expected: expected.clone(),
            found: found.to_owned(),
        })
    };
    let damaged = expected.and_then(|expected| differs("the file of layer", expected, &unpacked.digest));
    if let Some(error) = damaged.or_else(|| differs("the archive of layer", diff_id, &unpacked.diff_id)) {
        return Err(error);
    }
    store.adopt(diff_id, unpacked.size, directory.path())?;
    // If it was renamed away there is nothing left to remove.
    drop(directory);
    Ok(())
}

/// Size, used and left, in bytes, as `df` counts: what is kept for root is neither used nor left.
fn disk(path: &Path) -> Result<(u64, u64, u64), ImageError> {
    let stat = rustix::fs::statvfs(path).map_err(|error| ImageError::file("look at", path)(error.into()))?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    let used = bytes(stat.f_blocks.saturating_sub(stat.f_bfree));
    Ok((used.saturating_add(bytes(stat.f_bavail)), used, bytes(stat.f_bavail)))
}
