//! `divvy files ls|cat|get TASK PATH`: what lies in a sandbox, by way of the master's address.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use divvy_proto::api::{self, FileEntry};
use divvy_proto::ids::TaskId;
use divvy_sdk::cli::{CliError, Context, table};
use reqwest::{Method, Response};
use tokio::sync::mpsc;

use super::{escaped, find_task};
use crate::cli::FilesAction;

/// So many pieces of an archive may wait to be unpacked.
const WAITING: usize = 4;

pub(super) async fn run(context: &Context, action: FilesAction) -> Result<(), CliError> {
    match action {
        FilesAction::Ls { task, path } => list(context, &task, &path).await,
        FilesAction::Cat { task, path } => {
            let task = find_task(context, &task).await?;
            let content = ask(context, &task, "files/content", &path).await?;
            copy(content, std::io::stdout(), &path).await
        }
        FilesAction::Get { task, path, to } => get(context, &task, &path, to).await,
    }
}

async fn ask(context: &Context, task: &api::Task, what: &str, path: &str) -> Result<Response, CliError> {
    let path = escaped(path, b"/");
    let (framework, id, agent) = (&task.framework_id, &task.id, &task.agent_id);
    let path = format!("/api/v1/tasks/{framework}/{id}/{what}?path={path}&agent={agent}");
    context.send(context.request(Method::GET, &path)).await
}

async fn list(context: &Context, task: &TaskId, path: &str) -> Result<(), CliError> {
    let task = find_task(context, task).await?;
    let answer = ask(context, &task, "files", path).await?;
    let entries: Vec<FileEntry> = answer.json().await.map_err(CliError::failed)?;
    context.print(&entries, |entries| {
        let rows = entries.iter().map(|entry| {
            let slash = if entry.kind == "directory" { "/" } else { "" };
            [
                entry.mode.clone(),
                entry.size.to_string(),
                entry.modified.to_string(),
                format!("{}{slash}", entry.name.escape_debug()),
            ]
        });
        table(["MODE", "SIZE", "MODIFIED", "NAME"], rows)
    })
}

fn broke_off(path: &str) -> impl Fn(reqwest::Error) -> CliError {
    move |error| CliError::Unreachable(format!("{path} broke off: {error}"))
}

async fn copy(mut content: Response, mut to: impl Write, path: &str) -> Result<(), CliError> {
    while let Some(piece) = content.chunk().await.map_err(broke_off(path))? {
        to.write_all(&piece).map_err(|error| CliError::Failed(format!("cannot write {path}: {error}")))?;
    }
    to.flush().map_err(|error| CliError::Failed(format!("cannot write {path}: {error}")))
}

async fn get(context: &Context, task: &TaskId, path: &str, to: Option<PathBuf>) -> Result<(), CliError> {
    let task = find_task(context, task).await?;
    // What is no file may be a directory.
    let file = match ask(context, &task, "files/content", path).await {
        Err(CliError::Usage(_)) => None,
        other => Some(other?),
    };
    let own = Path::new(path).file_name().map_or_else(|| PathBuf::from(task.id.as_str()), PathBuf::from);
    let to = to.unwrap_or_else(|| own.clone());
    let answer = match file {
        Some(_) => None,
        None => Some(ask(context, &task, "files/archive", path).await?),
    };
    match (file, answer) {
        (Some(answer), _) | (_, Some(answer)) if to.as_os_str() == "-" => {
            copy(answer, std::io::stdout(), path).await
        }
        (Some(content), _) => {
            let to = if to.is_dir() { to.join(own) } else { to };
            let file = File::create(&to);
            let file =
                file.map_err(|error| CliError::Failed(format!("cannot write {}: {error}", to.display())))?;
            copy(content, file, path).await
        }
        (None, Some(archive)) => unpack(archive, to, path).await,
        (None, None) => Ok(()),
    }
}

async fn unpack(mut archive: Response, to: PathBuf, path: &str) -> Result<(), CliError> {
    let (pieces, arriving) = mpsc::channel(WAITING);
    let unpacking = tokio::task::spawn_blocking(move || {
        std::fs::create_dir_all(&to)?;
        let mut archive = tar::Archive::new(Arriving { arriving, rest: Vec::new(), at: 0 });
        // Nothing is written outside of `to`, whatever the archive says.
        archive.unpack(&to)
    });
    let mut whole = Ok(());
    loop {
        match archive.chunk().await {
            Ok(Some(piece)) if pieces.send(Some(piece.to_vec())).await.is_err() => break,
            Ok(Some(_)) => {}
            Ok(None) => {
                let _ = pieces.send(None).await;
                break;
            }
            Err(error) => {
                whole = Err(broke_off(path)(error));
                break;
            }
        }
    }
    drop(pieces);
    let unpacked = unpacking.await.map_err(CliError::failed)?;
    whole.and(unpacked.map_err(|error| CliError::Failed(format!("cannot unpack {path}: {error}"))))
}

/// An archive as it arrives; an error if it breaks off.
struct Arriving {
    arriving: mpsc::Receiver<Option<Vec<u8>>>,
    rest: Vec<u8>,
    at: usize,
}

impl Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.at >= self.rest.len() {
            match self.arriving.blocking_recv() {
                Some(Some(piece)) => (self.rest, self.at) = (piece, 0),
                Some(None) => return Ok(0),
                None => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let count = self.rest.get(self.at..).unwrap_or_default().read(buffer)?;
        self.at += count;
        Ok(count)
    }
}
