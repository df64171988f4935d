//! Checkpoints on disk: one small file for each record, so written that the death of the agent at any instruction leaves either
//! the old version or the new one. A file that has neither is set aside, and costs no other task anything.
//!
//! A version is a line of JSON and a line with its SHA-256. A file is made whole, under another name first; later versions are
//! appended, for a file that is replaced has to be given back to the disk, and the last that is whole is the record's. Only what
//! has to survive the loss of power is synced before it is reported ([`Record::outlives_power`]).

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use sha2::{Digest, Sha256};
use tracing::{error, warn};

use crate::container::ContainerId;
use crate::crash;
use crate::disk::Bin;
use crate::supervisor::{AgentRecord, Record, TaskRecord, Token};

const AGENT: &str = "agent.json";
/// The same again: without its id the agent would be another one, and its tasks lost to the master.
const AGENT_COPY: &str = "agent-copy.json";
const TASK_PREFIX: &str = "task-";
const SUFFIX: &str = ".json";
/// What is being written; never read.
const TEMPORARY: &str = ".new";
/// What could not be read; never read again.
const CORRUPT: &str = ".corrupt";
/// Most records that are written before their tokens are reported.
const BATCH: usize = 128;
/// A file that would grow beyond this, in bytes, is made anew.
const FILE_MAX: usize = 65_536;
/// The pause before writing again what could not be written.
const RETRY: Duration = Duration::from_secs(1);

/// Why checkpoints cannot be used at all.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}: {source}", .path.display())]
pub struct CheckpointError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// What an earlier process left.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Loaded {
    pub(crate) agent: Option<AgentRecord>,
    pub(crate) tasks: Vec<TaskRecord>,
    /// Files that were set aside, and why.
    pub(crate) corrupt: Vec<String>,
}

/// The directory of checkpoints.
#[derive(Debug, Clone)]
pub(crate) struct Checkpoints {
    directory: PathBuf,
}

impl Checkpoints {
    /// Only the agent may read them: a task's environment may hold secrets.
    pub(crate) fn open(directory: PathBuf) -> Result<Self, CheckpointError> {
        fs::create_dir_all(&directory).map_err(failed("create", &directory))?;
        let closed = fs::set_permissions(&directory, fs::Permissions::from_mode(0o700));
        closed.map_err(failed("close to others", &directory))?;
        Ok(Self { directory })
    }

    /// Everything that is there and whole. Only a directory that cannot be read at all is an error.
    pub(crate) fn load(&self) -> Result<Loaded, CheckpointError> {
        let mut loaded = Loaded::default();
        let entries = fs::read_dir(&self.directory).map_err(failed("read", &self.directory))?;
        for entry in entries {
            let path = entry.map_err(failed("read", &self.directory))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.ends_with(TEMPORARY) {
                if let Err(error) = fs::remove_file(&path) {
                    warn!("cannot remove {}: {error}", path.display()); // it is never read, and written over
                }
            } else if name == AGENT || name == AGENT_COPY {
                loaded.agent = read(&path, &mut loaded.corrupt).or(loaded.agent);
            } else if name.starts_with(TASK_PREFIX) && name.ends_with(SUFFIX) {
                loaded.tasks.extend(read::<TaskRecord>(&path, &mut loaded.corrupt));
            }
        }
        loaded.tasks.sort_by_key(TaskRecord::key);
        Ok(loaded)
    }

    /// Starts the thread that writes. It reports each token through `done` once all up to it is written, and ends when the
    /// writer is dropped and everything is.
    pub(crate) fn writer(&self, done: impl Fn(Token) + Send + 'static) -> io::Result<Writer> {
        // Not bounded: what waits here is at most a few records for each task that the agent has.
        let (orders, queue) = mpsc::channel::<Order>();
        let mut files = Files {
            directory: self.directory.clone(),
            bin: Bin::beside(&self.directory)?,
            sizes: HashMap::new(),
            has_unsynced_names: false,
        };
        let thread = std::thread::Builder::new().name("checkpoints".to_owned());
        let thread = thread.spawn(move || {
            while let Ok(first) = queue.recv() {
                let batch: Vec<Order> =
                    std::iter::once(first).chain(queue.try_iter().take(BATCH - 1)).collect();
                files.apply_until_it_works(&batch);
                batch.iter().filter_map(|order| order.token).for_each(&done);
            }
        })?;
        Ok(Writer { orders, thread })
    }
}

/// The files as the thread that writes them knows them.
struct Files {
    directory: PathBuf,
    bin: Bin,
    /// How long those are that end with a whole version, in bytes: only to them is appended.
    sizes: HashMap<String, usize>,
    /// Whether there are files whose names would not survive the loss of power.
    has_unsynced_names: bool,
}

impl Files {
    fn apply_until_it_works(&mut self, batch: &[Order]) {
        while let Err(error) = self.apply(batch) {
            error!("{error}; no task starts and no update is sent until it works");
            std::thread::sleep(RETRY);
        }
    }

    fn apply(&mut self, batch: &[Order]) -> Result<(), CheckpointError> {
        let latest: BTreeMap<&str, usize> =
            batch.iter().enumerate().map(|(at, order)| (order.name.as_str(), at)).collect();
        let needed = |(at, order): &(usize, &Order)| latest.get(order.name.as_str()) == Some(at);
        let mut durable = false;
        for (_, order) in batch.iter().enumerate().filter(needed) {
            match &order.content {
                Some(version) => self.write(&order.name, version, order.durable)?,
                // A task that comes back from the dead is only acknowledged once more: this need not be synced.
                None => self.remove(&order.name)?,
            }
            durable |= order.durable;
        }
        if durable && self.has_unsynced_names {
            let synced = File::open(&self.directory).and_then(|directory| directory.sync_all());
            synced.map_err(failed("sync", &self.directory))?;
            self.has_unsynced_names = false;
        }
        Ok(())
    }

    fn write(&mut self, name: &str, version: &[u8], durable: bool) -> Result<(), CheckpointError> {
        let path = self.directory.join(name);
        // Until this has worked, the file may end with half a version.
        let size = self.sizes.remove(name).filter(|size| size + version.len() <= FILE_MAX);
        match size {
            Some(_) => {
                let appended = OpenOptions::new().append(true).open(&path);
                let appended = appended.and_then(|file| write_through(file, version, durable));
                appended.map_err(failed("append to", &path))?;
                crash::point(format_args!("checkpoint appended"));
            }
            None => self.make(&path, name, version, durable)?,
        }
        self.sizes.insert(name.to_owned(), size.unwrap_or_default() + version.len());
        Ok(())
    }

    fn make(
        &mut self,
        path: &Path,
        name: &str,
        version: &[u8],
        durable: bool,
    ) -> Result<(), CheckpointError> {
        let draft = self.directory.join(format!("{name}{TEMPORARY}"));
        let drafted = File::create(&draft).and_then(|file| write_through(file, version, durable));
        drafted.map_err(failed("write", &draft))?;
        crash::point(format_args!("checkpoint drafted"));
        fs::rename(&draft, path).map_err(failed("replace", path))?;
        self.has_unsynced_names = true;
        crash::point(format_args!("checkpoint made"));
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<(), CheckpointError> {
        self.sizes.remove(name);
        let path = self.directory.join(name);
        self.bin.throw(&path).map_err(failed("remove", &path))
    }
}

/// Takes orders for the thread that writes, and never blocks.
#[derive(Debug)]
pub(crate) struct Writer {
    orders: mpsc::Sender<Order>,
    thread: std::thread::JoinHandle<()>,
}

#[derive(Debug)]
struct Order {
    name: String,
    /// The new version; none removes the file.
    content: Option<Vec<u8>>,
    /// Whether it must survive the loss of power.
    durable: bool,
    token: Option<Token>,
}

impl Writer {
    pub(crate) fn write(&self, token: Token, record: &Record) {
        let (names, content) = match record {
            Record::Agent(record) => (vec![AGENT_COPY.to_owned(), AGENT.to_owned()], encode(record)),
            Record::Task(record) => (vec![task_file(&record.container)], encode(record)),
        };
        let content = match content {
            Ok(content) => content,
            Err(error) => return error!("{names:?} cannot be written as JSON: {error}"),
        };
        let (last, durable) = (names.len().saturating_sub(1), record.outlives_power());
        for (number, name) in names.into_iter().enumerate() {
            let token = (number == last).then_some(token);
            self.order(Order { name, content: Some(content.clone()), durable, token });
        }
    }

    pub(crate) fn remove(&self, container: &ContainerId) {
        self.order(Order { name: task_file(container), content: None, durable: false, token: None });
    }

    /// Waits until all is written. Blocks.
    pub(crate) fn close(self) {
        drop(self.orders);
        if self.thread.join().is_err() {
            error!("the thread that writes checkpoints has died");
        }
    }

    fn order(&self, order: Order) {
        if self.orders.send(order).is_err() {
            error!("the thread that writes checkpoints has died");
        }
    }
}

fn task_file(container: &ContainerId) -> String {
    format!("{TASK_PREFIX}{container}{SUFFIX}")
}

fn encode(record: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut content = serde_json::to_vec(record)?;
    let sum = checksum(&content);
    content.extend_from_slice(format!("\nsha256 {sum}\n").as_bytes());
    Ok(content)
}

/// The last version that is whole. Half a version may follow it, which was being written when the agent died; anything else that
/// is not whole makes the file worthless.
fn decode<T: DeserializeOwned>(content: &[u8]) -> Result<T, String> {
    let (mut last, mut rest) = (None, content);
    while let Some((json, further)) = next_version(rest)? {
        (last, rest) = (Some(json), further);
    }
    let json = last.ok_or("it has no version that is whole")?;
    serde_json::from_slice(json).map_err(|error| error.to_string())
}

/// The JSON of a version, and what follows the version.
type Version<'a> = (&'a [u8], &'a [u8]);

/// The first version of what is there. None if there is only the beginning of one.
fn next_version(content: &[u8]) -> Result<Option<Version<'_>>, String> {
    let Some(line) = content.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
    let (json, sum_and_rest) = content.split_at(line);
    let sum = format!("\nsha256 {}\n", checksum(json)).into_bytes();
    if let Some(rest) = sum_and_rest.strip_prefix(sum.as_slice()) {
        return Ok(Some((json, rest)));
    }
    let is_beginning = sum.starts_with(sum_and_rest) && serde_json::from_slice::<IgnoredAny>(json).is_ok();
    if is_beginning { Ok(None) } else { Err("its checksum is wrong".to_owned()) }
}

fn checksum(json: &[u8]) -> String {
    Sha256::digest(json).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn write_through(mut file: File, version: &[u8], durable: bool) -> io::Result<()> {
    file.write_all(version)?;
    if durable { file.sync_all() } else { Ok(()) }
}

/// A record, or nothing if the file is not whole or cannot be read; then it is set aside.
fn read<T: DeserializeOwned>(path: &Path, corrupt: &mut Vec<String>) -> Option<T> {
    let why = match fs::read(path).map_err(|error| error.to_string()).and_then(|content| decode(&content)) {
        Ok(record) => return Some(record),
        Err(why) => why,
    };
    let mut aside = path.as_os_str().to_owned();
    aside.push(CORRUPT);
    let kept = match fs::rename(path, &aside) {
        Ok(()) => format!("it is kept with {CORRUPT}"),
        Err(error) => format!("it stays, because it cannot be renamed: {error}"),
    };
    let text = format!("checkpoint {} is not whole ({why}); {kept}", path.display());
    error!("{text}");
    corrupt.push(text);
    None
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CheckpointError {
    let path = path.to_owned();
    move |source| CheckpointError { what, path, source }
}

#[cfg(test)]
mod tests;
