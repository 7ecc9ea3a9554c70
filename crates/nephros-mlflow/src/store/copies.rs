//! How much of each run is on which server.

use std::fs::{File, TryLockError};

use rusqlite::{OptionalExtension as _, Row, params};

use super::{Store, StoreError, schema::has_table};
use crate::event::Event;

/// A run's copy on a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Copy {
    /// Id of the run there; `None` before it was made.
    pub remote: Option<String>,
    /// The last event that the server has.
    pub cursor: i64,
    /// Events that this server cannot take, such as files where it serves no artifacts.
    pub left_out: i64,
}

impl Store {
    /// Runs that have events after what `server` has, the oldest first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn unsent_runs(&self, server: &str) -> Result<Vec<String>, StoreError> {
        self.read(|connection| {
            if !has_table(connection, "nephros_events")? {
                return Ok(Vec::new());
            }
            let query = "SELECT nephros_events.run_uuid FROM nephros_events \
                 JOIN runs ON runs.run_uuid = nephros_events.run_uuid AND runs.lifecycle_stage = 'active' \
                 LEFT JOIN nephros_copies ON nephros_copies.run_uuid = nephros_events.run_uuid AND server = ?1 \
                 GROUP BY nephros_events.run_uuid HAVING max(seq) > coalesce(max(cursor), 0) ORDER BY min(seq)";
            connection.prepare(query)?.query_map([server], |row| row.get(0))?.collect()
        })
    }

    /// Keeps other processes from feeding the same run, until the lock is dropped or its process ends; `None`
    /// while another one does. The lock is a file beside the folder of the run's artifacts.
    pub(crate) fn lock_run(&self, run: &str) -> Result<Option<File>, StoreError> {
        let folder = self.run_folder(run)?;
        let folder = folder.parent().unwrap_or(&folder);
        fs_err::create_dir_all(folder)?;
        let file = fs_err::File::create(folder.join("nephros-sync.lock"))?.into_parts().0;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }

    /// The copy of a run on a server, as far as it is.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn copy(&self, run: &str, server: &str) -> Result<Copy, StoreError> {
        let found = self.read(|connection| {
            if !has_table(connection, "nephros_copies")? {
                return Ok(None);
            }
            let query =
                "SELECT remote_run, cursor, left_out FROM nephros_copies WHERE run_uuid = ?1 AND server = ?2";
            let copy =
                |row: &Row<'_>| Ok(Copy { remote: row.get(0)?, cursor: row.get(1)?, left_out: row.get(2)? });
            connection.query_row(query, [run, server], copy).optional()
        })?;
        Ok(found.unwrap_or_default())
    }

    /// Records how far a copy is.
    pub(crate) fn set_copy(&self, run: &str, server: &str, copy: &Copy) -> Result<(), StoreError> {
        self.read(|connection| {
            connection.execute(
                "INSERT OR REPLACE INTO nephros_copies (run_uuid, server, remote_run, cursor, left_out) \
                 VALUES (?1, ?2, ?3, ?4, ?5)",
                params![run, server, copy.remote, copy.cursor, copy.left_out],
            )
        })?;
        Ok(())
    }

    /// Forgets the copy of a run on a server: it is made anew by the next feeding.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn forget_copy(&self, run: &str, server: &str) -> Result<(), StoreError> {
        self.change(|connection| {
            connection
                .execute("DELETE FROM nephros_copies WHERE run_uuid = ?1 AND server = ?2", [run, server])?;
            connection.execute(
                "DELETE FROM nephros_copied_models WHERE server = ?2 AND model_id IN \
                 (SELECT model_id FROM logged_models WHERE source_run_id = ?1)",
                [run, server],
            )?;
            Ok(())
        })
    }

    /// Events of a run after `cursor`, with their numbers.
    pub(crate) fn events_after(&self, run: &str, cursor: i64) -> Result<Vec<(i64, Event)>, StoreError> {
        let rows: Vec<(i64, String)> = self.read(|connection| {
            let query = "SELECT seq, event FROM nephros_events WHERE run_uuid = ?1 AND seq > ?2 ORDER BY seq";
            let mut query = connection.prepare(query)?;
            query.query_map(params![run, cursor], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })?;
        let parse = |(seq, json): (i64, String)| match serde_json::from_str(&json) {
            Ok(event) => Ok((seq, event)),
            Err(error) => Err(StoreError::Row {
                path: self.path.clone(),
                what: format!("event {seq} cannot be read: {error}"),
            }),
        };
        rows.into_iter().map(parse).collect()
    }

    /// Id of a model on a server.
    pub(crate) fn remote_model(&self, model: &str, server: &str) -> Result<Option<String>, StoreError> {
        self.read(|connection| {
            let query = "SELECT remote_model FROM nephros_copied_models WHERE model_id = ?1 AND server = ?2";
            connection.query_row(query, [model, server], |row| row.get(0)).optional()
        })
    }

    /// Records the id of a model on a server.
    pub(crate) fn set_remote_model(&self, model: &str, server: &str, remote: &str) -> Result<(), StoreError> {
        self.read(|connection| {
            connection.execute(
                "INSERT OR REPLACE INTO nephros_copied_models (model_id, server, remote_model) VALUES (?1, ?2, ?3)",
                [model, server, remote],
            )
        })?;
        Ok(())
    }
}
