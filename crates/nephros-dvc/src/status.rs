//! What has changed since the lock was written.

use crate::{
    cache::Cache,
    digest::{Algorithm, Md5Sum, Oid, unix_lines, windows_lines},
    error::DvcError,
    lock::{Item, StageLock},
    measure::Measurer,
    params,
    pipeline::Stage,
    place::RepoPath,
    repo::Repo,
    state::State,
    yaml::Value,
};

/// How something differs from the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Not in the lock.
    New,
    /// Other content.
    Modified,
    /// The same text with the line ends of another system.
    LineEnds,
    /// Not there.
    Deleted,
    /// There or not, but not kept in the cache.
    NotInCache,
}

impl Change {
    /// As DVC calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Modified => "modified",
            Self::LineEnds => "modified (line ends only)",
            Self::Deleted => "deleted",
            Self::NotInCache => "not in cache",
        }
    }
}

/// What of a stage has changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StageStatus {
    /// The stage.
    pub stage: String,
    /// Files and folders it reads; a file of parameters that is new or gone as a whole stands here too.
    pub deps: Vec<(String, Change)>,
    /// Parameters, by file and key.
    pub params: Vec<(String, Vec<(String, Change)>)>,
    /// What it leaves.
    pub outs: Vec<(String, Change)>,
    /// Whether it would run something else.
    pub command: bool,
    /// Whether it runs every time.
    pub always: bool,
}

impl StageStatus {
    /// Whether it has to run.
    pub fn is_changed(&self) -> bool {
        self.command || self.always || self.reads_changed() || !self.outs.is_empty()
    }

    /// Whether it would read something else.
    pub fn reads_changed(&self) -> bool {
        !self.deps.is_empty() || !self.params.is_empty()
    }
}

/// What is needed to look at stages.
pub(crate) struct Inspector<'a> {
    pub(crate) repo: &'a Repo,
    pub(crate) measurer: Measurer<'a>,
    pub(crate) cache: Cache,
}

/// Looks at all stages, in order, and remembers what it read where there is a place for that.
///
/// # Errors
/// See [`DvcError`].
pub fn status(repo: &Repo, stopped: &(dyn Fn() -> bool + Sync)) -> Result<Vec<StageStatus>, DvcError> {
    let (pipeline, graph) = repo.pipeline()?;
    let lock = repo.lock()?;
    let inspector = Inspector::new(repo, stopped);
    let looked = graph
        .order()
        .iter()
        .map(|&index| inspector.stage(&pipeline.stages[index], lock.stage(&pipeline.stages[index].name)));
    let statuses = looked.collect::<Result<_, _>>()?;
    if repo.is_initialised() {
        // It is faster next time with it, and right without.
        let _ = inspector.measurer.save(&repo.state_file());
    }
    Ok(statuses)
}

impl<'a> Inspector<'a> {
    pub(crate) fn new(repo: &'a Repo, stopped: &'a (dyn Fn() -> bool + Sync)) -> Self {
        let measurer = Measurer::new(repo.root(), State::load(&repo.state_file()), stopped);
        Self { repo, measurer, cache: Cache::new(repo.config()) }
    }

    /// Compares a stage with the lock.
    pub(crate) fn stage(&self, stage: &Stage, lock: Option<&StageLock>) -> Result<StageStatus, DvcError> {
        let is_callback = stage.deps.is_empty() && stage.params.is_empty() && stage.outs.is_empty();
        let mut status = StageStatus {
            stage: stage.name.clone(),
            command: lock.is_some_and(|lock| lock.cmd != Value::from(&stage.cmd)),
            always: stage.always_changed || is_callback,
            ..StageStatus::default()
        };
        if !stage.frozen {
            for dep in &stage.deps {
                let known = lock.and_then(|lock| lock.dep(&dep.path));
                status.deps.extend(self.item(&dep.place, known)?.map(|change| (dep.path.clone(), change)));
            }
            self.params(stage, lock, &mut status)?;
        }
        for out in &stage.outs {
            let known = lock.and_then(|lock| lock.out(&out.path));
            let kept = |(oid, algorithm): (Oid, Algorithm)| self.cache.holds(oid, algorithm);
            let object = known.and_then(|item| Some((item.oid?, item.algorithm)));
            let change = if self.measurer.ignores(&out.place) {
                Some(Change::Deleted)
            } else if out.cache && object.is_some_and(|object| !kept(object)) {
                Some(Change::NotInCache)
            } else {
                self.item(&out.place, known)?
            };
            status.outs.extend(change.map(|change| (out.path.clone(), change)));
        }
        Ok(status)
    }

    fn item(&self, place: &RepoPath, known: Option<&Item>) -> Result<Option<Change>, DvcError> {
        let algorithm = known.map_or(Algorithm::Md5, |item| item.algorithm);
        let Some(content) = self.measurer.measure(place, algorithm)? else {
            return Ok(Some(Change::Deleted));
        };
        Ok(match known.and_then(|item| item.oid) {
            None => Some(Change::New),
            Some(oid) if oid == content.oid => None,
            Some(oid) if !oid.is_dir && !content.oid.is_dir && self.differs_in_line_ends(place, oid.sum) => {
                Some(Change::LineEnds)
            }
            Some(_) => Some(Change::Modified),
        })
    }

    /// Whether the file would be the one recorded if it came from another system.
    fn differs_in_line_ends(&self, place: &RepoPath, recorded: Md5Sum) -> bool {
        const LARGEST: u64 = 1 << 20;
        let path = place.in_root(self.repo.root());
        if !fs_err::metadata(&path).is_ok_and(|metadata| metadata.len() <= LARGEST) {
            return false;
        }
        let Ok(bytes) = fs_err::read(path) else { return false };
        [unix_lines(&bytes), windows_lines(&bytes)].iter().any(|bytes| Md5Sum::of(bytes) == recorded)
    }

    fn params(
        &self,
        stage: &Stage,
        lock: Option<&StageLock>,
        status: &mut StageStatus,
    ) -> Result<(), DvcError> {
        for wanted in &stage.params {
            let Some(actual) = params::read(self.repo.root(), wanted)? else {
                status.deps.push((wanted.path.clone(), Change::Deleted));
                continue;
            };
            let Some(known) = lock.and_then(|lock| lock.params(&wanted.path)) else {
                status.deps.push((wanted.path.clone(), Change::New));
                continue;
            };
            let keys: Vec<&String> = if wanted.keys.is_empty() {
                let gone = known.iter().filter(|(key, _)| !actual.iter().any(|(there, _)| there == key));
                actual.iter().chain(gone).map(|(key, _)| key).collect()
            } else {
                wanted.keys.iter().collect()
            };
            let value = |values: &'_ params::Values, key: &str| {
                values.iter().find(|(there, _)| there == key).map(|(_, value)| value.clone())
            };
            let change = |key: &str| match (value(&actual, key), value(known, key)) {
                (None, _) => Some(Change::Deleted),
                (Some(_), None) => Some(Change::New),
                (Some(actual), Some(known)) => (actual != known).then_some(Change::Modified),
            };
            let changes: Vec<_> =
                keys.into_iter().filter_map(|key| Some((key.clone(), change(key)?))).collect();
            if !changes.is_empty() {
                status.params.push((wanted.path.clone(), changes));
            }
        }
        Ok(())
    }
}
