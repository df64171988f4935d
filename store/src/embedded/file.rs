//! The tables in the file: how it is opened, read, and changed within a transaction.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use redb::backends::{FileBackend, InMemoryBackend};
use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, Table, TableDefinition,
    WriteTransaction,
};

use crate::batch::{Condition, Write};
use crate::error::StoreError;
use crate::key::{Key, Prefix};
use crate::store::{Entry, Listing, Revision};
use crate::watch::Change;

/// By key: the revision of the last write, and the value.
const ENTRIES: TableDefinition<&str, (u64, &[u8])> = TableDefinition::new("entries");
/// By what is led: the latest token.
const TOKENS: TableDefinition<&str, u64> = TableDefinition::new("tokens");
/// Numbers of the store itself.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

const REVISION: &str = "revision";
const FORMAT: &str = "format";
/// Rises when the tables change their meaning.
const KNOWN_FORMAT: u64 = 1;

/// Opens the file, or makes it, for this user only; what it holds may be secret.
pub(super) fn open(path: &Path) -> Result<Database, StoreError> {
    let failed = |source: io::Error| StoreError::Open { path: path.to_owned(), source: Arc::new(source) };
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory).map_err(failed)?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    // The engine trusts a file that was closed cleanly, and panics on some that were damaged since.
    let open = || Builder::new().create_with_backend(FileBackend::new(file)?);
    let database = std::panic::catch_unwind(AssertUnwindSafe(open));
    let database = match database {
        Ok(database) => database.map_err(|e| explain(path, e))?,
        Err(_) => return Err(corrupt(path, "it is damaged")),
    };
    // A new file is in its directory after a crash only if the directory was written too.
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
    Ok(database)
}

/// A database that is gone when it is dropped.
pub(super) fn in_memory() -> Result<Database, StoreError> {
    let database = Builder::new().create_with_backend(InMemoryBackend::new());
    database.map_err(|e| explain(Path::new("in memory"), e))
}

fn explain(path: &Path, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            StoreError::InUse { path: path.to_owned() }
        }
        DatabaseError::Storage(StorageError::Corrupted(why)) => corrupt(path, why),
        DatabaseError::Storage(StorageError::Io(e))
            if matches!(e.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            corrupt(path, format!("it is not a store ({e})"))
        }
        other => StoreError::Open { path: path.to_owned(), source: Arc::new(other) },
    }
}

fn corrupt(path: &Path, why: impl Into<String>) -> StoreError {
    StoreError::Corrupt { path: path.to_owned(), why: why.into() }
}

/// Makes the tables where they are missing, checks the format, and reads the revision.
pub(super) fn prepare(database: &Database, path: &Path) -> Result<Revision, StoreError> {
    let prepare = || -> Result<(u64, u64), redb::Error> {
        let transaction = database.begin_write()?;
        let (format, revision) = {
            transaction.open_table(ENTRIES)?;
            transaction.open_table(TOKENS)?;
            let mut meta = transaction.open_table(META)?;
            let format = number(&meta, FORMAT)?.unwrap_or(KNOWN_FORMAT);
            meta.insert(FORMAT, format)?;
            (format, number(&meta, REVISION)?.unwrap_or_default())
        };
        transaction.commit()?;
        Ok((format, revision))
    };
    // Damage within the tables shows here first.
    let (format, revision) = std::panic::catch_unwind(AssertUnwindSafe(prepare))
        .map_err(|_| corrupt(path, "it is damaged"))?
        .map_err(|e| corrupt(path, e.to_string()))?;
    match format {
        KNOWN_FORMAT => Ok(Revision(revision)),
        found => Err(StoreError::Format { path: path.to_owned(), found, known: KNOWN_FORMAT }),
    }
}

fn number(table: &impl ReadableTable<&'static str, u64>, name: &str) -> Result<Option<u64>, StorageError> {
    Ok(table.get(name)?.map(|number| number.value()))
}

fn entry(key: &str, (revision, value): (u64, &[u8])) -> Entry {
    Entry { key: Key::trusted(key), value: Bytes::copy_from_slice(value), revision: Revision(revision) }
}

/// The entry under a key.
pub(super) fn get(database: &Database, key: &Key) -> Result<Option<Entry>, redb::Error> {
    let table = database.begin_read()?.open_table(ENTRIES)?;
    Ok(table.get(key.as_str())?.map(|found| entry(key.as_str(), found.value())))
}

/// The entries of a group and the revision, of one snapshot.
pub(super) fn range(database: &Database, prefix: &Prefix) -> Result<Listing, redb::Error> {
    let snapshot = database.begin_read()?;
    let table = snapshot.open_table(ENTRIES)?;
    let mut entries = Vec::new();
    for found in table.range(prefix.as_str()..)? {
        let (key, value) = found?;
        if !key.value().starts_with(prefix.as_str()) {
            break;
        }
        entries.push(entry(key.value(), value.value()));
    }
    let revision = number(&snapshot.open_table(META)?, REVISION)?.unwrap_or_default();
    Ok(Listing { entries, revision: Revision(revision) })
}

/// The tables that batches read and change, within a transaction.
pub(super) struct Tables<'t>(Table<'t, &'static str, (u64, &'static [u8])>);

impl<'t> Tables<'t> {
    /// Opens them.
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self(transaction.open_table(ENTRIES)?))
    }

    /// Whether a condition holds; a fence is not for the tables to judge.
    pub(super) fn holds(&self, condition: &Condition) -> Result<bool, redb::Error> {
        Ok(match condition {
            Condition::Absent(key) => self.revision(key)?.is_none(),
            Condition::Exists(key) => self.revision(key)?.is_some(),
            Condition::RevisionIs(key, revision) => self.revision(key)? == Some(*revision),
            Condition::Fence(_) => false,
        })
    }

    fn revision(&self, key: &Key) -> Result<Option<Revision>, redb::Error> {
        Ok(self.0.get(key.as_str())?.map(|found| Revision(found.value().0)))
    }

    /// Does a write; `None` if it changes nothing.
    pub(super) fn write(&mut self, write: Write, revision: Revision) -> Result<Option<Change>, redb::Error> {
        match write {
            Write::Put(key, value) => {
                self.0.insert(key.as_str(), (revision.0, value.as_ref()))?;
                Ok(Some(Change::Put(Entry { key, value, revision })))
            }
            Write::Delete(key) => {
                let found = self.0.remove(key.as_str())?.is_some();
                Ok(found.then_some(Change::Delete(key)))
            }
        }
    }
}

/// Stores the revision within a transaction.
pub(super) fn set_revision(transaction: &WriteTransaction, revision: Revision) -> Result<(), redb::Error> {
    transaction.open_table(META)?.insert(REVISION, revision.0)?;
    Ok(())
}

/// The next token for a name, which survives a crash before anybody has it.
pub(super) fn next_token(database: &Database, name: &Key) -> Result<u64, redb::Error> {
    let transaction = database.begin_write()?;
    let token = {
        let mut tokens = transaction.open_table(TOKENS)?;
        let token = tokens.get(name.as_str())?.map_or(0, |token| token.value()) + 1;
        tokens.insert(name.as_str(), token)?;
        token
    };
    transaction.commit()?;
    Ok(token)
}
