//! A file as `docker save` and `skopeo copy docker-archive:` write it: a tar archive with `manifest.json`, which names a
//! configuration and the archives of layers, each another file in it. Newer Dockers lay these out as an OCI layout, and
//! older ones name one layer by a link to another.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use divvy_proto::container::Digest;
use serde::Deserialize;

use super::super::error::ImageError;
use super::super::layer;
use super::super::manifest::{self, MAX_DOCUMENT, Platform, json};
use super::super::tar::{Entries, Kind};
use super::super::tree;
use super::{Blob, Finding, Found, Part, open_regular};

/// Files in an archive: a few for each layer.
const MAX_FILES: usize = 10_000;
/// A compressed archive is unpacked to at most so many bytes.
const MAX_ARCHIVE: u64 = 64 << 30;

/// An opened archive.
#[derive(Debug)]
pub(in crate::image) struct Archive {
    path: PathBuf,
    tag: Option<String>,
    file: Arc<File>,
    files: BTreeMap<String, Place>,
    stamp: String,
}

/// Where a file of the archive is.
#[derive(Debug, Clone)]
enum Place {
    At {
        offset: u64,
        size: u64,
    },
    /// At this name.
    Link(String),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

impl Archive {
    pub(super) fn open(path: PathBuf, tag: Option<String>, tmp: &Path) -> Result<Self, ImageError> {
        let file = open_regular(&path).map_err(ImageError::file("open", &path))?;
        let stamp = stamp(&file).map_err(ImageError::file("look at", &path))?;
        let file = plain(file, tmp).map_err(ImageError::file("uncompress", &path))?;
        let files = list(&file, &path)?;
        Ok(Self { path, tag, file: Arc::new(file), files, stamp })
    }

    pub(super) fn stamp(&self) -> &str {
        &self.stamp
    }

    pub(super) fn find(
        &self,
        is_known: impl Fn(&Digest) -> bool,
        machine: &Platform,
    ) -> Result<Finding, ImageError> {
        let name = self.path.display();
        let saved: Vec<Saved> = json(&format!("manifest.json in {name}"), &self.read("manifest.json")?)?;
        let saved = self.chosen(&saved)?;
        let bytes = self.read(&saved.config)?;
        let what = format!("configuration {} in {name}", saved.config);
        let found = layer::digest_of(&bytes);
        let digest: Digest = found.parse().map_err(|_| ImageError::malformed(&what, "it has no digest"))?;
        // Its name is its digest, with every tool there is.
        let stem = saved.config.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
        if let Ok(expected) = format!("sha256:{stem}").parse::<Digest>()
            && expected != digest
        {
            return Err(ImageError::Digest { what, expected, found });
        }
        if is_known(&digest) {
            return Ok(Finding::Known(digest));
        }
        let configuration = manifest::configuration(&what, &bytes, machine)?;
        let names = saved.layers.as_deref().unwrap_or_default();
        let layers = names.iter().map(|name| self.place(name)).collect::<Result<Vec<_>, _>>()?;
        if layers.len() != configuration.diff_ids.len() {
            let why = format!(
                "it names {} layers, and manifest.json {}",
                configuration.diff_ids.len(),
                layers.len()
            );
            return Err(ImageError::malformed(what, why));
        }
        let layers = layers.into_iter().map(|(offset, size)| Blob::Part { offset, size }).collect();
        Ok(Finding::New(Box::new(Found { digest, configuration, layers })))
    }

    fn chosen<'a>(&self, saved: &'a [Saved]) -> Result<&'a Saved, ImageError> {
        let tags = |one: &Saved| one.repo_tags.clone().unwrap_or_default();
        let there = || saved.iter().flat_map(tags).collect::<Vec<_>>().join(", ");
        let path = self.path.display();
        match (&self.tag, saved) {
            (None, [one]) => Ok(one),
            (None, []) => Err(ImageError::NotFound(format!("{path} has no images"))),
            (None, _) => {
                Err(ImageError::NotFound(format!("{path} has several images: name one of {}", there())))
            }
            (Some(tag), _) => {
                let found =
                    saved.iter().find(|one| tags(one).iter().any(|own| plain_tag(own) == plain_tag(tag)));
                found.ok_or_else(|| {
                    ImageError::NotFound(format!("{path} does not have {tag}, only {}", there()))
                })
            }
        }
    }

    /// Where a file is, over one link.
    fn place(&self, name: &str) -> Result<(u64, u64), ImageError> {
        let missing = || ImageError::NotFound(format!("{} has no {name:?}", self.path.display()));
        let name = normal(name).ok_or_else(missing)?;
        let place = match self.files.get(&name) {
            Some(Place::Link(target)) => self.files.get(target),
            place => place,
        };
        match place {
            Some(Place::At { offset, size }) => Ok((*offset, *size)),
            _ => Err(missing()),
        }
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, ImageError> {
        let (offset, size) = self.place(name)?;
        if size > MAX_DOCUMENT {
            let what = format!("{name} in {}", self.path.display());
            return Err(ImageError::malformed(
                what,
                format!("it has {size} bytes, expected at most {MAX_DOCUMENT}"),
            ));
        }
        let mut bytes = Vec::new();
        self.part(offset, size).read_to_end(&mut bytes).map_err(ImageError::file("read", &self.path))?;
        Ok(bytes)
    }

    pub(super) fn part(&self, offset: u64, size: u64) -> Part {
        Part { file: self.file.clone(), at: offset, end: offset.saturating_add(size), size }
    }
}

/// Docker writes the names of its own registry without it, and skopeo with it.
fn plain_tag(tag: &str) -> &str {
    let tag = tag.strip_prefix("docker.io/").unwrap_or(tag);
    tag.strip_prefix("library/").unwrap_or(tag)
}

/// What differs when the file has been replaced or written.
pub(super) fn stamp(file: &File) -> io::Result<String> {
    let data = file.metadata()?;
    Ok(format!("{}:{}:{}:{}.{}", data.dev(), data.ino(), data.size(), data.ctime(), data.ctime_nsec()))
}

/// The archive itself: parts of a compressed one cannot be read by themselves.
fn plain(mut file: File, tmp: &Path) -> io::Result<File> {
    let mut magic = [0; 4];
    let count = file.read(&mut magic)?;
    file.rewind()?;
    let is_compressed = matches!(magic.get(..count), Some([0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd]));
    if !is_compressed {
        return Ok(file);
    }
    let mut plain = tempfile::tempfile_in(tmp)?;
    let mut archive = layer::archive(BufReader::new(file))?.take(MAX_ARCHIVE);
    io::copy(&mut archive, &mut plain)?;
    plain.rewind()?;
    Ok(plain)
}

/// The files in the archive; their contents are skipped by seeking.
fn list(file: &File, path: &Path) -> Result<BTreeMap<String, Place>, ImageError> {
    let what = || path.display().to_string();
    let mut source = Seeking { file, at: 0 };
    let mut files = BTreeMap::new();
    loop {
        let mut entries = Entries::new(&mut source);
        let entry = entries.next().map_err(|error| ImageError::malformed(what(), error.to_string()))?;
        let Some(entry) = entry else { return Ok(files) };
        if files.len() >= MAX_FILES {
            return Err(ImageError::malformed(what(), format!("it has more than {MAX_FILES} files")));
        }
        let offset = source.at;
        if let Some(name) = std::str::from_utf8(&entry.path).ok().and_then(normal) {
            let target = || std::str::from_utf8(&entry.link).ok();
            let place = match entry.kind {
                Kind::File => Some(Place::At { offset, size: entry.size }),
                Kind::Symlink => target().and_then(|to| beside(&name, to)).map(Place::Link),
                Kind::HardLink => target().and_then(normal).map(Place::Link),
                _ => None,
            };
            files.extend(place.map(|place| (name, place)));
        }
        if entry.kind == Kind::File {
            let blocks = entry.size.div_ceil(512).checked_mul(512);
            let next = blocks.and_then(|bytes| offset.checked_add(bytes));
            source.at = next.ok_or_else(|| ImageError::malformed(what(), "a file in it is too large"))?;
        }
    }
}

/// A name without `./` in front.
fn normal(name: &str) -> Option<String> {
    let parts = tree::parts(name.as_bytes()).ok()?;
    Some(parts.iter().filter_map(|part| part.to_str()).collect::<Vec<_>>().join("/"))
}

/// Where a link at `name` leads to, inside the archive.
fn beside(name: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    for part in target.split('/').filter(|part| !part.is_empty() && *part != ".") {
        match part {
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Reads a file from a place that can be set.
struct Seeking<'a> {
    file: &'a File,
    at: u64,
}

impl Read for Seeking<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = std::os::unix::fs::FileExt::read_at(self.file, buffer, self.at)?;
        self.at += u64::try_from(count).unwrap_or(0);
        Ok(count)
    }
}
