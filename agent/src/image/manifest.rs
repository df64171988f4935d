//! The documents of an image: indexes, manifests and configurations, as OCI and Docker write them.
//!
//! Pure: bytes in, types or an error out. Not here: where the bytes come from, or whether they are what a digest promises.

use std::collections::BTreeMap;

use divvy_proto::container::{Digest, StopSignal};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::ImageConfig;
use super::error::ImageError;

/// A manifest is at most this long (OCI distribution specification: registries should take 4 MiB).
pub(super) const MAX_DOCUMENT: u64 = 4 << 20;
/// The overlay file system takes more, but no honest image has more (Docker: 127).
const MAX_LAYERS: usize = 127;

/// What a registry may answer with.
pub(super) const MEDIA_TYPES: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
                                      application/vnd.docker.distribution.manifest.v2+json, \
                                      application/vnd.docker.distribution.manifest.list.v2+json";

/// Names something by what it is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Descriptor {
    #[serde(rename = "mediaType", default)]
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) platform: Option<Platform>,
    #[serde(default)]
    pub(super) annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    /// The tag that an OCI layout gives it.
    pub(super) fn tag(&self) -> Option<&str> {
        let annotations = self.annotations.as_ref()?;
        annotations.get("org.opencontainers.image.ref.name").map(String::as_str)
    }
}

/// What an image runs on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Platform {
    #[serde(default)]
    pub(super) os: String,
    #[serde(default)]
    pub(super) architecture: String,
    #[serde(default)]
    pub(super) variant: Option<String>,
}

impl Platform {
    /// Of this machine, in the words of the Go language, as images have them.
    pub(super) fn own() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "powerpc64" => ("ppc64le", None),
            other => (other, None),
        };
        Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }
    }

    /// How well something for `self` runs on `machine`: higher is better.
    fn fits(&self, machine: &Self) -> Option<u8> {
        if self.os != machine.os || self.architecture != machine.architecture {
            return None;
        }
        match (&self.variant, &machine.variant) {
            (own, wanted) if own == wanted => Some(3),
            (None, _) | (_, None) => Some(2),
            (Some(own), Some(wanted)) => (own < wanted).then_some(1),
        }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

/// What a name may lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Document {
    Index(Vec<Descriptor>),
    Manifest(Manifest),
}

/// An image for one platform.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Manifest {
    pub(super) config: Descriptor,
    /// The lowest first.
    pub(super) layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "schemaVersion")]
    version: u32,
    #[serde(rename = "mediaType", default)]
    media_type: String,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
}

/// Reads a manifest or an index.
///
/// # Errors
/// It is neither, or of a kind that is not supported.
pub(super) fn document(what: &str, bytes: &[u8]) -> Result<Document, ImageError> {
    let kind: Kind = json(what, bytes)?;
    if kind.version != 2 {
        let why =
            format!("its schema is {}, expected 2: push the image anew with a tool of today", kind.version);
        return Err(ImageError::malformed(what, why));
    }
    let is_index = kind.media_type.ends_with("index.v1+json") || kind.media_type.ends_with("list.v2+json");
    if let Some(manifests) = kind.manifests.filter(|_| is_index || kind.media_type.is_empty()) {
        return Ok(Document::Index(manifests));
    }
    let manifest: Manifest = json(what, bytes)?;
    let media_type = &manifest.config.media_type;
    let is_image =
        ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
    if !media_type.is_empty() && !is_image.contains(&media_type.as_str()) {
        return Err(ImageError::malformed(what, format!("it is not an image but {media_type:?}")));
    }
    if manifest.layers.len() > MAX_LAYERS {
        let why = format!("it has {} layers, expected at most {MAX_LAYERS}", manifest.layers.len());
        return Err(ImageError::malformed(what, why));
    }
    Ok(Document::Manifest(manifest))
}

/// The one of an index's manifests that runs on `machine`.
///
/// # Errors
/// None does; the error says what there is.
pub(super) fn choose<'a>(
    what: &str,
    manifests: impl IntoIterator<Item = &'a Descriptor> + Clone,
    machine: &Platform,
) -> Result<&'a Descriptor, ImageError> {
    let fits = |descriptor: &Descriptor| match &descriptor.platform {
        // It says nothing, so its configuration will.
        None => Some(0),
        Some(platform) => platform.fits(machine),
    };
    let mut best: Option<(u8, &Descriptor)> = None;
    for descriptor in manifests.clone() {
        // Of those that fit alike, the first counts (OCI image specification, "index").
        if let Some(fit) = fits(descriptor).filter(|fit| best.is_none_or(|(best, _)| *fit > best)) {
            best = Some((fit, descriptor));
        }
    }
    best.map(|(_, descriptor)| descriptor).ok_or_else(|| {
        let there = manifests.into_iter().filter_map(|descriptor| descriptor.platform.as_ref());
        let there: Vec<String> = there.map(ToString::to_string).collect();
        let there = if there.is_empty() { "nothing".to_owned() } else { there.join(", ") };
        ImageError::NotFound(format!("{what} has no image for {machine}, only for {there}"))
    })
}

/// What a configuration says: of the program, and of the layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Configuration {
    pub(super) config: ImageConfig,
    /// Digests of the archives in the layers, the lowest first.
    pub(super) diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
struct ConfigFile {
    #[serde(flatten)]
    platform: Platform,
    #[serde(default)]
    config: Option<Run>,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Option<Vec<Digest>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Run {
    user: Option<String>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
    stop_signal: Option<String>,
}

/// Reads a configuration.
///
/// # Errors
/// It is none, or one of an image for another machine than `machine`.
pub(super) fn configuration(
    what: &str,
    bytes: &[u8],
    machine: &Platform,
) -> Result<Configuration, ImageError> {
    let file: ConfigFile = json(what, bytes)?;
    let is_stated = !file.platform.os.is_empty() && !file.platform.architecture.is_empty();
    if is_stated && file.platform.fits(machine).is_none() {
        let why = format!("it is for {}, and this machine is {machine}", file.platform);
        return Err(ImageError::malformed(what, why));
    }
    let run = file.config.unwrap_or_default();
    Ok(Configuration {
        config: image_config(run).map_err(|why| ImageError::malformed(what, why))?,
        diff_ids: file.rootfs.diff_ids.unwrap_or_default(),
    })
}

fn image_config(run: Run) -> Result<ImageConfig, String> {
    let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
    let texts = [&run.entrypoint, &run.cmd, &run.env].into_iter().flatten().flatten();
    if texts.chain(&run.working_dir).chain(&run.user).any(|text| text.contains('\0')) {
        return Err("a text in its configuration has a zero byte".to_owned());
    }
    let signal = |text: String| text.parse::<StopSignal>().map_err(|error| error.to_string());
    let split = |text: &String| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    // Docker takes a relative directory to be below the root.
    let absolute = |path: String| if path.starts_with('/') { path } else { format!("/{path}") };
    Ok(ImageConfig {
        entrypoint: run.entrypoint.unwrap_or_default(),
        cmd: run.cmd.unwrap_or_default(),
        env: run.env.iter().flatten().filter_map(split).filter(|(name, _)| !name.is_empty()).collect(),
        workdir: filled(run.working_dir).map(absolute),
        user: filled(run.user),
        stop_signal: filled(run.stop_signal).map(signal).transpose()?,
    })
}

/// Reads JSON; the error names the document.
///
/// # Errors
/// It is not what is expected.
pub(super) fn json<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, ImageError> {
    serde_json::from_slice(bytes).map_err(|error| ImageError::malformed(what, error.to_string()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn amd64() -> Platform {
        Platform { os: "linux".into(), architecture: "amd64".into(), variant: None }
    }

    fn digest(digit: char) -> String {
        format!("sha256:{}", digit.to_string().repeat(64))
    }

    #[test]
    fn an_index_gives_the_image_of_this_machine() {
        let entry = |digit, platform: serde_json::Value| serde_json::json!({ "digest": digest(digit), "size": 1, "platform": platform });
        let text = serde_json::json!({ "schemaVersion": 2, "manifests": [
            entry('1', serde_json::json!({ "os": "unknown", "architecture": "unknown" })),
            entry('2', serde_json::json!({ "os": "linux", "architecture": "arm", "variant": "v6" })),
            entry('3', serde_json::json!({ "os": "linux", "architecture": "amd64" })),
            entry('4', serde_json::json!({ "os": "linux", "architecture": "amd64" })),
            entry('5', serde_json::json!({ "os": "linux", "architecture": "arm", "variant": "v7" })),
        ]});
        let Document::Index(index) = document("i", text.to_string().as_bytes()).unwrap() else { panic!() };
        let chosen = |machine: &Platform| choose("i", &index, machine).map(|it| it.digest.to_string()).ok();
        assert_eq!(chosen(&amd64()), Some(digest('3')));
        let arm =
            |variant: &str| Platform { architecture: "arm".into(), variant: Some(variant.into()), ..amd64() };
        assert_eq!((chosen(&arm("v7")), chosen(&arm("v6"))), (Some(digest('5')), Some(digest('2'))));
        let riscv = Platform { architecture: "riscv64".into(), ..amd64() };
        let error = choose("i", &index, &riscv).unwrap_err().to_string();
        assert!(
            error.starts_with("i has no image for linux/riscv64, only for unknown/unknown, linux/arm/v6"),
            "{error}"
        );
    }

    #[test]
    fn a_configuration_says_how_its_program_runs() {
        let text = serde_json::json!({
            "architecture": "amd64", "os": "linux",
            "config": { "User": "www:33", "Env": ["PATH=/bin", "A=b=c", "bad"], "Entrypoint": ["/x"], "Cmd": null,
                        "WorkingDir": "srv", "StopSignal": "SIGQUIT" },
            "rootfs": { "type": "layers", "diff_ids": [digest('a')] },
        });
        let read = configuration("c", text.to_string().as_bytes(), &amd64()).unwrap();
        let env = [("A", "b=c"), ("PATH", "/bin")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let config = ImageConfig {
            entrypoint: vec!["/x".into()],
            cmd: vec![],
            env: env.into(),
            workdir: Some("/srv".into()),
            user: Some("www:33".into()),
            stop_signal: "SIGQUIT".parse().ok(),
        };
        assert_eq!(read, Configuration { config, diff_ids: vec![digest('a').parse().unwrap()] });
        let other = text.to_string().replace("amd64", "s390x");
        let error = configuration("c", other.as_bytes(), &amd64()).unwrap_err().to_string();
        assert_eq!(error, "c is not valid: it is for linux/s390x, and this machine is linux/amd64");
    }

    #[test]
    fn what_is_no_image_is_refused_with_a_reason() {
        let helm = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.cncf.helm.config.v1+json","digest":"{}","size":1}},"layers":[]}}"#,
            digest('a')
        );
        for (text, reason) in [
            (r#"{"schemaVersion":1,"fsLayers":[]}"#, "expected 2"),
            (helm.as_str(), "not an image but \"application/vnd.cncf.helm"),
            (r#"{"schemaVersion":2}"#, "missing field `config`"),
            (r#"{"schemaVersion":2,"manifests":[{"digest":"sha256:1","size":1}]}"#, "64 lower-case"),
            ("", "EOF"),
        ] {
            let error = document("m", text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_stop_the_readers(bytes in proptest::collection::vec(any::<u8>(), 0..512), cut in 0_usize..400, at in 0_usize..400, byte: u8) {
            let text = format!(
                r#"{{"schemaVersion":2,"config":{{"digest":"{0}","size":7}},"layers":[{{"digest":"{0}","size":9}}],"rootfs":{{"diff_ids":["{0}"]}}}}"#,
                digest('b')
            );
            let mut bent = text.into_bytes();
            if let Some(one) = bent.get_mut(at) { *one = byte; }
            bent.truncate(cut);
            for bytes in [&bytes, &bent] {
                drop(document("m", bytes));
                drop(configuration("c", bytes, &amd64()));
            }
        }
    }
}
