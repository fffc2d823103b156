//! Where log lines lie: two tables of the cloud's store.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::OptionalExtension;

use crate::CloudError;
use crate::declared::LogGroup;
use crate::store::Store;

/// One line on its way into a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// Milliseconds since 1970.
    pub(crate) time_ms: i64,
    pub(crate) text: String,
}

/// A line that was stored.
pub(super) struct Stored {
    pub(super) id: i64,
    pub(super) stream: String,
    pub(super) time_ms: i64,
    pub(super) ingested_ms: i64,
    pub(super) message: String,
}

pub(super) struct Stream {
    pub(super) name: String,
    pub(super) created_ms: i64,
    pub(super) first_ms: Option<i64>,
    pub(super) last_ms: Option<i64>,
}

/// From `start_ms` to before `end_ms`, and on one side of a line (its time and id) that was seen before.
#[derive(Clone, Copy)]
pub(super) struct Range {
    pub(super) start_ms: i64,
    pub(super) end_ms: i64,
    pub(super) after: Option<(i64, i64)>,
    pub(super) before: Option<(i64, i64)>,
}

#[derive(Clone, Copy)]
pub(super) struct Page {
    pub(super) range: Range,
    pub(super) newest_first: bool,
    pub(super) limit: usize,
}

/// All lines of all groups together take no more than this; the oldest go first.
const LARGEST: i64 = 256 * 1024 * 1024;

pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn make_tables(store: &Store) -> Result<(), CloudError> {
    store.with(|connection| {
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS log_streams (
                 log_group TEXT NOT NULL, stream TEXT NOT NULL,
                 created_ms INTEGER NOT NULL, first_ms INTEGER, last_ms INTEGER,
                 PRIMARY KEY (log_group, stream)
             ) WITHOUT ROWID;
             CREATE TABLE IF NOT EXISTS log_events (
                 id INTEGER PRIMARY KEY, log_group TEXT NOT NULL, stream TEXT NOT NULL,
                 time_ms INTEGER NOT NULL, ingested_ms INTEGER NOT NULL, message TEXT NOT NULL
             );
             CREATE INDEX IF NOT EXISTS log_events_by_time ON log_events (log_group, time_ms, id);
             CREATE INDEX IF NOT EXISTS log_events_by_stream ON log_events (log_group, stream, time_ms, id);",
        )
    })
}

/// Adds lines; the stream is made with the first.
pub(super) fn append(store: &Store, group: &str, stream: &str, lines: &[Line]) -> Result<(), CloudError> {
    let now = now_ms();
    store.with(|connection| {
        let transaction = connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO log_events (log_group, stream, time_ms, ingested_ms, message)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?;
            for line in lines {
                insert.execute((group, stream, line.time_ms, now, &line.text))?;
            }
            let first = lines.iter().map(|line| line.time_ms).min();
            let last = lines.iter().map(|line| line.time_ms).max();
            transaction
                .prepare_cached(
                    "INSERT INTO log_streams VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT DO UPDATE SET
                         first_ms = min(ifnull(first_ms, ?4), ?4), last_ms = max(ifnull(last_ms, ?5), ?5)",
                )?
                .execute((group, stream, now, first, last))?;
        }
        transaction.commit()
    })
}

/// Makes an empty stream; `false` when it is there already.
pub(super) fn create_stream(store: &Store, group: &str, stream: &str) -> Result<bool, CloudError> {
    let rows = store.with(|connection| {
        connection.prepare_cached("INSERT OR IGNORE INTO log_streams VALUES (?1, ?2, ?3, NULL, NULL)")?.execute((
            group,
            stream,
            now_ms(),
        ))
    })?;
    Ok(rows > 0)
}

pub(super) fn has_stream(store: &Store, group: &str, stream: &str) -> Result<bool, CloudError> {
    let row = store.with(|connection| {
        connection
            .prepare_cached("SELECT 1 FROM log_streams WHERE log_group = ?1 AND stream = ?2")?
            .query_row((group, stream), |_| Ok(()))
            .optional()
    })?;
    Ok(row.is_some())
}

pub(super) fn streams(store: &Store, group: &str) -> Result<Vec<Stream>, CloudError> {
    store.with(|connection| {
        connection
            .prepare_cached(
                "SELECT stream, created_ms, first_ms, last_ms FROM log_streams WHERE log_group = ?1
                 ORDER BY stream",
            )?
            .query_map((group,), |row| {
                Ok(Stream { name: row.get(0)?, created_ms: row.get(1)?, first_ms: row.get(2)?, last_ms: row.get(3)? })
            })?
            .collect()
    })
}

/// One page of a group, or of one of its streams.
pub(super) fn read(store: &Store, group: &str, stream: Option<&str>, page: Page) -> Result<Vec<Stored>, CloudError> {
    let Page { range, newest_first, limit } = page;
    let order = if newest_first { "DESC" } else { "ASC" };
    let of_stream = if stream.is_some() { "AND stream = ?2" } else { "AND ?2 IS NULL" };
    let sql = format!(
        "SELECT id, stream, time_ms, ingested_ms, message FROM log_events
         WHERE log_group = ?1 {of_stream} AND time_ms >= ?3 AND time_ms < ?4
             AND (time_ms, id) > (?5, ?6) AND (time_ms, id) < (?7, ?8)
         ORDER BY time_ms {order}, id {order} LIMIT ?9",
    );
    let after = range.after.unwrap_or((i64::MIN, i64::MIN));
    let before = range.before.unwrap_or((i64::MAX, i64::MAX));
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    store.with(|connection| {
        connection
            .prepare_cached(&sql)?
            .query_map(
                (group, stream, range.start_ms, range.end_ms, after.0, after.1, before.0, before.1, limit),
                |row| {
                    Ok(Stored {
                        id: row.get(0)?,
                        stream: row.get(1)?,
                        time_ms: row.get(2)?,
                        ingested_ms: row.get(3)?,
                        message: row.get(4)?,
                    })
                },
            )?
            .collect()
    })
}

pub(super) fn delete_group(store: &Store, group: &str) -> Result<(), CloudError> {
    store.with(|connection| {
        let transaction = connection.transaction()?;
        transaction.execute("DELETE FROM log_events WHERE log_group = ?1", (group,))?;
        transaction.execute("DELETE FROM log_streams WHERE log_group = ?1", (group,))?;
        transaction.commit()
    })
}

/// Deletes what is past its group's retention, then the oldest lines past the cap, then the streams left empty.
pub(super) fn sweep(store: &Store, groups: &[Arc<LogGroup>], now_ms: i64) -> Result<(), CloudError> {
    for group in groups {
        if let Some(days) = group.retention_days {
            let oldest = now_ms - i64::from(days) * 24 * 60 * 60 * 1000;
            store.with(|connection| {
                connection
                    .execute("DELETE FROM log_events WHERE log_group = ?1 AND time_ms < ?2", (&group.name, oldest))?;
                connection.execute(
                    "DELETE FROM log_streams WHERE log_group = ?1 AND ifnull(last_ms, created_ms) < ?2",
                    (&group.name, oldest),
                )
            })?;
        }
    }
    loop {
        let deleted = store.with(|connection| {
            let (bytes, lines): (i64, i64) = connection.query_row(
                "SELECT ifnull(sum(length(message)), 0), count(*) FROM log_events",
                (),
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?;
            if bytes <= LARGEST {
                return Ok(0);
            }
            connection.execute(
                "DELETE FROM log_events WHERE id IN (SELECT id FROM log_events ORDER BY id LIMIT ?1)",
                (lines / 8 + 1,),
            )
        })?;
        if deleted == 0 {
            return Ok(());
        }
    }
}
