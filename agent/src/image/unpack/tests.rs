//! Layers of honest and of hostile people.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;

/// A tar archive that says whatever the test wants.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn entry(mut self, kind: u8, path: &str, link: &str, content: &[u8]) -> Self {
        self.header(kind, path, link, 0o755, content.len() as u64);
        self.content(content)
    }

    fn file(self, path: &str, content: &str) -> Self {
        self.entry(b'0', path, "", content.as_bytes())
    }

    fn directory(self, path: &str) -> Self {
        self.entry(b'5', path, "", b"")
    }

    fn symlink(self, path: &str, to: &str) -> Self {
        self.entry(b'2', path, to, b"")
    }

    fn hard_link(self, path: &str, to: &str) -> Self {
        self.entry(b'1', path, to, b"")
    }

    fn header(&mut self, kind: u8, path: &str, link: &str, mode: u32, size: u64) {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.as_mut_bytes()[156] = kind;
        header.set_mode(mode);
        header.set_uid(12);
        header.set_gid(34);
        header.set_mtime(1_000_000);
        header.set_size(size);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
    }

    fn content(mut self, content: &[u8]) -> Self {
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut bytes = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest..).find(|length| length.to_string().len() + rest == *length).unwrap();
            bytes.extend_from_slice(format!("{length} {key}=").as_bytes());
            bytes.extend_from_slice(value);
            bytes.push(b'\n');
        }
        self.entry(b'x', "pax", "", &bytes)
    }
}

/// A directory with a layer in it, beside something that nobody may touch.
struct World {
    root: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("layer")).unwrap();
        fs::write(root.path().join("outside"), "untouched").unwrap();
        Self { root }
    }

    fn layer(&self) -> PathBuf {
        self.root.path().join("layer")
    }

    fn unpack(&self, bytes: &[u8]) -> Result<Unpacked, String> {
        let limits = Limits { bytes: 1 << 20, entries: 100, spare: 0 };
        let unpacked = unpack(bytes, 1 << 20, &self.layer(), limits).map_err(|error| error.to_string());
        let mut beside: Vec<_> =
            fs::read_dir(self.root.path()).unwrap().flatten().map(|it| it.file_name()).collect();
        beside.sort();
        assert_eq!(beside, ["layer", "outside"]);
        assert_eq!(fs::read_to_string(self.root.path().join("outside")).unwrap(), "untouched");
        unpacked
    }

    /// What is in the layer, with a letter for its kind, and `!` if it is opaque.
    fn tree(&self) -> Vec<String> {
        let mut found = Vec::new();
        walk(&self.layer(), "", &mut found);
        found.sort();
        found
    }
}

fn walk(directory: &Path, prefix: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let (path, name) = (entry.path(), format!("{prefix}{}", entry.file_name().to_string_lossy()));
        let data = fs::symlink_metadata(&path).unwrap();
        let kind = data.file_type();
        if kind.is_dir() {
            let mut value = [0; 8];
            let opaque = rustix::fs::lgetxattr(&path, OPAQUE_XATTR, &mut value).is_ok();
            found.push(format!("d {name}{}", if opaque { "!" } else { "" }));
            walk(&path, &format!("{name}/"), found);
        } else if kind.is_char_device() {
            assert_eq!(data.rdev(), 0);
            found.push(format!("w {name}"));
        } else {
            found.push(format!("{} {name}", if kind.is_symlink() { "l" } else { "f" }));
        }
    }
}

fn sha256(bytes: &[u8]) -> String {
    layer::text(Sha256::new_with_prefix(bytes))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

#[test]
fn every_compression_gives_the_same_layer() {
    let tar = Tar::default().directory("d").file("d/f", "hello").0;
    // Two frames, and one between them that is to be skipped.
    let (first, second) = tar.split_at(700);
    let skipped = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
    let frames = [zstd(first), skipped.to_vec(), zstd(second)].concat();
    let members = [gzip(first), gzip(second)].concat();
    for blob in [tar.clone(), gzip(&tar), members, zstd(&tar), frames] {
        let world = World::new();
        let expected = Unpacked { digest: sha256(&blob), diff_id: sha256(&tar), size: 5 };
        assert_eq!(world.unpack(&blob), Ok(expected));
        assert_eq!(world.tree(), ["d d", "f d/f"]);
    }
}

#[test]
fn files_are_as_they_were_packed() {
    let world = World::new();
    let long = format!("{}/file", "n".repeat(200));
    let mut tar = Tar::default().pax(&[
        ("path", long.as_bytes()),
        ("mtime", b"1234.5"),
        ("SCHILY.xattr.user.a", b"\n=1\n"),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.overlay.x", b"y"),
    ]);
    tar.header(b'0', "short", "", 0o4711, 3);
    let tar = tar
        .content(b"abc")
        .pax(&[("linkpath", long.as_bytes())])
        .hard_link("link", "")
        .symlink("abs", "/etc/passwd")
        .0;
    world.unpack(&tar).unwrap();
    let path = world.layer().join(&long);
    let data = fs::metadata(&path).unwrap();
    assert_eq!((data.mode() & 0o7777, data.uid(), data.gid(), data.nlink()), (0o4711, 12, 34, 2));
    assert_eq!((data.mtime(), data.mtime_nsec()), (1234, 500_000_000));
    let attribute = |name: &str| {
        let mut value = [0; 16];
        rustix::fs::lgetxattr(&path, name, &mut value).ok().map(|count| value[..count].to_vec())
    };
    assert_eq!(attribute("user.a"), Some(b"\n=1\n".to_vec()));
    assert_eq!((attribute(OPAQUE_XATTR), attribute("user.overlay.x")), (None, None));
    assert_eq!(fs::read_link(world.layer().join("abs")).unwrap(), Path::new("/etc/passwd"));
}

#[test]
fn whiteouts_become_what_the_overlay_understands() {
    let world = World::new();
    let tar = Tar::default()
        .file("a/.wh.gone", "")
        .file("b/.wh..wh..opq", "")
        .file("b/new", "")
        .file(".wh..wh.plnk/x", "")
        .0;
    assert!(world.unpack(&tar).is_err(), "nothing lies below a whiteout");
    let world = World::new();
    let tar = Tar::default()
        .file("a/.wh.gone", "")
        .file("b/.wh..wh..opq", "")
        .file("b/new", "")
        .file(".wh..wh.aufs", "")
        // Whatever the order, what is in this layer wins over its own whiteout.
        .directory("first")
        .file(".wh.first", "")
        .file(".wh.second", "")
        .directory("second")
        .file(".wh.third", "")
        .file("third", "3")
        .0;
    world.unpack(&tar).unwrap();
    assert_eq!(world.tree(), ["d a", "d b!", "d first!", "d second!", "f b/new", "f third", "w a/gone"]);
}

#[test]
fn no_trick_leads_outside() {
    let tar = Tar::default;
    let refused = "its path leads through what is not a directory";
    for (name, tar, reason) in [
        ("a path that climbs", tar().file("../outside", "x"), "climbs"),
        ("one that climbs later", tar().file("a/../../outside", "x"), "climbs"),
        ("a symlinked parent", tar().symlink("a", "..").file("a/outside", "x"), refused),
        ("an absolute one", tar().symlink("a", "/tmp").file("a/x", "x"), refused),
        ("one further up", tar().directory("d").symlink("d/a", "../..").file("d/a/b/outside", "x"), refused),
        ("a whiteout through a link", tar().symlink("a", "..").file("a/.wh.outside", ""), refused),
        ("an opaque link", tar().symlink("a", "..").file("a/.wh..wh..opq", ""), refused),
        ("a whiteout of dots", tar().file(".wh...", ""), "whiteout of nothing"),
        ("a whiteout of nothing", tar().file(".wh.", ""), "whiteout of nothing"),
        ("a hard link that climbs", tar().hard_link("x", "../outside"), "climbs"),
        (
            "a hard link through a link",
            tar().symlink("a", "..").hard_link("x", "a/outside"),
            "not in this layer",
        ),
        ("a hard link to a directory", tar().directory("d").hard_link("x", "d"), "not a file"),
        ("a hard link to a whiteout", tar().file(".wh.a", "").hard_link("b", "a"), "not a file"),
        ("a device", tar().entry(b'4', "sda", "", b""), "devices"),
        ("a whiteout by its device", tar().entry(b'3', "passwd", "", b""), "devices"),
        ("a path with a zero byte", tar().pax(&[("path", b"a\0b")]).file("x", ""), "zero byte"),
        ("the top as a link", tar().symlink(".", "/"), "whole layer"),
    ] {
        let world = World::new();
        let error = world.unpack(&tar.0).expect_err(name);
        assert!(error.contains(reason), "{name}: {error}");
    }
}

#[test]
fn what_looks_hostile_but_is_not_stays_inside() {
    let world = World::new();
    let tar = Tar::default()
        .file("/absolute", "1")
        .file("./d//./f", "2")
        .symlink("d/up", "../../outside")
        // A file takes the place of a link, and a directory that of a link.
        .file("d/up", "3")
        .symlink("e", "/")
        .directory("e")
        .file("e/f", "4")
        .0;
    world.unpack(&tar).unwrap();
    assert_eq!(world.tree(), ["d d", "d e", "f absolute", "f d/f", "f d/up", "f e/f"]);
}

#[test]
fn sizes_are_limited() {
    let huge = |kind, size| {
        let mut tar = Tar::default();
        tar.header(kind, "x", "", 0o644, size);
        tar.0
    };
    let many = (0..101).fold(Tar::default(), |tar, number| tar.file(&number.to_string(), ""));
    let bomb = gzip(&vec![0; 3 << 20]);
    let sparse = Tar::default().pax(&[("GNU.sparse.realsize", b"99999999999")]).file("x", "").0;
    let by_pax = Tar::default().pax(&[("size", b"9999999999999")]).file("x", "").0;
    for (blob, reason) in [
        (huge(b'0', 8 << 30), "too large"),
        (huge(b'x', 1 << 30), "extended header"),
        (huge(b'L', 1 << 30), "extended header"),
        (many.0, "more than 100 files"),
        (bomb, "1048576 bytes"),
        (sparse, "sparse"),
        (by_pax, "too large"),
        (vec![1; 2 << 20], "checksum of a header"),
    ] {
        let error = World::new().unpack(&blob).unwrap_err();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn a_layer_that_is_cut_off_is_refused() {
    let tar = Tar::default().file("f", &"x".repeat(2000)).0;
    for length in [100, 600, 1000, 2511] {
        assert!(World::new().unpack(&tar[..length]).is_err(), "{length}");
        assert!(World::new().unpack(&gzip(&tar)[..length.min(40)]).is_err(), "{length}");
    }
}

/// Names of which archives are made that mean to get out.
fn name() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        "[ab]",
        Just("..".to_owned()),
        Just(".".to_owned()),
        Just(".wh.a".to_owned()),
        Just(".wh..wh..opq".to_owned())
    ];
    (any::<bool>(), proptest::collection::vec(part, 1..4))
        .prop_map(|(absolute, parts)| format!("{}{}", if absolute { "/" } else { "" }, parts.join("/")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_archive_gets_out(entries in proptest::collection::vec((prop_oneof![Just(b'0'), Just(b'1'), Just(b'2'), Just(b'5'), Just(b'6'), Just(b'3')], name(), name()), 1..12)) {
        let world = World::new();
        let tar = entries.iter().fold(Tar::default(), |tar, (kind, path, link)| {
            let climbing = if *kind == b'2' { format!("../{link}") } else { link.clone() };
            tar.entry(*kind, path, &climbing, b"")
        });
        drop(world.unpack(&tar.0)); // what is outside is compared there
    }

    #[test]
    fn no_bytes_stop_the_unpacker(noise in proptest::collection::vec(any::<u8>(), 0..2000), at in 0_usize..1500, byte: u8, magic in 0_usize..4) {
        let world = World::new();
        let mut bent = Tar::default().pax(&[("path", b"a/b")]).file("x", "content").directory("d").0;
        bent[at] = byte;
        let start: [&[u8]; 4] = [&[], &[0x1f, 0x8b, 8, 0], &[0x28, 0xb5, 0x2f, 0xfd], &[0x50, 0x2a, 0x4d, 0x18]];
        for bytes in [bent.clone(), [start[magic], &noise].concat()] {
            drop(world.unpack(&bytes));
        }
        let mut packed = if magic % 2 == 0 { gzip(&bent) } else { zstd(&bent) };
        let at = at % packed.len();
        packed[at] ^= byte;
        drop(world.unpack(&packed));
    }
}
