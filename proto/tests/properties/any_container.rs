//! Arbitrary containers.

use divvy_proto::container::{
    Capability, ContainerInfo, DeviceAccess, Digest, GroupMember, Mount, Network, Rlimit, SecretFile,
};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

use crate::any::{id, name};
use crate::any_owned::bytes;

pub(crate) fn digest() -> impl Strategy<Value = Digest> {
    "[0-9a-f]{64}".prop_map(|hex| format!("sha256:{hex}").parse().unwrap())
}

fn path() -> impl Strategy<Value = String> {
    "(/[a-z]{1,3}){1,3}"
}

fn mount() -> impl Strategy<Value = Mount> {
    prop_oneof![
        (path(), path(), any::<bool>()).prop_map(|(source, path, read_only)| Mount::Host {
            source,
            path,
            read_only
        }),
        (path(), bytes()).prop_map(|(path, size)| {
            Mount::Tmpfs { path, size: if size.bytes() == 0 { "1MiB".parse().unwrap() } else { size } }
        }),
        ("[a-z]{1,3}", path(), any::<bool>()).prop_map(|(source, path, read_only)| Mount::Sandbox {
            source,
            path,
            read_only
        }),
    ]
}

fn rlimit() -> impl Strategy<Value = Rlimit> {
    (any::<u64>(), any::<u64>()).prop_map(|(one, two)| Rlimit {
        kind: "nofile".parse().unwrap(),
        soft: Some(one.min(two)),
        hard: Some(one.max(two)),
    })
}

fn image() -> impl Strategy<Value = divvy_proto::ImageName> {
    prop_oneof!["oci:/[a-z]{1,4}(:[a-z0-9.]{1,3})?", "docker://[a-z]{1,3}(:5000)?/[a-z]{1,4}:[a-z0-9]{1,3}"]
        .prop_map(|text| text.parse().unwrap())
}

fn capabilities() -> impl Strategy<Value = Vec<Capability>> {
    proptest::sample::subsequence(Capability::all().collect::<Vec<_>>(), 0..4)
}

pub(crate) fn container_info() -> impl Strategy<Value = Box<ContainerInfo>> {
    let network = prop_oneof![Just("host"), Just("none"), Just("bridge"), Just("blue")];
    let group = (id(), 1..9_u32, any::<bool>());
    let files =
        (of(image()), of(path()), network, any::<bool>(), vec(mount(), 0..3), vec((id(), of(path())), 0..2));
    let rights = (vec(name(), 0..3), capabilities(), capabilities(), of(rlimit()), any::<bool>(), of(path()));
    let limits = (of(1..64_u32), of(Just("64MiB")), of(Just("SIGQUIT")), of(group));
    (files, rights, limits).prop_map(|(files, rights, (cpus, size, signal, group))| {
        let (image, workdir, network, read_only, mut mounts, secrets) = files;
        let (groups, add_capabilities, drop_capabilities, rlimit, user_namespace, device) = rights;
        let mut seen = std::collections::BTreeSet::new();
        mounts.retain(|mount| seen.insert(mount.path().to_owned()));
        Box::new(ContainerInfo {
            image,
            args: Vec::new(),
            workdir,
            network: network.parse::<Network>().unwrap(),
            read_only,
            mounts,
            secrets: secrets.into_iter().map(|(name, path)| SecretFile { name, path }).collect(),
            groups,
            add_capabilities,
            drop_capabilities,
            rlimits: rlimit.into_iter().collect(),
            user_namespace,
            devices: device
                .into_iter()
                .map(|path| DeviceAccess { path: format!("/dev{path}"), write: true })
                .collect(),
            shm: size.map(|size| size.parse().unwrap()),
            cpuset: cpus.map(|last| divvy_proto::RangeSet::range(0, last)),
            memory_high: size.map(|size| size.parse().unwrap()),
            stop_signal: signal.map(|signal| signal.parse().unwrap()),
            group: group.map(|(id, size, ends_alone)| GroupMember { id, size, ends_alone }),
        })
    })
}
