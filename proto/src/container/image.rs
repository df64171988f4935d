//! What images are called.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Invalid;

/// Where an image comes from: `oci:PATH[:TAG]`, `docker-archive:FILE[:TAG]` or `docker://HOST[:PORT]/NAME[:TAG|@DIGEST]`.
/// Paths are absolute, and of the agent's host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ImageName {
    /// A directory with the OCI image layout.
    OciLayout {
        /// The directory.
        path: String,
        /// Which of its images, if it has several.
        tag: Option<String>,
    },
    /// A file as `docker save` writes it.
    DockerArchive {
        /// The file.
        path: String,
        /// Which of its images, if it has several: `name:tag`.
        tag: Option<String>,
    },
    /// An image in a registry.
    Registry {
        /// Its host, with a port where it is not that of https.
        host: String,
        /// The repository in it.
        name: String,
        /// Which of its images.
        reference: ImageReference,
    },
}

/// One of the images of a repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ImageReference {
    /// What it is called now.
    Tag(String),
    /// What it is.
    Digest(Digest),
}

/// What something is, by its content: `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// The digest as text, `sha256:` included.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> &str {
        self.0.strip_prefix("sha256:").unwrap_or_default()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Digest {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let hex = text.strip_prefix("sha256:").unwrap_or_default();
        match hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            true => Ok(Self(text.to_owned())),
            false => Err(Invalid::new("digest", text, "sha256: and 64 lower-case hexadecimal digits")),
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

const EXPECTED: &str =
    "oci:/PATH[:TAG], docker-archive:/FILE[:TAG] or docker://HOST[:PORT]/NAME[:TAG|@sha256:…]";

const LONGEST: usize = 1024;

fn is_plain(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_control() || c.is_whitespace())
}

/// The tag of a layout follows the last part of its path.
fn after_the_last_part(text: &str) -> Option<usize> {
    let slash = text.rfind('/')?;
    text.get(slash..)?.find(':').map(|colon| slash + colon)
}

/// `docker save` names images `name:tag`, which may have slashes: the first colon ends the path.
fn after_the_first_colon(text: &str) -> Option<usize> {
    text.find(':')
}

/// A path, and what follows the colon at `cut`.
fn path_and_tag(text: &str, cut: Option<usize>) -> Option<(String, Option<String>)> {
    let (path, tag) = match cut {
        Some(at) => (text.get(..at)?, text.get(at + 1..)),
        None => (text, None),
    };
    let fine = path.starts_with('/') && path.len() > 1 && tag.is_none_or(is_plain) && !path.contains('\0');
    fine.then(|| (path.to_owned(), tag.map(str::to_owned)))
}

/// As the distribution specification has names and tags.
fn registry(text: &str) -> Option<ImageName> {
    let (host, rest) = text.split_once('/')?;
    let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
    let is_name =
        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | '_' | '/');
    let is_tag = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let (name, reference) = match (rest.split_once('@'), rest.split_once(':')) {
        (Some((name, digest)), _) => (name, ImageReference::Digest(digest.parse().ok()?)),
        (None, Some((name, tag))) if tag.chars().all(is_tag) && (1..=128).contains(&tag.len()) => {
            (name, ImageReference::Tag(tag.to_owned()))
        }
        (None, Some(_)) => return None,
        (None, None) => (rest, ImageReference::Tag("latest".to_owned())),
    };
    // A tag beside a digest says nothing more.
    let name = name.split(':').next().unwrap_or(name);
    let parts = || name.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    let fine = !host.is_empty() && host.chars().all(is_host) && name.chars().all(is_name) && parts();
    fine.then(|| ImageName::Registry { host: host.to_owned(), name: name.to_owned(), reference })
}

impl FromStr for ImageName {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new("image", text, EXPECTED);
        if text.len() > LONGEST {
            return Err(invalid());
        }
        let parsed = if let Some(rest) = text.strip_prefix("oci:") {
            path_and_tag(rest, after_the_last_part(rest)).map(|(path, tag)| Self::OciLayout { path, tag })
        } else if let Some(rest) = text.strip_prefix("docker-archive:") {
            path_and_tag(rest, after_the_first_colon(rest))
                .map(|(path, tag)| Self::DockerArchive { path, tag })
        } else {
            text.strip_prefix("docker://").and_then(registry)
        };
        parsed.ok_or_else(invalid)
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tagged = |f: &mut fmt::Formatter<'_>, scheme: &str, path: &str, tag: &Option<String>| match tag {
            Some(tag) => write!(f, "{scheme}:{path}:{tag}"),
            None => write!(f, "{scheme}:{path}"),
        };
        match self {
            Self::OciLayout { path, tag } => tagged(f, "oci", path, tag),
            Self::DockerArchive { path, tag } => tagged(f, "docker-archive", path, tag),
            Self::Registry { host, name, reference: ImageReference::Tag(tag) } => {
                write!(f, "docker://{host}/{name}:{tag}")
            }
            Self::Registry { host, name, reference: ImageReference::Digest(digest) } => {
                write!(f, "docker://{host}/{name}@{digest}")
            }
        }
    }
}

impl TryFrom<String> for ImageName {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<ImageName> for String {
    fn from(name: ImageName) -> Self {
        name.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_shown_alike() {
        let digest = format!("sha256:{}", "a1".repeat(32));
        let by_digest = format!("docker://registry.test/library/nginx@{digest}");
        let shown = |text: &str| text.parse::<ImageName>().map(|name| name.to_string());
        for text in [
            "oci:/srv/images/nginx",
            "oci:/srv/images/nginx:1.25",
            "docker-archive:/srv/nginx.tar",
            "docker-archive:/srv/nginx.tar:localhost/nginx:1.25",
            "docker://127.0.0.1:5000/nginx:1.25",
            by_digest.as_str(),
        ] {
            assert_eq!(shown(text).as_deref(), Ok(text));
        }
        assert_eq!(shown("docker://h/a/b").as_deref(), Ok("docker://h/a/b:latest"));
    }

    #[test]
    fn what_is_no_name_is_told_with_what_is() {
        for text in [
            "",
            "nginx",
            "nginx:latest",
            "oci:relative",
            "oci:/",
            "docker://",
            "docker://host",
            "docker://h/../x",
            "docker://h/Upper",
            "docker://h/a:bad tag",
            "docker://h/a@sha256:12",
            "docker-archive:x",
        ] {
            let error = text.parse::<ImageName>().unwrap_err();
            assert_eq!((error.field.as_str(), error.expected.as_ref()), ("image", EXPECTED), "{text}");
        }
    }
}
