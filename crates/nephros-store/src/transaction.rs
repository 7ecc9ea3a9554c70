//! A transaction whose connection is given up with it.
//!
//! A disk that is full makes SQLite end the transaction by itself, and a server that restarts ends it
//! too; the library's own transactions then count one that is not there, and the next begins inside it. A
//! connection whose transaction was not committed is closed instead, and the pool opens another.

use std::ops::{Deref, DerefMut};

use sqlx::{Any, AnyConnection, AnyPool, pool::PoolConnection};

/// Rolled back unless it is committed.
pub(crate) struct Tx {
    connection: PoolConnection<Any>,
    done: bool,
}

impl Tx {
    pub(crate) async fn begin(pool: &AnyPool, statement: &'static str) -> sqlx::Result<Self> {
        // Already a `Tx` while it begins, so that a wait that is given up closes the connection.
        let mut tx = Self { connection: pool.acquire().await?, done: false };
        sqlx::raw_sql(statement).execute(&mut *tx).await?;
        Ok(tx)
    }

    pub(crate) async fn commit(mut self) -> sqlx::Result<()> {
        sqlx::raw_sql("COMMIT").execute(&mut *self).await?;
        self.done = true;
        Ok(())
    }
}

impl Deref for Tx {
    type Target = AnyConnection;

    fn deref(&self) -> &AnyConnection {
        &self.connection
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        &mut self.connection
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        if !self.done {
            self.connection.close_on_drop();
        }
    }
}
