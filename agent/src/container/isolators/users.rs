//! Whom a container's program runs as, in the numbers that the kernel knows. With an image, its own `/etc/passwd` and `/etc/group`
//! say what a name means; otherwise the host's user database.
//!
//! Not here: who may run tasks as whom.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use super::security::Identity;
use super::{layers, step, step_on};
use crate::container::LaunchError;
use crate::container::spec::{ContainerSpec, Root};

/// A user, and where it is at home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) identity: Identity,
    /// As the image has it; a user of the host has no home in a container.
    pub(super) home: Option<String>,
}

/// The user of `spec`, its groups, and those that `spec` adds. As in Docker, a main group that is asked for stands in the place of
/// all groups that the user database has for the user.
pub(super) fn look_up(spec: &ContainerSpec) -> Result<Account, LaunchError> {
    match &spec.root {
        Root::Host => of_host(spec).map(|identity| Account { identity, home: None }),
        Root::Image { layers } => of_image(spec, &Database::read(layers)?),
    }
}

fn identity(uid: u32, gid: u32, own: Vec<u32>, added: Vec<u32>) -> Identity {
    let mut groups = own;
    for group in [gid].into_iter().chain(added) {
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    Identity { uid, gid, groups }
}

fn unknown(field: &str, value: &str, why: &str) -> LaunchError {
    LaunchError::Spec { field: field.to_owned(), value: value.to_owned(), why: why.to_owned() }
}

fn of_host(spec: &ContainerSpec) -> Result<Identity, LaunchError> {
    let name = spec.user.as_str();
    let what = || format!("look up user {name}");
    let user = match name.parse() {
        Ok(uid) => User::from_uid(Uid::from_raw(uid)),
        Err(_) => User::from_name(name),
    };
    let user = user.map_err(step(what()))?;
    let group = spec.group.as_deref().map(host_group).transpose()?;
    let added = spec.groups.iter().map(|group| host_group(group)).collect::<Result<Vec<_>, _>>()?;
    match (user, group, name.parse()) {
        (Some(user), Some(gid), _) => Ok(identity(user.uid.as_raw(), gid, Vec::new(), added)),
        (Some(user), None, _) => {
            let name = CString::new(user.name).map_err(step(what()))?;
            let own = getgrouplist(&name, user.gid).map_err(step(what()))?;
            let own = own.into_iter().map(Gid::as_raw).collect();
            Ok(identity(user.uid.as_raw(), user.gid.as_raw(), own, added))
        }
        (None, Some(gid), Ok(uid)) => Ok(identity(uid, gid, Vec::new(), added)),
        (None, None, Ok(_)) => {
            Err(unknown("user", name, "this host knows nobody with this number; name a group, too"))
        }
        (None, _, Err(_)) => Err(LaunchError::UnknownUser(spec.user.clone())),
    }
}

fn host_group(name: &str) -> Result<u32, LaunchError> {
    if let Ok(gid) = name.parse() {
        return Ok(gid);
    }
    let group = Group::from_name(name).map_err(step(format!("look up group {name}")))?;
    let group = group.ok_or_else(|| unknown("group", name, "this host does not have it"))?;
    Ok(group.gid.as_raw())
}

/// A number that the image does not know is right, too; its main group is then root's, as in Docker.
fn of_image(spec: &ContainerSpec, database: &Database) -> Result<Account, LaunchError> {
    let name = spec.user.as_str();
    let number = name.parse().ok();
    let user = database.user(name, number);
    let (uid, gid, home) = match (&user, number, name) {
        (Some(user), ..) => (user.uid, user.gid, user.home),
        (None, Some(uid), _) => (uid, 0, "/"),
        (None, None, "root") => (0, 0, "/root"),
        (None, None, _) => return Err(unknown("user", name, "the image's /etc/passwd does not have it")),
    };
    let group = |name: &String| {
        database.group(name).ok_or_else(|| unknown("group", name, "the image's /etc/group does not have it"))
    };
    let added = spec.groups.iter().map(group).collect::<Result<_, _>>()?;
    let identity = match &spec.group {
        Some(main) => identity(uid, group(main)?, Vec::new(), added),
        None => {
            let own = user.as_ref().map(|user| database.groups_of(user.name)).unwrap_or_default();
            identity(uid, gid, own, added)
        }
    };
    Ok(Account { identity, home: Some(home.to_owned()) })
}

/// An image's `/etc/passwd` and `/etc/group`, as it came.
#[derive(Debug, Default)]
struct Database {
    users: String,
    groups: String,
}

struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl Database {
    fn read(layers: &[PathBuf]) -> Result<Self, LaunchError> {
        let text = |path: &str| {
            let path = Path::new(path);
            let text = layers::read(layers, path).map_err(step_on("read the image's", path));
            text.map(Option::unwrap_or_default)
        };
        Ok(Self { users: text("/etc/passwd")?, groups: text("/etc/group")? })
    }

    /// By name; by number if it has none of that name.
    fn user(&self, name: &str, number: Option<u32>) -> Option<Entry<'_>> {
        let entries = || {
            self.users.lines().filter_map(|line| {
                let mut fields = line.split(':');
                let (name, _, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
                let home = fields.nth(1).filter(|home| home.starts_with('/')).unwrap_or("/");
                Some(Entry { name, uid: uid.parse().ok()?, gid: gid.parse().ok()?, home })
            })
        };
        entries()
            .find(|entry| entry.name == name)
            .or_else(|| entries().find(|entry| Some(entry.uid) == number))
    }

    /// Name, number and members.
    fn group_entries(&self) -> impl Iterator<Item = (&str, u32, &str)> {
        self.groups.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let (name, _, gid) = (fields.next()?, fields.next()?, fields.next()?);
            Some((name, gid.parse().ok()?, fields.next().unwrap_or_default()))
        })
    }

    fn group(&self, name: &str) -> Option<u32> {
        let named = self.group_entries().find(|(known, ..)| *known == name).map(|(_, gid, _)| gid);
        named.or_else(|| name.parse().ok())
    }

    fn groups_of(&self, user: &str) -> Vec<u32> {
        let member = |members: &str| members.split(',').any(|member| member.trim() == user);
        self.group_entries().filter(|(.., members)| member(members)).map(|(_, gid, _)| gid).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use divvy_proto::{Bytes, Hostname};

    use super::*;
    use crate::container::{ContainerId, UserName};

    fn spec(user: &str, group: Option<&str>, groups: &[&str], layers: &[&Path]) -> ContainerSpec {
        let id = ContainerId::new("web").unwrap();
        let user = UserName::new(user).unwrap();
        let limits = (Bytes::mib(8), 8);
        ContainerSpec {
            group: group.map(str::to_owned),
            groups: groups.iter().map(|&group| group.to_owned()).collect(),
            root: Root::Image { layers: layers.iter().map(|&layer| layer.to_owned()).collect() },
            ..ContainerSpec::plain(id, Hostname::new("web").unwrap(), PathBuf::from("/"), user, limits)
        }
    }

    fn layer(passwd: &str, group: &str) -> tempfile::TempDir {
        let layer = tempfile::tempdir().unwrap();
        fs::create_dir(layer.path().join("etc")).unwrap();
        fs::write(layer.path().join("etc/passwd"), passwd).unwrap();
        fs::write(layer.path().join("etc/group"), group).unwrap();
        layer
    }

    fn found(uid: u32, gid: u32, groups: &[u32], home: &str) -> Result<Account, LaunchError> {
        Ok(Account { identity: Identity { uid, gid, groups: groups.to_vec() }, home: Some(home.to_owned()) })
    }

    #[test]
    fn an_image_says_what_its_names_mean() {
        let image = layer(
            "root:x:0:0:root:/root:/bin/sh\nweb:x:101:102::/srv:\nbroken line\n",
            "web:x:102:\nwww:x:33:web,other\nlog:x:4:\n",
        );
        let told = |user, group, groups: &[&str]| look_up(&spec(user, group, groups, &[image.path()]));
        assert_eq!(told("web", None, &[]), found(101, 102, &[33, 102], "/srv"));
        assert_eq!(told("101", None, &["log", "7"]), found(101, 102, &[33, 102, 4, 7], "/srv"));
        assert_eq!(told("web", Some("log"), &[]), found(101, 4, &[4], "/srv"));
        assert_eq!(told("5000", None, &[]), found(5000, 0, &[0], "/"));
        let refused = told("nobody", None, &[]).unwrap_err().to_string();
        assert_eq!(refused, "user nobody is not possible: the image's /etc/passwd does not have it");
        let refused = told("web", None, &["adm"]).unwrap_err().to_string();
        assert_eq!(refused, "group adm is not possible: the image's /etc/group does not have it");
    }

    #[test]
    fn the_highest_layer_counts_and_no_link_leads_out_of_it() {
        let below = layer("web:x:1:1::/:\n", "");
        let above = layer("web:x:2:2::/:\n", "");
        let told =
            |layers: &[&Path]| look_up(&spec("web", None, &[], layers)).map(|account| account.identity.uid);
        assert_eq!(told(&[below.path(), above.path()]), Ok(2));
        let trick = tempfile::tempdir().unwrap();
        fs::create_dir(trick.path().join("etc")).unwrap();
        symlink(above.path().join("etc/passwd"), trick.path().join("etc/passwd")).unwrap();
        // There is no such file inside, whatever there is outside.
        assert!(told(&[below.path(), trick.path()]).is_err());
        fs::write(trick.path().join("users"), "web:x:3:3::/:\n").unwrap();
        fs::remove_file(trick.path().join("etc/passwd")).unwrap();
        symlink("/users", trick.path().join("etc/passwd")).unwrap();
        assert_eq!(told(&[below.path(), trick.path()]), Ok(3));
    }
}
