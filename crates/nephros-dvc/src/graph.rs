//! Which stage needs which.

use std::{collections::BTreeSet, path::PathBuf};

use crate::{
    pipeline::{Pipeline, Stage},
    yaml::Mark,
};

/// The stages that each stage needs, by position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graph {
    names: Vec<String>,
    needs: Vec<BTreeSet<usize>>,
    order: Vec<usize>,
}

/// Why stages cannot be put in an order.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// Two stages leave one file, or one of them twice.
    #[error("`{file}`:{at}: `{path}` is an out of stage `{stage}` and, at {first}, of stage `{other}`")]
    Twice {
        /// The pipeline.
        file: PathBuf,
        /// Where the second stands.
        at: Mark,
        /// The out.
        path: String,
        /// Stage of the second.
        stage: String,
        /// Where the first stands.
        first: Mark,
        /// Stage of the first.
        other: String,
    },
    /// An out lies inside another.
    #[error(
        "`{file}`:{at}: the out `{path}` of stage `{stage}` and the out `{other_path}` of stage `{other}` overlap"
    )]
    Overlap {
        /// The pipeline.
        file: PathBuf,
        /// Where one of them stands.
        at: Mark,
        /// It.
        path: String,
        /// Its stage.
        stage: String,
        /// The other one.
        other_path: String,
        /// Its stage.
        other: String,
    },
    /// A stage needs what comes of it.
    #[error("`{file}`:{at}: the stages {stages} need each other in a circle")]
    Cycle {
        /// The pipeline.
        file: PathBuf,
        /// Where the first stage of the circle stands.
        at: Mark,
        /// The circle, with arrows.
        stages: String,
    },
    /// No stage has this name.
    #[error("`{file}` has no stage `{name}`")]
    NoStage {
        /// The pipeline.
        file: PathBuf,
        /// The name asked for.
        name: String,
        /// The names there are.
        names: String,
    },
}

impl GraphError {
    /// One sentence of advice.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Twice { .. } => "every file is left by one stage; take one of the two lines out".into(),
            Self::Overlap { .. } => {
                "name either the folder or the files in it, so that it is clear which stage they belong to"
                    .into()
            }
            Self::Cycle { .. } => "take the dependency out that closes the circle".into(),
            Self::NoStage { names, .. } => format!("it has {names}"),
        })
    }
}

impl Graph {
    /// Looks at what each stage reads and leaves.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub fn new(pipeline: &Pipeline) -> Result<Self, GraphError> {
        check_outs(pipeline)?;
        let stages = &pipeline.stages;
        let reads = |stage: &Stage| -> Vec<_> {
            let params = stage.params.iter().map(|params| &params.place);
            stage.deps.iter().map(|dep| &dep.place).chain(params).cloned().collect()
        };
        let needs: Vec<BTreeSet<usize>> = stages
            .iter()
            .map(|stage| {
                let reads = reads(stage);
                let leaves = |other: &Stage| {
                    other.outs.iter().any(|out| reads.iter().any(|place| place.overlaps(&out.place)))
                };
                (0..stages.len()).filter(|&other| leaves(&stages[other])).collect()
            })
            .collect();
        let names = stages.iter().map(|stage| stage.name.clone()).collect();
        let order = order(&needs).map_err(|circle| {
            let stages: Vec<&str> = circle.iter().map(|&index| stages[index].name.as_str()).collect();
            GraphError::Cycle {
                file: pipeline.file.clone(),
                at: pipeline.stages[circle[0]].at,
                stages: format!("`{}`", stages.join("` -> `")),
            }
        })?;
        Ok(Self { names, needs, order })
    }

    /// All stages, each after those it needs, otherwise in the order of the file.
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// Stages that a stage needs at once.
    pub fn needs(&self, stage: usize) -> &BTreeSet<usize> {
        &self.needs[stage]
    }

    /// Some stages and all that they need, in order. What a frozen stage needs does not count.
    pub fn upstream(&self, targets: &[usize], is_frozen: impl Fn(usize) -> bool) -> Vec<usize> {
        let mut wanted = BTreeSet::new();
        let mut open = targets.to_vec();
        while let Some(stage) = open.pop() {
            if wanted.insert(stage) && !is_frozen(stage) {
                open.extend(&self.needs[stage]);
            }
        }
        self.order.iter().copied().filter(|stage| wanted.contains(stage)).collect()
    }

    /// A line a stage, with the stages it needs.
    pub fn to_text(&self) -> String {
        let width = self.names.iter().map(String::len).max().unwrap_or(0);
        let line = |&stage: &usize| match self.names_of(stage) {
            needs if needs.is_empty() => self.names[stage].clone(),
            needs => format!("{:width$}  <- {}", self.names[stage], needs.join(", ")),
        };
        self.order.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// A flowchart for Mermaid, as `dvc dag --mermaid` writes it.
    pub fn to_mermaid(&self) -> String {
        let number = |stage: usize| 1 + self.order.iter().position(|&there| there == stage).unwrap_or(0);
        let mut lines = vec!["flowchart TD".to_owned()];
        lines.extend(
            self.order.iter().map(|&stage| format!("\tnode{}[\"{}\"]", number(stage), self.names[stage])),
        );
        lines.extend(self.edges().map(|(from, to)| format!("\tnode{}-->node{}", number(from), number(to))));
        lines.join("\n")
    }

    /// A graph for Graphviz, as `dvc dag --dot` writes it.
    pub fn to_dot(&self) -> String {
        let mut lines = vec!["strict digraph {".to_owned()];
        lines.extend(self.order.iter().map(|&stage| format!("\"{}\";", self.names[stage])));
        let name = |stage: usize| &self.names[stage];
        lines.extend(self.edges().map(|(from, to)| format!("\"{}\" -> \"{}\";", name(from), name(to))));
        lines.push("}".into());
        lines.join("\n")
    }

    fn names_of(&self, stage: usize) -> Vec<&str> {
        let needed = self.order.iter().filter(|there| self.needs[stage].contains(there));
        needed.map(|&there| self.names[there].as_str()).collect()
    }

    /// From what is needed to what needs it.
    fn edges(&self) -> impl Iterator<Item = (usize, usize)> {
        self.order.iter().flat_map(move |&to| {
            let from = self.order.iter().copied().filter(move |from| self.needs[to].contains(from));
            from.map(move |from| (from, to))
        })
    }
}

fn check_outs(pipeline: &Pipeline) -> Result<(), GraphError> {
    let all: Vec<_> =
        pipeline.stages.iter().flat_map(|stage| stage.outs.iter().map(move |out| (stage, out))).collect();
    for (number, (stage, out)) in all.iter().enumerate() {
        for (other_stage, other) in &all[..number] {
            if out.place == other.place {
                return Err(GraphError::Twice {
                    file: pipeline.file.clone(),
                    at: out.at,
                    path: out.place.to_string(),
                    stage: stage.name.clone(),
                    first: other.at,
                    other: other_stage.name.clone(),
                });
            }
            if out.place.overlaps(&other.place) {
                return Err(GraphError::Overlap {
                    file: pipeline.file.clone(),
                    at: out.at,
                    path: out.place.to_string(),
                    stage: stage.name.clone(),
                    other_path: other.place.to_string(),
                    other: other_stage.name.clone(),
                });
            }
        }
    }
    Ok(())
}

/// Each after those it needs, or the stages of a circle.
fn order(needs: &[BTreeSet<usize>]) -> Result<Vec<usize>, Vec<usize>> {
    let mut order: Vec<usize> = Vec::new();
    let mut placed = BTreeSet::new();
    while order.len() < needs.len() {
        let ready = |&stage: &usize| !placed.contains(&stage) && needs[stage].is_subset(&placed);
        let Some(next) = (0..needs.len()).find(ready) else {
            return Err(circle(needs, &placed));
        };
        placed.insert(next);
        order.push(next);
    }
    Ok(order)
}

/// From a stage that cannot be placed from need to need, until one comes again.
fn circle(needs: &[BTreeSet<usize>], placed: &BTreeSet<usize>) -> Vec<usize> {
    let open = |&stage: &usize| !placed.contains(&stage);
    let mut path: Vec<usize> = Vec::new();
    let mut next = (0..needs.len()).find(open);
    while let Some(stage) = next {
        if let Some(start) = path.iter().position(|&there| there == stage) {
            path.push(stage);
            return path.split_off(start);
        }
        path.push(stage);
        next = needs[stage].iter().copied().find(open);
    }
    path
}
