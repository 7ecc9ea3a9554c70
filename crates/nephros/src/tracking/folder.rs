//! The folder of a model as MLflow loads it, with the bundle in it.

use anyhow::Context as _;
use nephros_mlflow::store::NewModel;
use nephros_train::{files::write_atomic, stages::Project};
use walkdir::WalkDir;

/// The bundle's folder in it.
pub const BUNDLE: &str = "bundle";

/// Writes the folder of a model that is being logged.
pub fn write(project: &Project, model: &NewModel) -> anyhow::Result<()> {
    let bundle = project.bundle_dir();
    for entry in WalkDir::new(&bundle) {
        let entry = entry?;
        if entry.file_type().is_file() {
            let target = model.folder.join(BUNDLE).join(entry.path().strip_prefix(&bundle)?);
            write_atomic(&target, &fs_err::read(entry.path())?)
                .with_context(|| format!("cannot write `{}`", target.display()))?;
        }
    }
    let keras = project.path(&project.config.training.trained_model_path);
    let mlmodel = format!(
        "artifact_path: {}\nflavors:\n  python_function:\n    data: data\n    env:\n      virtualenv: python_env.yaml\n    \
         loader_module: mlflow.tensorflow\n    python_version: 3.11.7\n  tensorflow:\n    data: data\n    \
         keras_version: 2.12.0\n    model_type: keras\n    save_format: h5\nmodel_id: {}\nmodel_uuid: {}\nrun_id: {}\n",
        model.location, model.id, model.id, model.run
    );
    let files: [(&str, Vec<u8>); 4] = [
        ("data/model.h5", fs_err::read(keras)?),
        ("data/keras_module.txt", b"tensorflow.keras".to_vec()),
        ("data/save_format.txt", b"h5".to_vec()),
        ("MLmodel", mlmodel.into_bytes()),
    ];
    for (name, bytes) in files {
        write_atomic(&model.folder.join(name), &bytes)?;
    }
    Ok(())
}
