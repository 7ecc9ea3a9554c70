//! Runs what has changed.

use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use crate::{
    cache::unprotect,
    command::{Shell, describe},
    config::LinkType,
    digest::Algorithm,
    error::DvcError,
    files, git,
    graph::{Graph, GraphError},
    guard::Guard,
    lock::{Item, Lock, StageLock},
    measure::Content,
    params,
    pipeline::{Cmd, OutKind, Pipeline, Stage},
    place::RepoPath,
    repo::Repo,
    run_cache,
    status::{Inspector, StageStatus},
    yaml::Value,
};

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// A stage or a `foreach` group, with all that it needs; all stages where there is none.
    pub target: Option<&'a str>,
    /// Whether stages run though nothing has changed.
    pub force: bool,
    /// Whether nothing is done but said.
    pub dry: bool,
    /// How commands are run.
    pub shell: &'a Shell,
}

/// What happens to a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// There is no repository yet: one is made.
    Initialised {
        /// Its folder.
        root: &'a Path,
    },
    /// Nothing has changed.
    Unchanged {
        /// The stage.
        stage: &'a str,
    },
    /// It is frozen: what it reads does not count.
    Frozen {
        /// The stage.
        stage: &'a str,
    },
    /// What it would leave is in the cache.
    Restored {
        /// The stage.
        stage: &'a str,
    },
    /// It begins to run, or would.
    Running {
        /// The stage.
        stage: &'a str,
    },
    /// A command begins to run, or would.
    Command {
        /// The line.
        cmd: &'a str,
    },
    /// Whether it runs depends on what a stage before it leaves.
    Depends {
        /// The stage.
        stage: &'a str,
    },
}

/// Hears what happens, and may stop it.
pub trait Watcher: Sync {
    /// Something happens.
    fn event(&self, event: Event);
    /// Whether to stop at the next safe point.
    fn is_stopped(&self) -> bool;
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Stages whose command ran, or would.
    pub run: usize,
    /// Stages whose results came from the cache, or would.
    pub restored: usize,
    /// Stages that had nothing to do.
    pub unchanged: usize,
}

/// Brings stages up to date, each after those it needs. The lock is written after each.
///
/// # Errors
/// See [`DvcError`]; the first one ends it. What was finished stays recorded.
pub fn repro(repo: &Repo, request: &Request, watcher: &dyn Watcher) -> Result<Summary, DvcError> {
    let (pipeline, graph) = repo.pipeline()?;
    let steps = steps(&pipeline, &graph, request.target)?;
    if !repo.is_initialised() && !request.dry {
        repo.init()?;
        watcher.event(Event::Initialised { root: repo.root() });
    }
    let guard = if request.dry { None } else { Some(Guard::take(&repo.tmp())?) };
    let finishing = AtomicBool::new(false);
    let stopped = || watcher.is_stopped() && !finishing.load(Ordering::Relaxed);
    let inspector = Inspector::new(repo, &stopped);
    let mut run = Run {
        repo,
        pipeline: &pipeline,
        request,
        watcher,
        inspector,
        lock: repo.lock()?,
        guard,
        finishing: &finishing,
        pending: Vec::new(),
        tracked: Vec::new(),
        summary: Summary::default(),
    };
    run.check_reads(&steps)?;
    run.check_git(&steps)?;
    let result = steps.iter().try_for_each(|&index| run.step(index, &graph));
    if !request.dry {
        // It is faster next time with it, and right without.
        let _ = run.inspector.measurer.save(&repo.state_file());
    }
    result.map(|()| run.summary)
}

/// The stages to look at, in order.
fn steps(pipeline: &Pipeline, graph: &Graph, target: Option<&str>) -> Result<Vec<usize>, DvcError> {
    let Some(name) = target else { return Ok(graph.order().to_vec()) };
    let targets = pipeline.find(name);
    if targets.is_empty() {
        let names: Vec<_> = pipeline.stages.iter().map(|stage| format!("`{}`", stage.name)).collect();
        let (file, names) = (pipeline.file.clone(), names.join(", "));
        return Err(GraphError::NoStage { file, name: name.into(), names }.into());
    }
    Ok(graph.upstream(&targets, |index| pipeline.stages[index].frozen))
}

struct Run<'a> {
    repo: &'a Repo,
    pipeline: &'a Pipeline,
    request: &'a Request<'a>,
    watcher: &'a dyn Watcher,
    inspector: Inspector<'a>,
    lock: Lock,
    guard: Option<Guard>,
    /// Set while a stage that has run is recorded: what took hours is not thrown away for a stop then.
    finishing: &'a AtomicBool,
    /// In a dry run, the stages that would run.
    pending: Vec<usize>,
    /// Outs of the cache that git has too.
    tracked: Vec<RepoPath>,
    summary: Summary,
}

impl Run<'_> {
    /// What no stage leaves has to be there before the first command runs.
    fn check_reads(&self, steps: &[usize]) -> Result<(), DvcError> {
        let made = |place: &RepoPath| {
            let mut outs = self.pipeline.stages.iter().flat_map(|stage| &stage.outs);
            outs.any(|out| out.place.overlaps(place))
        };
        for &index in steps {
            let stage = &self.pipeline.stages[index];
            let params = stage.params.iter().map(|params| &params.place);
            for place in stage.deps.iter().map(|dep| &dep.place).chain(params) {
                let path = place.in_root(self.repo.root());
                if !stage.frozen && !made(place) && path.symlink_metadata().is_err() {
                    return Err(self.no_dependency(stage, place));
                }
            }
        }
        Ok(())
    }

    /// What git keeps cannot be DVC's: told before a stage that runs for hours leaves it.
    fn check_git(&mut self, steps: &[usize]) -> Result<(), DvcError> {
        if self.repo.config().no_scm {
            return Ok(());
        }
        let stages = || steps.iter().map(|&index| &self.pipeline.stages[index]);
        let outs: Vec<&RepoPath> =
            stages().flat_map(|stage| &stage.outs).filter(|out| out.cache).map(|out| &out.place).collect();
        let tracked = git::tracked(self.repo.root(), &outs)?;
        let force = self.request.force;
        for stage in stages().filter(|stage| git::tracked_out(stage, &tracked).is_some()) {
            let status = self.inspector.stage(stage, self.lock.stage(&stage.name))?;
            if force || status.is_changed() {
                return git::refuse_tracked(stage, &tracked);
            }
        }
        self.tracked = tracked;
        Ok(())
    }

    fn no_dependency(&self, stage: &Stage, place: &RepoPath) -> DvcError {
        let pointer = PathBuf::from(format!("{place}.dvc"));
        let pointer = Some(pointer).filter(|pointer| self.repo.root().join(pointer).is_file());
        DvcError::NoDependency { stage: stage.name.clone(), path: place.to_string(), pointer }
    }

    fn step(&mut self, index: usize, graph: &Graph) -> Result<(), DvcError> {
        if self.watcher.is_stopped() {
            return Err(DvcError::Stopped);
        }
        let stage = &self.pipeline.stages[index];
        if stage.frozen {
            self.watcher.event(Event::Frozen { stage: &stage.name });
        }
        let status = self.inspector.stage(stage, self.lock.stage(&stage.name))?;
        if !status.is_changed() && !self.request.force {
            if self.request.dry
                && graph.needs(index).iter().any(|need| self.pending.contains(need))
                && !stage.frozen
            {
                self.pending.push(index);
                self.watcher.event(Event::Depends { stage: &stage.name });
                return Ok(());
            }
            self.summary.unchanged += 1;
            self.watcher.event(Event::Unchanged { stage: &stage.name });
            return Ok(());
        }
        git::refuse_tracked(stage, &self.tracked)?;
        if self.request.dry {
            self.say(index, stage, &status);
            return Ok(());
        }
        if stage.frozen {
            // It does not run; what it left is taken as it is.
            let outs = self.outs(stage)?;
            let recorded = self.recorded(stage, None, &outs)?;
            return self.finish(stage, recorded, &outs);
        }
        let read = self.reads(stage)?;
        if !self.request.force
            && let Some(recorded) = self.remembered(stage, &status, &read)
        {
            return self.restore(stage, recorded);
        }
        self.execute(stage, read)
    }

    /// What a run would do.
    fn say(&mut self, index: usize, stage: &Stage, status: &StageStatus) {
        if stage.frozen {
            return;
        }
        // What a stage before it would leave is not there to be looked up by.
        let read = self.reads(stage).ok();
        let remembered = read.is_some_and(|read| self.remembered(stage, status, &read).is_some());
        if remembered && !self.request.force {
            self.summary.restored += 1;
            self.watcher.event(Event::Restored { stage: &stage.name });
            return;
        }
        self.pending.push(index);
        self.summary.run += 1;
        self.watcher.event(Event::Running { stage: &stage.name });
        for cmd in lines(stage) {
            self.watcher.event(Event::Command { cmd });
        }
    }

    /// What the stage reads as it is now, and the paths of its outs.
    fn reads(&self, stage: &Stage) -> Result<StageLock, DvcError> {
        let mut deps = Vec::new();
        for dep in &stage.deps {
            let Some(content) = self.inspector.measurer.measure(&dep.place, Algorithm::Md5)? else {
                return Err(self.no_dependency(stage, &dep.place));
            };
            deps.push(Item::of(&dep.path, &content));
        }
        let mut files = Vec::new();
        for wanted in &stage.params {
            let Some(values) = params::read(self.repo.root(), wanted)? else {
                return Err(self.no_dependency(stage, &wanted.place));
            };
            let missing = wanted.keys.iter().filter(|key| !values.iter().any(|(there, _)| there == *key));
            let missing: Vec<_> = missing.map(|key| format!("`{key}`")).collect();
            if !missing.is_empty() {
                return Err(DvcError::NoParameter {
                    stage: stage.name.clone(),
                    path: wanted.path.clone(),
                    keys: missing.join(", "),
                });
            }
            files.push((wanted.path.clone(), values));
        }
        let out = |path: &String| Item {
            path: path.clone(),
            oid: None,
            algorithm: Algorithm::Md5,
            size: None,
            nfiles: None,
            is_exec: false,
        };
        let outs = stage.outs.iter().map(|stage_out| out(&stage_out.path)).collect();
        Ok(StageLock { cmd: Value::from(&stage.cmd), deps, params: files, outs })
    }

    /// An earlier run that read the same, if all that it left is in the cache.
    fn remembered(&self, stage: &Stage, status: &StageStatus, read: &StageLock) -> Option<StageLock> {
        if !run_cache::remembers(stage) {
            return None;
        }
        let locked = self.lock.stage(&stage.name).filter(|lock| {
            let named =
                |out: &crate::pipeline::Out| lock.out(&out.path).is_some_and(|item| item.oid.is_some());
            !status.command && !status.reads_changed() && stage.outs.iter().all(named)
        });
        let found = locked.cloned().or_else(|| run_cache::find(&self.inspector.cache.runs(), read))?;
        let kept = |item: &Item| item.oid.is_some_and(|oid| self.inspector.cache.holds(oid, item.algorithm));
        let whole = stage.outs.iter().all(|out| found.out(&out.path).is_some_and(kept));
        whole.then_some(found)
    }

    /// Takes the outs from the cache.
    fn restore(&mut self, stage: &Stage, recorded: StageLock) -> Result<(), DvcError> {
        if let Some(guard) = &self.guard {
            let (reads, writes) = places(stage, self.repo.root());
            guard.check(&reads, &writes)?;
        }
        let cache = &self.inspector.cache;
        for out in &stage.outs {
            let Some((item, oid)) = recorded.out(&out.path).and_then(|item| Some((item, item.oid?))) else {
                continue;
            };
            let path = out.place.in_root(self.repo.root());
            // A metric belongs to git, which wants a file of its own.
            let links = if out.cache { cache.links() } else { &[LinkType::Copy] };
            let same = |content: &Content| content.oid == oid && content.is_exec == item.is_exec;
            let there = self.inspector.measurer.measure(&out.place, item.algorithm)?;
            if !there.as_ref().is_some_and(same) {
                cache.restore(oid, item.algorithm, &path, links)?;
                if item.is_exec {
                    make_executable(&path)?;
                }
            }
            if out.cache && !self.repo.config().no_scm {
                git::ignore(&path, oid.is_dir)?;
            }
        }
        self.lock.record(&stage.name, recorded)?;
        self.summary.restored += 1;
        self.watcher.event(Event::Restored { stage: &stage.name });
        Ok(())
    }

    /// Runs the command and keeps what it leaves.
    fn execute(&mut self, stage: &Stage, read: StageLock) -> Result<(), DvcError> {
        if let Some(out) = stage.outs.iter().find(|out| self.inspector.measurer.ignores(&out.place)) {
            return Err(DvcError::IgnoredOut { stage: stage.name.clone(), path: out.place.to_string() });
        }
        self.commands(stage)?;
        self.finishing.store(true, Ordering::Relaxed);
        let outs = self.outs(stage)?;
        let recorded = self.recorded(stage, Some(read), &outs)?;
        self.finish(stage, recorded, &outs)?;
        self.finishing.store(false, Ordering::Relaxed);
        self.summary.run += 1;
        Ok(())
    }

    fn commands(&mut self, stage: &Stage) -> Result<(), DvcError> {
        let Some(guard) = &mut self.guard else { return Ok(()) };
        let (reads, writes) = places(stage, self.repo.root());
        let folder = stage.wdir.in_root(self.repo.root());
        let root = self.repo.root().display().to_string();
        let env = [("DVC_ROOT", root.as_str()), ("DVC_STAGE", stage.name.as_str())];
        let (shell, watcher) = (self.request.shell, self.watcher);
        let stopped = || watcher.is_stopped();
        guard.while_running(&reads, &writes, |stdin| {
            clear(stage, &writes)?;
            watcher.event(Event::Running { stage: &stage.name });
            for cmd in lines(stage) {
                if stopped() {
                    return Err(DvcError::Stopped);
                }
                watcher.event(Event::Command { cmd });
                let status = shell.run(cmd, &folder, &env, stdin, &stopped).map_err(|source| {
                    let (stage, shell) = (stage.name.clone(), shell.program.clone());
                    DvcError::Shell { stage, shell, folder: folder.clone(), source }
                })?;
                if !status.success() && stopped() {
                    return Err(DvcError::Stopped);
                }
                if !status.success() {
                    let (stage, cmd) = (stage.name.clone(), cmd.to_owned());
                    return Err(DvcError::Command {
                        stage,
                        cmd,
                        status: describe(status),
                        code: status.code(),
                    });
                }
            }
            Ok(())
        })
    }

    /// What the stage left.
    fn outs(&self, stage: &Stage) -> Result<Vec<Content>, DvcError> {
        let measured = stage.outs.iter().map(|out| {
            let missing = || DvcError::NoOut { stage: stage.name.clone(), path: out.place.to_string() };
            self.inspector.measurer.measure(&out.place, Algorithm::Md5)?.ok_or_else(missing)
        });
        measured.collect()
    }

    /// The stage for the lock. What it read counts as it was before it ran: a file that is changed
    /// meanwhile is one that the next run has to read.
    fn recorded(
        &self,
        stage: &Stage,
        read: Option<StageLock>,
        outs: &[Content],
    ) -> Result<StageLock, DvcError> {
        let mut recorded = match read {
            Some(read) => read,
            None => match self.lock.stage(&stage.name) {
                Some(known) => known.clone(),
                None => self.reads(stage)?,
            },
        };
        recorded.cmd = Value::from(&stage.cmd);
        recorded.outs =
            stage.outs.iter().zip(outs).map(|(out, content)| Item::of(&out.path, content)).collect();
        Ok(recorded)
    }

    /// Keeps the outs, then the run, then the lock: what is recorded is there.
    fn finish(&mut self, stage: &Stage, recorded: StageLock, outs: &[Content]) -> Result<(), DvcError> {
        let cache = &self.inspector.cache;
        // DVC keeps metrics for its run cache, but gives up on it where other outs have no place in the cache.
        let no_cache = stage.outs.iter().any(|out| !out.cache && out.kind == OutKind::Out);
        let remembered = run_cache::remembers(stage) && !no_cache;
        for (out, content) in stage.outs.iter().zip(outs) {
            let path = out.place.in_root(self.repo.root());
            if out.cache || remembered {
                cache.keep(&path, content)?;
            }
            if out.cache && !self.repo.config().no_scm {
                git::ignore(&path, content.oid.is_dir)?;
            }
            if out.cache && cache.shares_files() {
                cache.restore(content.oid, content.algorithm, &path, cache.links())?;
            }
        }
        if remembered {
            run_cache::save(cache, &recorded)?;
        }
        Ok(self.lock.record(&stage.name, recorded)?)
    }
}

/// What a stage reads and what it leaves, on disk.
fn places(stage: &Stage, root: &Path) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let reads = stage.deps.iter().map(|dep| dep.place.in_root(root));
    (reads.collect(), stage.outs.iter().map(|out| out.place.in_root(root)).collect())
}

/// What is given to the shell, in turn: each line of a text, each item of a list.
fn lines(stage: &Stage) -> Vec<&str> {
    let lines: Vec<&str> = match &stage.cmd {
        Cmd::One(text) => text.lines().collect(),
        Cmd::Many(items) => items.iter().map(String::as_str).collect(),
    };
    lines.into_iter().filter(|line| !line.trim().is_empty()).collect()
}

/// Takes the outs away that the stage is to make anew, and those that stay out of the cache's hands.
fn clear(stage: &Stage, paths: &[PathBuf]) -> Result<(), DvcError> {
    for (out, path) in stage.outs.iter().zip(paths) {
        if out.persist {
            unprotect(path)?;
        } else {
            files::remove(path)?;
        }
    }
    Ok(())
}

#[cfg(unix)]
fn make_executable(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut permissions = fs_err::metadata(path)?.permissions();
    // As DVC does: for its owner.
    permissions.set_mode(permissions.mode() | 0o100);
    fs_err::set_permissions(path, permissions)
}

#[cfg(not(unix))]
fn make_executable(_: &Path) -> io::Result<()> {
    Ok(())
}
