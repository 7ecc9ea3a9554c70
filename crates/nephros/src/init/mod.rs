//! `init`: the files of a new project.

mod pipeline;

use std::path::Path;

use anyhow::Context as _;
use nephros_train::{
    config::{CONFIG_TEMPLATE, PARAMS_TEMPLATE},
    files::write_atomic,
};

use crate::{
    cli::InitArgs,
    errors::{CliError, Status},
    output,
};

pub use self::pipeline::pipeline;

const README: &str = include_str!("README.md");
const GITIGNORE: &str = "# Made by the stages, and made again from the configuration.
/artifacts/
/logs/
/model/
# Recorded runs and their files.
/mlflow*.db*
/mlruns/
# Receipts of predictions, and their keys.
/store/
";
const DVCIGNORE: &str =
    "# Patterns of files that DVC and `nephros repro` do not look at, as in .gitignore.\n/logs/\n";

/// A file of the scaffold: its path below the project and its content.
pub type File<'a> = (&'a str, &'a str);

/// What became of the files of a scaffold.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Scaffold<'a> {
    /// Written.
    pub created: Vec<&'a str>,
    /// Left as they were.
    pub kept: Vec<&'a str>,
}

/// Runs the command.
pub fn run(args: &InitArgs) -> anyhow::Result<Status> {
    // A project that is there already may have a short params.yaml.
    let params = fs_err::read_to_string(args.dir.join("params.yaml"));
    let pipeline = pipeline(params.as_deref().unwrap_or(PARAMS_TEMPLATE));
    let scaffold = write(&args.dir, &files(CONFIG_TEMPLATE, PARAMS_TEMPLATE, &pipeline))?;
    for path in &scaffold.kept {
        output::line(&format!("kept     {path} (already there)"))?;
    }
    for path in &scaffold.created {
        output::line(&format!("created  {path}"))?;
    }
    let dir = args.dir.display();
    output::note(&match (scaffold.created.is_empty(), scaffold.kept.is_empty()) {
        (true, _) => format!("`{dir}` is a complete project already; nothing was changed"),
        (false, false) => format!("`{dir}` was there; only what was missing is added"),
        (false, true) => {
            format!("`{dir}` is ready; next: edit config/config.yaml and run `nephros run` in it")
        }
    });
    Ok(Status::Done)
}

/// The scaffold with the given configuration, parameters and pipeline.
pub fn files<'a>(config: &'a str, params: &'a str, pipeline: &'a str) -> [File<'a>; 6] {
    [
        ("config/config.yaml", config),
        ("params.yaml", params),
        ("dvc.yaml", pipeline),
        (".gitignore", GITIGNORE),
        (".dvcignore", DVCIGNORE),
        ("README.md", README),
    ]
}

/// Writes the files that are not there yet; never overwrites one.
pub fn write<'a>(dir: &Path, files: &[File<'a>]) -> anyhow::Result<Scaffold<'a>> {
    if dir.exists() && !dir.is_dir() {
        return Err(CliError::NotAFolder { path: dir.to_owned() }.into());
    }
    let mut scaffold = Scaffold::default();
    for &(name, content) in files {
        let path = dir.join(name);
        if path.symlink_metadata().is_ok() {
            scaffold.kept.push(name);
            continue;
        }
        write_atomic(&path, content.as_bytes())
            .with_context(|| format!("cannot write `{}`", path.display()))?;
        scaffold.created.push(name);
    }
    Ok(scaffold)
}
