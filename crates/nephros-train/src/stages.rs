//! A project folder, and what its stages leave for each other.

use std::path::{Path, PathBuf};

use nephros_core::preprocessing::Preprocessing;

use crate::{
    config::{Config, ConfigError, Params},
    files::write_atomic,
    manifest::{Manifest, ManifestError, Record},
    split::{Split, Subset},
};

pub use crate::{
    evaluate::{EvaluateError, Scores, evaluate},
    //ingest::{IngestError, IngestSummary, ingest},
    prepare::{PrepareError, PrepareSummary, prepare},
    train::{TrainError, TrainSummary, train},
};

/// A project folder with its configuration loaded.
#[derive(Debug, Clone)]
pub struct Project {
    /// The folder that relative paths start from.
    pub root: PathBuf,
    /// `config/config.yaml`.
    pub config: Config,
    /// `params.yaml`.
    pub params: Params,
}

impl Project {
    /// Reads both configuration files.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(root: &Path, config: &Path, params: &Path) -> Result<Self, ConfigError> {
        let (config, params) = (Config::load(config)?, Params::load(params)?);
        Ok(Self { root: root.to_owned(), config, params })
    }

    /// A configured path, from the project folder.
    pub fn path(&self, path: &Path) -> PathBuf {
        self.root.join(path)
    }

    /// The folder of the trained model's bundle.
    pub fn bundle_dir(&self) -> PathBuf {
        self.path(&self.config.training.root_dir).join("bundle")
    }

    /// The split that the trained model was made with.
    pub fn split_file(&self) -> PathBuf {
        self.path(&self.config.training.root_dir).join("split.csv")
    }

    /// What each epoch of the training brought.
    pub fn history_file(&self) -> PathBuf {
        self.path(&self.config.training.root_dir).join("history.csv")
    }

    /// The file in which `prepare` leaves the preprocessing that the weights call for.
    fn preprocessing_file(&self) -> PathBuf {
        self.path(&self.config.prepare_base_model.root_dir).join("preprocessing.json")
    }

    pub(crate) fn write_preprocessing(&self, preprocessing: &Preprocessing) -> std::io::Result<()> {
        write_atomic(&self.preprocessing_file(), &serde_json::to_vec_pretty(preprocessing)?)
    }

    pub(crate) fn read_preprocessing(&self) -> std::io::Result<Preprocessing> {
        Ok(serde_json::from_slice(&fs_err::read(self.preprocessing_file())?)?)
    }
}

/// The ingested images of the classes in use.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// Folder that the records' paths start from.
    pub root: PathBuf,
    /// Sorted by path.
    pub records: Vec<Record>,
    /// Label of each record.
    pub targets: Vec<usize>,
    /// Class names, in label order.
    pub labels: Vec<String>,
    /// Digest of the manifest.
    pub digest: String,
}

impl Dataset {
    /// Reads the manifest that `ingest` wrote.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub fn load(project: &Project) -> Result<Self, ManifestError> {
        let ingestion = &project.config.data_ingestion;
        let root = project.path(&ingestion.unzip_dir).join("kidney-ct-scan-image");
        let manifest = Manifest::read(&project.path(&ingestion.root_dir).join("manifest.csv"), root)?;
        Self::new(manifest, &project.params)
    }

    /// Takes the labels from `CLASS_NAMES` or the manifest.
    ///
    /// # Errors
    /// [`ManifestError::Classes`].
    pub fn new(manifest: Manifest, params: &Params) -> Result<Self, ManifestError> {
        let labels = manifest.labels(params)?;
        let digest = manifest.digest();
        let label = |record: &Record| labels.iter().position(|name| *name == record.class).unwrap_or(0);
        let targets = manifest.records.iter().map(label).collect();
        Ok(Self { root: manifest.root, records: manifest.records, targets, labels, digest })
    }

    /// Records and labels of one side of a split.
    pub fn subset(&self, split: &Split, subset: Subset) -> Vec<(&Record, usize)> {
        let positions = split.indices(subset).into_iter();
        positions.map(|position| (&self.records[position], self.targets[position])).collect()
    }
}
