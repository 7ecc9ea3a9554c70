//! The one task that writes: records that wait together share a transaction, and so a wait for the disk.

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use sqlx::AnyPool;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::{
    append::{Draft, Head, append},
    chain::Checkpoint,
    database::Database,
    erase::{Erase, Erased, rotate},
    error::StoreError,
    keys::MasterKey,
    record::Receipt,
    transaction::Tx,
};

/// Most records of a transaction.
const BATCH: usize = 256;
/// The checkpoint file is at most so much behind.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);
/// What a batch may take, in times of the patience with a connection.
const BATCH_PATIENCE: u32 = 2;
/// What erasing or wrapping keys anew may take, as they may touch all that is stored.
const LONG_PATIENCE: u32 = 120;

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the writer is asked for.
pub(crate) enum Job {
    Append(Box<Draft>, Reply<Receipt>),
    Erase(Erase, Reply<Erased>),
    Rotate(MasterKey, Reply<u64>),
    Probe(Reply<()>),
}

/// The key for images, shared with readers.
pub(crate) type SharedKey = Arc<RwLock<Option<MasterKey>>>;

/// The key as it is now.
pub(crate) fn current(master: &SharedKey) -> Option<MasterKey> {
    master.read().unwrap_or_else(PoisonError::into_inner).clone()
}

pub(crate) struct Writer {
    pub database: Database,
    pub pool: AnyPool,
    pub log: String,
    pub master: SharedKey,
    /// How long a connection and a lock are waited for.
    pub patience: Duration,
    pub checkpoint: Option<PathBuf>,
}

impl Writer {
    /// Works until all senders are gone and all that they sent is done.
    pub(crate) async fn run(self, mut jobs: mpsc::Receiver<Job>) {
        let mut checkpoint = CheckpointFile { path: self.checkpoint.clone(), stale: None, written: None };
        let mut waiting = Vec::with_capacity(BATCH);
        loop {
            let idle = if checkpoint.stale.is_some() { CHECKPOINT_EVERY } else { Duration::MAX };
            let received = timeout(idle, jobs.recv_many(&mut waiting, BATCH)).await;
            if received == Ok(0) {
                break;
            }
            if let Some(head) = self.work(&mut waiting).await {
                checkpoint.stale = Some(self.as_checkpoint(&head));
            }
            checkpoint.write_if_due(received.is_err());
        }
        checkpoint.write_if_due(true);
        self.pool.close().await;
    }

    fn as_checkpoint(&self, head: &Head) -> Checkpoint {
        let hash = head.hash.as_slice().try_into().unwrap_or_default();
        Checkpoint { log: self.log.clone(), position: head.position.unsigned_abs(), hash }
    }

    /// Does all jobs in their order, runs of appends together; gives the head after them.
    async fn work(&self, waiting: &mut Vec<Job>) -> Option<Head> {
        let mut latest = None;
        let mut appends: Vec<(Draft, Reply<Receipt>)> = Vec::new();
        for job in waiting.drain(..) {
            if let Job::Append(draft, reply) = job {
                // Nobody would get the receipt: the client is gone.
                if !reply.is_closed() {
                    appends.push((*draft, reply));
                }
                continue;
            }
            latest = self.append_all(std::mem::take(&mut appends)).await.or(latest);
            latest = self.maintain(job).await.or(latest);
        }
        self.append_all(appends).await.or(latest)
    }

    async fn append_all(&self, appends: Vec<(Draft, Reply<Receipt>)>) -> Option<Head> {
        if appends.is_empty() {
            return None;
        }
        let (drafts, replies): (Vec<_>, Vec<_>) = appends.into_iter().unzip();
        let mut result = self.commit(drafts.clone()).await;
        let mut head = None;
        if drafts.len() > 1 && matches!(&result, Err(error) if !error.is_unavailable()) {
            // One that the database refuses takes no other with it.
            let mut one_by_one = Vec::with_capacity(drafts.len());
            for draft in drafts {
                match self.commit(vec![draft]).await {
                    Ok((after, mut results)) => {
                        head = Some(after);
                        one_by_one.append(&mut results);
                    }
                    Err(error) => one_by_one.push(Err(error)),
                }
            }
            replies.into_iter().zip(one_by_one).for_each(|(reply, result)| drop(reply.send(result)));
            return head;
        }
        for (index, reply) in replies.into_iter().enumerate() {
            let answer = match &mut result {
                Ok((_, results)) => std::mem::replace(&mut results[index], Err(StoreError::Closed)),
                Err(error) => Err(error.clone()),
            };
            drop(reply.send(answer));
        }
        result.ok().map(|(head, _)| head)
    }

    /// Appends all drafts in one transaction, all or none but those that are refused for themselves.
    async fn commit(
        &self,
        drafts: Vec<Draft>,
    ) -> Result<(Head, Vec<Result<Receipt, StoreError>>), StoreError> {
        let master = current(&self.master);
        in_time(BATCH_PATIENCE * self.patience, async {
            let (mut tx, mut head) = self.begin().await?;
            let mut results = Vec::with_capacity(drafts.len());
            for draft in drafts {
                match append(&mut tx, &mut head, draft, master.as_ref()).await {
                    Err(error) if !error.is_refusal() => return Err(error),
                    result => results.push(result),
                }
            }
            end(tx, &head).await?;
            Ok((head, results))
        })
        .await
    }

    /// A transaction that holds the head of the log.
    async fn begin(&self) -> Result<(Tx, Head), StoreError> {
        let mut tx = self.database.begin(&self.pool).await?;
        let head = Head::lock(&mut tx).await?;
        Ok((tx, head))
    }

    async fn maintain(&self, job: Job) -> Option<Head> {
        match job {
            Job::Append(..) => None,
            Job::Probe(reply) => {
                let (head, result) = split(self.probe().await);
                drop(reply.send(result));
                head
            }
            Job::Erase(erase, reply) => {
                let done = in_time(LONG_PATIENCE * self.patience, async {
                    let (mut tx, mut head) = self.begin().await?;
                    let erased = erase.run(&mut tx, &mut head).await?;
                    end(tx, &head).await?;
                    Ok((head, erased))
                });
                let (head, result) = split(done.await);
                let result = match result {
                    Ok(erased) => Ok(Erased { scrubbed: self.scrub().await, ..erased }),
                    Err(error) => Err(error),
                };
                drop(reply.send(result));
                head
            }
            Job::Rotate(new, reply) => {
                let (head, result) = split(self.rotate(&new).await);
                if result.is_ok() {
                    *self.master.write().unwrap_or_else(PoisonError::into_inner) = Some(new);
                    self.scrub().await;
                }
                drop(reply.send(result));
                head
            }
        }
    }

    /// Writes what changes nothing, by the way that a record takes.
    async fn probe(&self) -> Result<(Head, ()), StoreError> {
        in_time(BATCH_PATIENCE * self.patience, async {
            self.database.check_room().await?;
            let (tx, head) = self.begin().await?;
            if let Some(master) = current(&self.master) {
                head.check_master(&master)?;
            }
            end(tx, &head).await?;
            Ok((head, ()))
        })
        .await
    }

    async fn rotate(&self, new: &MasterKey) -> Result<(Head, u64), StoreError> {
        let old = current(&self.master).ok_or(StoreError::NoMasterKey)?;
        in_time(LONG_PATIENCE * self.patience, async {
            let (mut tx, mut head) = self.begin().await?;
            let keys = rotate(&mut tx, &mut head, &old, new).await?;
            end(tx, &head).await?;
            Ok((head, keys))
        })
        .await
    }

    async fn scrub(&self) -> bool {
        let done = in_time(LONG_PATIENCE * self.patience, self.database.scrub(&self.pool));
        done.await.unwrap_or_else(|error| {
            tracing::warn!("what was erased is still in the files of the database: {error}");
            false
        })
    }
}

async fn end(mut tx: Tx, head: &Head) -> Result<(), StoreError> {
    head.store(&mut tx).await?;
    Ok(tx.commit().await?)
}

/// A database that hangs is given up like one that is down.
async fn in_time<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, StoreError>> + Send,
) -> Result<T, StoreError> {
    timeout(limit, work).await.unwrap_or_else(|_| Err(StoreError::timeout()))
}

fn split<T>(done: Result<(Head, T), StoreError>) -> (Option<Head>, Result<T, StoreError>) {
    match done {
        Ok((head, value)) => (Some(head), Ok(value)),
        Err(error) => (None, Err(error)),
    }
}

/// The head, kept where the database is not.
struct CheckpointFile {
    path: Option<PathBuf>,
    stale: Option<Checkpoint>,
    written: Option<Instant>,
}

impl CheckpointFile {
    fn write_if_due(&mut self, now: bool) {
        let due = now || self.written.is_none_or(|written| written.elapsed() >= CHECKPOINT_EVERY);
        if !due && self.path.is_some() {
            return;
        }
        let (Some(checkpoint), Some(path)) = (self.stale.take(), &self.path) else { return };
        self.written = Some(Instant::now());
        if let Err(error) = crate::files::write_whole(path, checkpoint.to_string().as_bytes()) {
            tracing::warn!("the checkpoint of the receipts cannot be written: {error}");
        }
    }
}
