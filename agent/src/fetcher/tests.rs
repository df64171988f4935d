//! What can and cannot be fetched.

use std::fs;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::unpack::{make_directories, unpack};
use super::*;

fn artifact(uri: &str) -> Artifact {
    Artifact { uri: uri.to_owned(), sha256: None, path: None, extract: false, executable: false }
}

/// A fetcher with a cache of ten bytes, and the cache's directory.
fn fetcher() -> (Fetcher, tempfile::TempDir) {
    let cache = tempfile::tempdir().unwrap();
    let size = Bytes::from_bytes(10).unwrap();
    (Fetcher::new(cache.path().to_owned(), size, Duration::from_secs(20)).unwrap(), cache)
}

/// An archive of entries: a path, its kind, and its content or what it links to.
fn archive(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, kind, content) in entries {
        let mut header = tar::Header::new_gnu();
        // The builder would refuse what is tested here.
        let name = &mut header.as_old_mut().name;
        name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        let data = if kind.is_file() { content.as_bytes() } else { &[] };
        if !kind.is_file() {
            header.set_link_name_literal(content).unwrap();
        }
        header.set_size(data.len() as u64);
        header.set_cksum();
        builder.append(&header, data).unwrap();
    }
    builder.into_inner().unwrap()
}

fn unpacked(sandbox: &Path, entries: &[(&str, tar::EntryType, &str)]) -> Result<(), String> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&archive(entries)).unwrap();
    io::Seek::rewind(&mut file).unwrap();
    unpack(file, sandbox).map_err(|error| error.to_string())
}

#[test]
fn an_archive_cannot_write_outside_of_the_sandbox() {
    use tar::EntryType::{Char, Link, Regular, Symlink};
    let outer = tempfile::tempdir().unwrap();
    let sandbox = outer.path().join("sandbox");
    fs::create_dir(&sandbox).unwrap();
    let out = outer.path().to_str().unwrap();
    assert_eq!(unpacked(&sandbox, &[("a", Regular, "fine"), ("b", Symlink, "a")]), Ok(()));
    assert!(unpacked(&sandbox, &[("../stolen", Regular, "x")]).is_err());
    assert!(unpacked(&sandbox, &[("up", Symlink, out), ("up/stolen", Regular, "x")]).is_err());
    assert!(unpacked(&sandbox, &[("hard", Link, "/etc/shadow")]).is_err());
    assert!(unpacked(&sandbox, &[("device", Char, "")]).is_err());
    unpacked(&sandbox, &[("/stolen", Regular, "x")]).unwrap();
    assert!(sandbox.join("stolen").exists(), "an absolute path is taken as relative");
    assert!(!outer.path().join("stolen").exists());
}

#[test]
fn a_link_from_one_archive_does_not_lead_the_next_artifact_astray() {
    let outer = tempfile::tempdir().unwrap();
    let sandbox = outer.path().join("sandbox");
    fs::create_dir(&sandbox).unwrap();
    std::os::unix::fs::symlink(outer.path(), sandbox.join("up")).unwrap();
    assert!(make_directories(&sandbox, Path::new("up/dir")).is_err());
    assert_eq!(make_directories(&sandbox, Path::new("a/b")).unwrap(), sandbox.join("a/b"));
}

#[test]
fn what_is_not_an_artifact_is_refused_with_what_was_expected() {
    let refused = |artifact: Artifact| {
        let error = target(&artifact).err().or_else(|| origin(&artifact).err());
        error.expect("a refusal").to_string()
    };
    assert!(refused(artifact("relative/path")).contains("expected an absolute path"));
    assert!(refused(artifact("http://host/file")).contains("needs a sha256"));
    assert!(refused(artifact("file:///dir/")).contains("it needs a path"));
    for path in ["../stolen", "/etc/passwd", "a/../../b", ""] {
        let stray = Artifact { path: Some(path.to_owned()), ..artifact("/etc/hostname") };
        assert!(refused(stray).contains("not one inside the sandbox"), "{path}");
    }
    assert_eq!(target(&artifact("http://h/dir/x.bin?y=/z#f")).unwrap(), Path::new("x.bin"));
}

#[tokio::test]
async fn a_download_is_checked_before_anything_sees_it() {
    let body = Arc::new(b"hello".to_vec());
    let app = axum::Router::new().route("/file", axum::routing::get(move || async move { body.to_vec() }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let sandbox = tempfile::tempdir().unwrap();
    let (fetcher, _cache) = fetcher();
    let user = UserName::new("nobody").unwrap();
    let good = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let fetch = async |path: &str, sha256: &str| {
        let artifact = Artifact { sha256: Some(sha256.to_owned()), ..artifact(&format!("{base}{path}")) };
        fetcher.fetch(&artifact, sandbox.path(), &user).await.map_err(|error| error.to_string())
    };
    let wrong = fetch("/file", &"0".repeat(64)).await.unwrap_err();
    assert!(wrong.contains(&format!("its SHA-256 is {good}, not 000")), "{wrong}");
    assert!(fetch("/none", good).await.unwrap_err().contains("the server answers 404"));
    assert_eq!(fs::read_dir(sandbox.path()).unwrap().count(), 0, "nothing is left of what failed");
    assert_eq!(fetch("/file", good).await, Ok(()));
    assert_eq!(fs::read_to_string(sandbox.path().join("file")).unwrap(), "hello");
    server.abort();
}

/// With the rights of any user, a thread of the agent may look at the agent.
#[tokio::test]
async fn what_proc_shows_of_the_agent_cannot_be_fetched() {
    let sandbox = tempfile::tempdir().unwrap();
    let (fetcher, _cache) = fetcher();
    let user = UserName::new("nobody").unwrap();
    for uri in ["/proc/self/maps", "file:///proc/thread-self/status", "/proc/self/../self/cmdline"] {
        let error = fetcher.fetch(&artifact(uri), sandbox.path(), &user).await.unwrap_err().to_string();
        assert!(error.contains("it is not a regular file"), "{error}");
    }
    assert_eq!(fs::read_dir(sandbox.path()).unwrap().count(), 0);
}

/// A server that answers any path but `/none` with the path, and counts how often it is asked.
async fn server() -> (String, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let answer = move |uri: axum::http::Uri| async move {
        count.fetch_add(1, Ordering::Relaxed);
        uri.path().to_owned()
    };
    let app = axum::Router::new().fallback(axum::routing::get(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (base, asked)
}

/// What a path of that server is fetched as.
fn path(base: &str, path: &str) -> Artifact {
    let sha256 = Some(hexadecimal(Sha256::new().chain_update(path)));
    Artifact { sha256, ..artifact(&format!("{base}{path}")) }
}

/// Fetches into a sandbox of its own and returns what is there then.
async fn fetched(fetcher: &Fetcher, artifact: &Artifact) -> Result<String, String> {
    let (sandbox, user) = (tempfile::tempdir().unwrap(), UserName::new("nobody").unwrap());
    let fetched = fetcher.fetch_all(std::slice::from_ref(artifact), sandbox.path(), &user).await;
    fetched.map_err(|error| error.to_string())?;
    Ok(fs::read_to_string(sandbox.path().join(target(artifact).unwrap())).unwrap())
}

fn count(directory: &tempfile::TempDir) -> usize {
    fs::read_dir(directory.path()).unwrap().count()
}

#[tokio::test]
async fn what_was_fetched_is_not_fetched_again_while_there_is_room_for_it() {
    let ((fetcher, cache), (base, asked)) = (fetcher(), server().await);
    let mut counts = Vec::new();
    for name in ["/four", "/five", "/four", "/more", "/four", "/five", "/larger-than-all", "/four"] {
        assert_eq!(fetched(&fetcher, &path(&base, name)).await.unwrap(), name);
        counts.push((asked.load(Ordering::Relaxed), count(&cache)));
    }
    // The cache holds two: /five goes for /more, for /four was used after it; and what is larger goes past it.
    assert_eq!(counts, [(1, 1), (2, 2), (2, 2), (3, 2), (3, 2), (4, 2), (5, 2), (5, 2)]);
}

#[tokio::test]
async fn tasks_that_want_the_same_at_once_have_it_fetched_once() {
    let ((fetcher, _cache), (base, asked)) = (fetcher(), server().await);
    let artifact = path(&base, "/same");
    let all = futures::future::join_all((0..8).map(|_| fetched(&fetcher, &artifact))).await;
    assert_eq!(all, vec![Ok("/same".to_owned()); 8]);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_cache_outlives_its_agent_and_a_broken_entry_is_no_entry() {
    let ((fetcher, cache), (base, asked)) = (fetcher(), server().await);
    fetched(&fetcher, &path(&base, "/file")).await.unwrap();
    fs::write(cache.path().join(".tmpAbCd"), "half").unwrap();
    let size = Bytes::from_bytes(10).unwrap();
    let fetcher = Fetcher::new(cache.path().to_owned(), size, Duration::from_secs(20)).unwrap();
    assert_eq!(count(&cache), 1, "what is not an entry is gone");
    fetched(&fetcher, &path(&base, "/file")).await.unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    let entry = fs::read_dir(cache.path()).unwrap().next().unwrap().unwrap().path();
    fs::write(&entry, "/fool").unwrap();
    assert_eq!(fetched(&fetcher, &path(&base, "/file")).await.unwrap(), "/file");
    assert_eq!((asked.load(Ordering::Relaxed), count(&cache)), (2, 1));
    fs::remove_file(&entry).unwrap();
    assert_eq!(fetched(&fetcher, &path(&base, "/file")).await.unwrap(), "/file");
    assert_eq!((asked.load(Ordering::Relaxed), count(&cache)), (3, 1));
}

#[test]
fn what_is_in_use_stays_in_the_cache() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path().to_owned(), Bytes::from_bytes(10).unwrap()).unwrap();
    let put = |name: &str| {
        let room = cache.room(5)?;
        let file = NamedTempFile::new_in(directory.path()).unwrap();
        Some(cache.put(Key::new(name, ""), file, room).unwrap())
    };
    let (a, _b) = (put("a"), put("b"));
    assert!(put("c").is_none());
    drop(a);
    assert!(put("c").is_some());
    assert!(cache.take(&Key::new("a", "")).is_none());
    assert!(cache.take(&Key::new("b", "")).is_some());
}

/// A server whose connections break after these answers, one each; it returns what it was asked.
async fn broken_server(answers: &'static [&'static str]) -> (String, tokio::task::JoinHandle<Vec<String>>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let serve = async move {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let count = stream.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..count]).to_ascii_lowercase();
            let conditions = request.lines().filter(|line| line.contains("range"));
            asked.push(conditions.collect::<Vec<_>>().join(", "));
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        asked
    };
    (base, tokio::spawn(serve))
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_broke_off() {
    let (fetcher, _cache) = fetcher();
    let (base, asked) = broken_server(&[
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\netag: \"one\"\r\n\r\n/ab",
        "HTTP/1.1 206 Partial Content\r\ncontent-length: 7\r\ncontent-range: bytes 3-9/10\r\n\r\ncd",
        "HTTP/1.1 206 Partial Content\r\ncontent-length: 5\r\ncontent-range: bytes 5-9/10\r\n\r\nefghi",
    ])
    .await;
    assert_eq!(fetched(&fetcher, &path(&base, "/abcdefghi")).await.unwrap(), "/abcdefghi");
    let expected = ["", "range: bytes=3-, if-range: \"one\"", "range: bytes=5-, if-range: \"one\""];
    assert_eq!(asked.await.unwrap(), expected);
}

#[tokio::test]
async fn a_broken_download_begins_anew_where_the_server_cannot_go_on() {
    let (fetcher, _cache) = fetcher();
    let (base, _asked) = broken_server(&[
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n/ol",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n/new!",
    ])
    .await;
    assert_eq!(fetched(&fetcher, &path(&base, "/new!")).await.unwrap(), "/new!");
    let (base, _asked) = broken_server(&[
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n/ol",
        "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n/newer",
    ])
    .await;
    let error = fetched(&fetcher, &path(&base, "/newer")).await.unwrap_err();
    assert!(error.contains("it changed while it was fetched"), "{error}");
}

#[tokio::test]
async fn a_task_does_not_wait_for_ever() {
    let (fetcher, _cache) = fetcher();
    let fetcher = Fetcher { limit: Duration::from_millis(50), ..fetcher };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap(); // and nobody answers
    let base = format!("http://{}", listener.local_addr().unwrap());
    let error = fetched(&fetcher, &path(&base, "/file")).await.unwrap_err();
    assert!(error.contains("was not there within 50ms"), "{error}");
}

#[test]
fn archives_are_told_by_what_they_begin_with() {
    let plain = archive(&[("file", tar::EntryType::Regular, "content")]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let level = ruzstd::encoding::CompressionLevel::Fastest;
    let zstd = ruzstd::encoding::compress_to_vec(plain.as_slice(), level);
    let unpacked = |bytes: &[u8]| {
        let (mut file, sandbox) = (tempfile::tempfile().unwrap(), tempfile::tempdir().unwrap());
        file.write_all(bytes).unwrap();
        io::Seek::rewind(&mut file).unwrap();
        unpack(file, sandbox.path()).map_err(|error| error.to_string())?;
        Ok(fs::read_to_string(sandbox.path().join("file")).unwrap())
    };
    for bytes in [plain, gzip.finish().unwrap(), zstd] {
        assert_eq!(unpacked(&bytes), Ok("content".to_owned()));
    }
    let refused: Result<String, String> = unpacked(b"PK\x03\x04rest");
    assert_eq!(refused.unwrap_err(), "it is a zip archive; expected tar, plain or packed by gzip or zstd");
}
