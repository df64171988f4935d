//! What an agent has of images on its disk, below `<work_dir>/images`:
//!
//! ```text
//!   layers/<id>/       an unpacked layer, shared by every image that has it; <id> begins its diff id
//!   layers/<id>.json   what it is
//!   manifests/<id>.json  an image: its names, layers, configuration; modified when it was last of use
//!   pins/<container>   which layers a container needs
//!   tmp/               whatever is not finished; emptied when the agent starts
//! ```
//!
//! Layers and records appear by being renamed, so that an agent that is killed leaves nothing by halves. Not here: where images
//! come from.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use divvy_proto::Timestamp;
use divvy_proto::api::{AgentImage, RemovedImages};
use divvy_proto::container::{Digest, ImageName};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::error::ImageError;
use super::gc::{self, Candidate};
use super::{Image, ImageConfig};
use crate::container::ContainerId;

/// So many hexadecimal digits name a layer's directory: 128 bits. Mount options have room for one page, and images many layers.
const SHORT: usize = 32;

/// An image as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) digest: Digest,
    /// With what the source's file looked like, if that is asked.
    pub(super) names: BTreeMap<ImageName, Option<String>>,
    /// Diff ids, the lowest first.
    pub(super) layers: Vec<Digest>,
    pub(super) config: ImageConfig,
    pub(super) pulled: Timestamp,
    /// The file's own time of modification.
    #[serde(skip)]
    pub(super) used: Timestamp,
}

#[derive(Debug, Serialize, Deserialize)]
struct LayerRecord {
    diff_id: Digest,
    size: u64,
}

/// What a container needs for as long as it is there.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Pin {
    image: Digest,
    layers: Vec<Digest>,
}

#[derive(Debug, Default)]
struct State {
    images: BTreeMap<Digest, Record>,
    /// With the sizes of their files.
    layers: BTreeMap<Digest, u64>,
    /// Nothing is known of a pin that cannot be read: then every layer stays.
    pins: BTreeMap<ContainerId, Option<Pin>>,
    /// Layers of images that are being pulled, and by how many.
    holds: BTreeMap<Digest, usize>,
}

/// The directory and what is in it. One agent owns it.
#[derive(Debug)]
pub(super) struct Store {
    root: PathBuf,
    state: Mutex<State>,
}

/// Keeps layers from being collected while it lives.
#[derive(Debug)]
pub(super) struct Hold {
    store: Arc<Store>,
    layers: Vec<Digest>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.store.lock();
        for layer in &self.layers {
            let left = state.holds.remove(layer).unwrap_or(1) - 1;
            if left > 0 {
                state.holds.insert(layer.clone(), left);
            }
        }
    }
}

impl Store {
    /// Opens the directory, and removes what an earlier agent did not finish. Only the agent may enter it: there are programs with
    /// setuid in it.
    ///
    /// # Errors
    /// The file system says no.
    pub(super) fn open(root: PathBuf) -> Result<Self, ImageError> {
        let prepare = |path: &Path| {
            fs::create_dir_all(path)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o700))
        };
        let tmp = root.join("tmp");
        if let Err(error) = fs::remove_dir_all(&tmp)
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!("cannot remove all of {}: {error}", tmp.display());
        }
        for path in [&root, &tmp, &root.join("layers"), &root.join("manifests"), &root.join("pins")] {
            prepare(path).map_err(ImageError::file("prepare the directory", path))?;
        }
        let store = Self { root, state: Mutex::default() };
        let mut state = State::default();
        store.load_layers(&mut state)?;
        store.load_images(&mut state)?;
        store.load_pins(&mut state)?;
        *store.lock() = state;
        Ok(store)
    }

    fn load_layers(&self, state: &mut State) -> Result<(), ImageError> {
        let mut known = BTreeSet::new();
        for (path, name) in entries(&self.root.join("layers"))? {
            let Some(id) = name.strip_suffix(".json") else { continue };
            match read::<LayerRecord>(&path) {
                Ok(layer) if short(&layer.diff_id) == id && path.with_extension("").is_dir() => {
                    known.insert(id.to_owned());
                    state.layers.insert(layer.diff_id, layer.size);
                }
                _ => discard(&path),
            }
        }
        for (path, name) in entries(&self.root.join("layers"))? {
            if !name.ends_with(".json") && !known.contains(&name) {
                info!("removing {}, which was not finished", path.display());
                self.trash(&path)?;
            }
        }
        Ok(())
    }

    fn load_images(&self, state: &mut State) -> Result<(), ImageError> {
        for (path, _) in entries(&self.root.join("manifests"))? {
            let modified = fs::metadata(&path).and_then(|data| data.modified());
            match read::<Record>(&path) {
                Ok(record) if record.layers.iter().all(|layer| state.layers.contains_key(layer)) => {
                    let used = modified.map_or(record.pulled, timestamp);
                    state.images.insert(record.digest.clone(), Record { used, ..record });
                }
                Ok(record) => {
                    warn!("image {} has lost layers, and is forgotten", record.digest);
                    discard(&path);
                }
                Err(error) => {
                    warn!("{} is damaged, and its image is forgotten: {error}", path.display());
                    discard(&path);
                }
            }
        }
        Ok(())
    }

    fn load_pins(&self, state: &mut State) -> Result<(), ImageError> {
        for (path, name) in entries(&self.root.join("pins"))? {
            let Ok(container) = ContainerId::new(name) else { continue };
            let pin = read(&path).map_err(|error| warn!("{} is damaged: {error}", path.display()));
            state.pins.insert(container, pin.ok());
        }
        Ok(())
    }

    /// Where what is not finished belongs.
    pub(super) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.root.join("layers").join(short(diff_id))
    }

    fn record_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("manifests").join(format!("{}.json", digest.hex()))
    }

    pub(super) fn has_layer(&self, diff_id: &Digest) -> bool {
        self.lock().layers.contains_key(diff_id)
    }

    pub(super) fn has_image(&self, digest: &Digest) -> bool {
        self.lock().images.contains_key(digest)
    }

    /// What a name meant when it was last asked for, and what its source looked like then.
    pub(super) fn named(&self, name: &ImageName) -> Option<(Digest, Option<String>)> {
        let state = self.lock();
        let found = state.images.values().find_map(|image| image.names.get(name).map(|stamp| (image, stamp)));
        found.map(|(image, stamp)| (image.digest.clone(), stamp.clone()))
    }

    /// Keeps these layers, whether they are there yet or not.
    pub(super) fn hold(self: &Arc<Self>, layers: Vec<Digest>) -> Hold {
        let mut state = self.lock();
        for layer in &layers {
            *state.holds.entry(layer.clone()).or_default() += 1;
        }
        drop(state);
        Hold { store: self.clone(), layers }
    }

    /// Takes a layer that was unpacked into `from`, a directory below [`Store::tmp`].
    ///
    /// # Errors
    /// The file system says no.
    pub(super) fn adopt(&self, diff_id: &Digest, size: u64, from: &Path) -> Result<(), ImageError> {
        // After a power cut a renamed directory may be there and its files not: nobody would notice.
        let synced = File::open(from).and_then(|directory| Ok(rustix::fs::syncfs(directory)?));
        synced.map_err(ImageError::file("write out", from))?;
        let mut state = self.lock();
        if state.layers.contains_key(diff_id) {
            return Ok(());
        }
        let path = self.layer_path(diff_id);
        fs::rename(from, &path).map_err(ImageError::file("move a layer to", &path))?;
        let record = LayerRecord { diff_id: diff_id.clone(), size };
        self.write(&path.with_extension("json"), &record)?;
        state.layers.insert(diff_id.clone(), size);
        Ok(())
    }

    /// Notes an image whose layers are all here.
    ///
    /// # Errors
    /// The file system says no.
    pub(super) fn add(&self, record: Record) -> Result<(), ImageError> {
        let mut state = self.lock();
        for name in record.names.keys() {
            self.take_name(&mut state, name, &record.digest)?;
        }
        self.write(&self.record_path(&record.digest), &record)?;
        state.images.insert(record.digest.clone(), record);
        Ok(())
    }

    /// Notes that a name means an image that is here.
    ///
    /// # Errors
    /// It is not here any more, or the file system says no.
    pub(super) fn name(
        &self,
        digest: &Digest,
        name: &ImageName,
        stamp: Option<String>,
    ) -> Result<(), ImageError> {
        let mut state = self.lock();
        self.take_name(&mut state, name, digest)?;
        let record = state.images.get_mut(digest).ok_or_else(|| gone(digest))?;
        if record.names.get(name) != Some(&stamp) {
            record.names.insert(name.clone(), stamp);
            let record = record.clone();
            self.write(&self.record_path(digest), &record)?;
        }
        Ok(())
    }

    /// A name means one image only.
    fn take_name(&self, state: &mut State, name: &ImageName, for_image: &Digest) -> Result<(), ImageError> {
        for record in state.images.values_mut() {
            if record.digest != *for_image && record.names.remove(name).is_some() {
                self.write(&self.record_path(&record.digest), record)?;
            }
        }
        Ok(())
    }

    /// Gives a container an image, and keeps it for as long as the container is there.
    ///
    /// # Errors
    /// It is not here any more, or the file system says no.
    pub(super) fn pin(&self, digest: &Digest, container: &ContainerId) -> Result<Image, ImageError> {
        let mut state = self.lock();
        let path = self.record_path(digest);
        let record = state.images.get_mut(digest).ok_or_else(|| gone(digest))?;
        record.used = Timestamp::wall_clock();
        // Only the order of removal depends on it.
        drop(File::open(path).and_then(|file| file.set_modified(SystemTime::now())));
        let (layers, config) = (record.layers.clone(), record.config.clone());
        let paths = layers.iter().enumerate().filter(|(at, layer)| is_last(&layers, *at, layer));
        let paths = paths.map(|(_, layer)| self.layer_path(layer)).collect();
        let pin = Pin { image: digest.clone(), layers };
        // Without a sync: after a power cut no container is left.
        let path = self.root.join("pins").join(container.as_str());
        self.write_unsynced(&path, &pin)?;
        state.pins.insert(container.clone(), Some(pin));
        Ok(Image { digest: digest.clone(), layers: paths, config })
    }

    /// A container is gone.
    pub(super) fn release(&self, container: &ContainerId) {
        let mut state = self.lock();
        if state.pins.remove(container).is_some() {
            discard(&self.root.join("pins").join(container.as_str()));
        }
    }

    /// These are all the containers that there are.
    pub(super) fn retain(&self, containers: &BTreeSet<ContainerId>) {
        let pinned: Vec<_> = self.lock().pins.keys().cloned().collect();
        pinned.iter().filter(|pinned| !containers.contains(*pinned)).for_each(|gone| self.release(gone));
    }

    /// One image.
    pub(super) fn view(&self, digest: &Digest) -> Option<AgentImage> {
        let state = self.lock();
        state.images.get(digest).map(|record| view(&state, record))
    }

    /// All images, the latest used first.
    pub(super) fn list(&self) -> Vec<AgentImage> {
        let state = self.lock();
        let mut images: Vec<_> = state.images.values().map(|record| view(&state, record)).collect();
        images.sort_by_key(|image| std::cmp::Reverse(image.used));
        images
    }

    /// Removes a name, and the image with its last name; or an image by its digest or the beginning of it.
    ///
    /// # Errors
    /// There is none, a container runs in it, or the file system says no.
    pub(super) fn remove(&self, wanted: &str) -> Result<RemovedImages, ImageError> {
        let mut state = self.lock();
        let (digest, name) = find(&state, wanted)?;
        let record = state.images.get_mut(&digest).ok_or_else(|| gone(&digest))?;
        if let Some(name) = name.filter(|_| record.names.len() > 1) {
            record.names.remove(&name);
            let record = record.clone();
            self.write(&self.record_path(&digest), &record)?;
            return Ok(RemovedImages::default());
        }
        let by = users(&state, &digest);
        if !by.is_empty() {
            return Err(ImageError::InUse { image: wanted.to_owned(), by });
        }
        self.forget(state, vec![digest])
    }

    /// Removes images that no container uses and that were not used for `unused`, until `need` bytes are free; and all layers that
    /// no image has.
    ///
    /// # Errors
    /// The file system says no.
    pub(super) fn collect(&self, unused: Duration, need: u64) -> Result<RemovedImages, ImageError> {
        let state = self.lock();
        let now = Timestamp::wall_clock();
        let before = Timestamp(now.0.saturating_sub(u64::try_from(unused.as_millis()).unwrap_or(u64::MAX)));
        let candidates = state.images.values().map(|record| Candidate {
            digest: &record.digest,
            layers: &record.layers,
            used: record.used,
            is_held: !users(&state, &record.digest).is_empty(),
        });
        let victims = gc::victims(&candidates.collect::<Vec<_>>(), &state.layers, before, need);
        self.forget(state, victims)
    }

    /// Removes these images, and the layers that nobody needs. What is renamed away at once is removed without the lock.
    fn forget(
        &self,
        mut state: MutexGuard<'_, State>,
        images: Vec<Digest>,
    ) -> Result<RemovedImages, ImageError> {
        for digest in &images {
            discard(&self.record_path(digest));
            state.images.remove(digest);
        }
        let pins = state.pins.values();
        let pinned = pins.clone().flatten().flat_map(|pin| &pin.layers);
        let needed: BTreeSet<Digest> =
            state.images.values().flat_map(|image| &image.layers).chain(pinned).cloned().collect();
        let is_free = |layer: &Digest| !needed.contains(layer) && !state.holds.contains_key(layer);
        let all_pins_are_known = state.pins.values().all(Option::is_some);
        let free: Vec<_> =
            state.layers.keys().filter(|layer| is_free(layer) && all_pins_are_known).cloned().collect();
        let (mut freed, mut moved) = (0_u64, Vec::new());
        for layer in free {
            let path = self.layer_path(&layer);
            let aside = self.aside();
            fs::rename(&path, &aside).map_err(ImageError::file("move away", &path))?;
            discard(&path.with_extension("json"));
            freed = freed.saturating_add(state.layers.remove(&layer).unwrap_or(0));
            moved.push(aside);
        }
        drop(state);
        for path in moved {
            fs::remove_dir_all(&path).map_err(ImageError::file("remove", &path))?;
        }
        Ok(RemovedImages { removed: images, freed })
    }

    fn trash(&self, path: &Path) -> Result<(), ImageError> {
        let aside = self.aside();
        fs::rename(path, &aside).map_err(ImageError::file("move away", path))?;
        fs::remove_dir_all(&aside)
            .or_else(|_| fs::remove_file(&aside))
            .map_err(ImageError::file("remove", &aside))
    }

    fn aside(&self) -> PathBuf {
        self.tmp().join(format!("removed-{}", uuid::Uuid::new_v4().simple()))
    }

    /// An empty directory for a layer that is being unpacked.
    ///
    /// # Errors
    /// The file system says no.
    pub(super) fn new_layer(&self) -> Result<tempfile::TempDir, ImageError> {
        let tmp = self.tmp();
        let layer = tempfile::Builder::new().prefix("layer-").tempdir_in(&tmp);
        let layer = layer.map_err(ImageError::file("make a directory in", &tmp))?;
        // A layer that does not say how its top is has the usual one.
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(layer.path(), mode).map_err(ImageError::file("set the mode of", layer.path()))?;
        Ok(layer)
    }

    fn write(&self, path: &Path, value: &impl Serialize) -> Result<(), ImageError> {
        let file = self.temporary(path, value)?;
        file.as_file().sync_all().map_err(ImageError::file("write", path))?;
        file.persist(path).map_err(|error| ImageError::file("write", path)(error.error))?;
        Ok(())
    }

    fn write_unsynced(&self, path: &Path, value: &impl Serialize) -> Result<(), ImageError> {
        let file = self.temporary(path, value)?;
        file.persist(path).map_err(|error| ImageError::file("write", path)(error.error))?;
        Ok(())
    }

    fn temporary(&self, path: &Path, value: &impl Serialize) -> Result<tempfile::NamedTempFile, ImageError> {
        let bytes = serde_json::to_vec_pretty(value)
            .map_err(|error| ImageError::file("write", path)(error.into()))?;
        let mut file =
            tempfile::NamedTempFile::new_in(self.tmp()).map_err(ImageError::file("write", path))?;
        file.write_all(&bytes).map_err(ImageError::file("write", path))?;
        Ok(file)
    }
}

/// An image may have the same layer twice; the overlay file system may not. What the upper one says is what counts.
fn is_last(layers: &[Digest], at: usize, layer: &Digest) -> bool {
    !layers.iter().skip(at + 1).any(|above| above == layer)
}

fn short(diff_id: &Digest) -> &str {
    diff_id.hex().get(..SHORT).unwrap_or_default()
}

fn gone(digest: &Digest) -> ImageError {
    ImageError::NotFound(format!("image {digest} is not here"))
}

fn users(state: &State, digest: &Digest) -> Vec<String> {
    let uses = |pin: &Option<Pin>| pin.as_ref().is_none_or(|pin| pin.image == *digest);
    state.pins.iter().filter(|(_, pin)| uses(pin)).map(|(container, _)| container.to_string()).collect()
}

fn view(state: &State, record: &Record) -> AgentImage {
    let layers: BTreeSet<_> = record.layers.iter().collect();
    AgentImage {
        digest: record.digest.clone(),
        names: record.names.keys().cloned().collect(),
        size: layers.iter().filter_map(|layer| state.layers.get(layer)).sum(),
        layers: record.layers.len(),
        used_by: users(state, &record.digest),
        pulled: record.pulled,
        used: record.used,
    }
}

/// Of a digest that is not whole, so many digits at least.
const MIN_PREFIX: usize = 6;

fn find(state: &State, wanted: &str) -> Result<(Digest, Option<ImageName>), ImageError> {
    let none = || ImageError::NotFound(format!("there is no image {wanted}"));
    if let Ok(name) = wanted.parse::<ImageName>() {
        let record =
            state.images.values().find(|record| record.names.contains_key(&name)).ok_or_else(none)?;
        return Ok((record.digest.clone(), Some(name)));
    }
    let prefix = wanted.strip_prefix("sha256:").unwrap_or(wanted);
    let mut matching = state.images.keys().filter(|digest| digest.hex().starts_with(prefix));
    match (matching.next(), matching.next()) {
        _ if prefix.len() < MIN_PREFIX => Err(none()),
        (Some(one), None) => Ok((one.clone(), None)),
        (None, _) => Err(none()),
        (Some(_), Some(_)) => Err(ImageError::NotFound(format!("several images begin with {wanted}"))),
    }
}

fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn entries(directory: &Path) -> Result<Vec<(PathBuf, String)>, ImageError> {
    let failed = || ImageError::file("list", directory);
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        found.extend(entry.file_name().into_string().map(|name| (entry.path(), name)));
    }
    Ok(found)
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// Removes a file that need not be there.
fn discard(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        warn!("cannot remove {}: {error}", path.display());
    }
}
