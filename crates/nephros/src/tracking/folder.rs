//! The folder of a model as MLflow loads it, with the bundle in it.

use anyhow::Context as _;
use jiff::Timestamp;
use nephros_core::export::{self, mlflow::Logged};
use nephros_mlflow::store::NewModel;
use nephros_train::stages::Project;

pub use nephros_core::export::mlflow::BUNDLE;

/// Writes the folder of a model that is being logged.
pub fn write(project: &Project, model: &NewModel) -> anyhow::Result<()> {
    let bundle = export::Model::load(&project.bundle_dir(), None)?;
    let created = Timestamp::now().strftime("%Y-%m-%d %H:%M:%S.%6f").to_string();
    let logged = Logged {
        created: &created,
        artifact_path: Some(&model.location),
        run_id: Some(&model.run),
        model_id: Some(&model.id),
    };
    if let Some(folder) = model.folder.parent() {
        fs_err::create_dir_all(folder)?;
    }
    export::mlflow::write(&model.folder, &bundle, &logged)
        .with_context(|| format!("cannot write `{}`", model.folder.display()))
}
