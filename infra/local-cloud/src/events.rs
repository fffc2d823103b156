//! What happened, one JSON object a line: every authorisation decision (written by the code that decides), every
//! invocation, every mail. The live log and the tests read it.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::CloudError;

/// One line of the events file. `time` is RFC 3339 in UTC with milliseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Event {
    /// A call was allowed or denied.
    Decision {
        time: String,
        request_id: String,
        /// The caller's ARN, `admin` or `anonymous`.
        principal: String,
        /// e.g. `dynamodb:GetItem`
        action: String,
        resource: String,
        allowed: bool,
        /// The statement that decided, or why nothing allowed it.
        why: String,
    },
    /// A function ran to its end, or failed.
    Invocation {
        time: String,
        request_id: String,
        function: String,
        duration_ms: f64,
        /// Present on the first call of a process.
        init_ms: Option<f64>,
        memory_size_mb: u32,
        max_memory_used_mb: u32,
        /// `None` for a good reply, otherwise `Unhandled`, `Timeout` or `Exit`.
        error: Option<String>,
    },
    /// A mail was accepted.
    Mail { time: String, to: Vec<String>, subject: String },
}

/// The file that events go to. It is begun anew past 32 MiB, with one older file kept.
pub(crate) struct Events {
    path: PathBuf,
    file: Mutex<(File, u64)>,
}

const LARGEST: u64 = 32 * 1024 * 1024;

impl Events {
    pub(crate) fn open(path: &Path) -> Result<Self, CloudError> {
        let file = open(path).map_err(|source| CloudError::File { path: path.to_owned(), source })?;
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        Ok(Self { path: path.to_owned(), file: Mutex::new((file, length)) })
    }

    pub(crate) fn file(&self) -> &Path {
        &self.path
    }

    /// Appends one line. A full disk must not stop the service: it is reported in the process's own log.
    pub(crate) fn write(&self, event: &Event) {
        let mut line = serde_json::to_vec(event).unwrap_or_default();
        line.push(b'\n');
        let mut guard = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, length) = &mut *guard;
        let written = (|| {
            if *length > LARGEST {
                std::fs::rename(&self.path, self.path.with_extension("jsonl.1"))?;
                *file = open(&self.path)?;
                *length = 0;
            }
            file.write_all(&line)
        })();
        match written {
            Ok(()) => *length += line.len() as u64,
            Err(error) => tracing::error!(%error, "cannot write the events file"),
        }
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// The present time as events and mails tell it.
pub(crate) fn now() -> String {
    let format =
        time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    time::OffsetDateTime::now_utc().format(format).unwrap_or_default()
}
