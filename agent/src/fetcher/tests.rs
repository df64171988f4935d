//! What can and cannot be fetched.

use std::io::Write;
use std::sync::Arc;

use super::*;

fn artifact(uri: &str) -> Artifact {
    Artifact { uri: uri.to_owned(), sha256: None, path: None, extract: false, executable: false }
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
    let (fetcher, user) = (Fetcher::new().unwrap(), UserName::new("nobody").unwrap());
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
    let (fetcher, user) = (Fetcher::new().unwrap(), UserName::new("nobody").unwrap());
    for uri in ["/proc/self/maps", "file:///proc/thread-self/status", "/proc/self/../self/cmdline"] {
        let error = fetcher.fetch(&artifact(uri), sandbox.path(), &user).await.unwrap_err().to_string();
        assert!(error.contains("it is not a regular file"), "{error}");
    }
    assert_eq!(fs::read_dir(sandbox.path()).unwrap().count(), 0);
}
