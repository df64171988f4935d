//! Files of an image that is not mounted: what the overlay of its layers would show.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

/// The most that is read of a file.
const LARGEST: u64 = 4 << 20;

/// So many symbolic links are followed, as the kernel does.
const LINKS: usize = 40;

/// The text of a file of the image, the lowest layer first; `None` if there is none. Links lead to where they would inside.
///
/// # Errors
/// A layer cannot be read.
pub(super) fn read(layers: &[PathBuf], path: &Path) -> io::Result<Option<String>> {
    let Some((place, metadata)) = resolve(layers, path)? else { return Ok(None) };
    if !metadata.is_file() {
        return Ok(None);
    }
    let mut text = Vec::new();
    File::open(place)?.take(LARGEST).read_to_end(&mut text)?;
    Ok(Some(String::from_utf8_lossy(&text).into_owned()))
}

/// The file on the host that the image has at a path.
fn resolve(layers: &[PathBuf], path: &Path) -> io::Result<Option<(PathBuf, Metadata)>> {
    let mut left = parts(path);
    let mut way = PathBuf::new();
    let mut links = 0;
    let mut found = None;
    while let Some(part) = left.pop() {
        if part == ".." {
            way.pop();
            continue;
        }
        let Some((place, metadata)) = find(layers, &way.join(&part))? else { return Ok(None) };
        if metadata.is_symlink() {
            links += 1;
            if links > LINKS {
                return Ok(None);
            }
            let target = fs::read_link(&place)?;
            if target.is_absolute() {
                way.clear();
            }
            left.extend(parts(&target));
        } else {
            way.push(part);
            found = Some((place, metadata));
        }
    }
    Ok(found)
}

/// The parts of a path, the last first.
fn parts(path: &Path) -> Vec<std::ffi::OsString> {
    let parts = path.components().rev().filter_map(|part| match part {
        Component::Normal(_) | Component::ParentDir => Some(part.as_os_str().to_owned()),
        _ => None,
    });
    parts.collect()
}

/// What the layers together have at a path of which all but the last part are directories.
fn find(layers: &[PathBuf], path: &Path) -> io::Result<Option<(PathBuf, Metadata)>> {
    for layer in layers.iter().rev() {
        let mut place = layer.clone();
        let mut last = false;
        let mut seen = None;
        for part in path.iter() {
            place.push(part);
            seen = match fs::symlink_metadata(&place) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                other => Some(other?),
            };
            match &seen {
                None => break,
                Some(metadata) if is_whiteout(metadata) => return Ok(None),
                // It hides the directory of that name in the layers below.
                Some(metadata) if !metadata.is_dir() => {
                    last = true;
                    break;
                }
                Some(_) => last |= is_opaque(&place)?,
            }
        }
        let whole = place == layer.join(path);
        match seen {
            Some(metadata) if whole => return Ok(Some((place, metadata))),
            _ if last => return Ok(None),
            _ => {}
        }
    }
    Ok(None)
}

/// A device 0/0 says that a file of a lower layer is gone.
fn is_whiteout(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

/// Whether a directory hides all that the lower layers have in it.
fn is_opaque(directory: &Path) -> io::Result<bool> {
    let mut value = [0; 8];
    let path = std::ffi::CString::new(directory.as_os_str().as_bytes())?;
    match rustix::fs::lgetxattr(&path, c"trusted.overlay.opaque", &mut value) {
        Ok(length) => Ok(value.get(..length) == Some(b"y")),
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_upper_layers_win_and_links_stay_inside() {
        let work = tempfile::tempdir().unwrap();
        let layers = ["low", "high"].map(|name| work.path().join(name)).to_vec();
        let file = |layer: &str, path: &str, text: &str| {
            let path = work.path().join(layer).join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        file("low", "etc/passwd", "low");
        file("low", "etc/group", "low");
        file("low", "store/shadow", "linked");
        file("high", "etc/passwd", "high");
        file("low", "data/x", "hidden by a file");
        file("high", "data", "");
        symlink("/store/shadow", work.path().join("high/etc/shadow")).unwrap();
        symlink("../../../../../store", work.path().join("high/way")).unwrap();
        symlink("loop", work.path().join("high/loop")).unwrap();
        fs::write(work.path().join("outside"), "host").unwrap();
        symlink("../outside", work.path().join("high/out")).unwrap();
        let paths =
            ["/etc/passwd", "/etc/group", "/etc/shadow", "/way/shadow", "/data/x", "/loop", "/out", "/etc"];
        let read = paths.map(|path| read(&layers, Path::new(path)).unwrap());
        let texts = read.each_ref().map(|text| text.as_deref());
        assert_eq!(
            texts,
            [Some("high"), Some("low"), Some("linked"), Some("linked"), None, None, None, None]
        );
    }
}
