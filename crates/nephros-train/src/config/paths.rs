//! `config/config.yaml`: where things come from and go to.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The whole file. Relative paths are relative to the project folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Folder that all stages write into.
    pub artifacts_root: PathBuf,
    /// Stage `ingest`.
    pub data_ingestion: DataIngestion,
    /// Stage `prepare`.
    pub prepare_base_model: PrepareBaseModel,
    /// Stage `train`.
    pub training: Training,
    /// Where runs and models are recorded.
    #[serde(default)]
    pub mlflow: Mlflow,
    /// Where the server records predictions.
    #[serde(default)]
    pub store: Store,
}

/// Stage `ingest`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataIngestion {
    /// Folder of this stage.
    pub root_dir: PathBuf,
    /// Google Drive link, http(s) address, local zip or local folder.
    #[serde(rename = "source_URL")]
    pub source_url: String,
    /// Where the zip is kept.
    pub local_data_file: PathBuf,
    /// Folder to extract into; the class folders end up in `kidney-ct-scan-image` below it.
    pub unzip_dir: PathBuf,
    /// Expected SHA-256 of the zip, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Expected MD5 of the zip, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub md5: Option<String>,
    /// CSV with columns `path,class,patient` or `path,class,series`; default: one found beside
    /// the class folders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patients_file: Option<PathBuf>,
}

/// Stage `prepare`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrepareBaseModel {
    /// Folder of this stage.
    pub root_dir: PathBuf,
    /// The network without a head.
    pub base_model_path: PathBuf,
    /// The network with its untrained head.
    pub updated_base_model_path: PathBuf,
}

/// Stage `train`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// Folder of this stage; the bundle is written to `bundle` below it.
    pub root_dir: PathBuf,
    /// The trained model as a Keras file.
    pub trained_model_path: PathBuf,
}

/// Where runs and models are recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mlflow {
    /// Experiment of the runs, unless MLFLOW_EXPERIMENT_NAME is set.
    pub experiment_name: String,
    /// Name that models are registered under.
    pub registered_model_name: String,
    /// Whether a server gets report.html, which shows slices and names patients.
    pub upload_report: bool,
}

impl Default for Mlflow {
    fn default() -> Self {
        Self {
            experiment_name: "kidney-ct".into(),
            registered_model_name: "VGG16Model".into(),
            upload_report: true,
        }
    }
}

/// Where the server records predictions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// The SQLite file, unless DATABASE_URL is set.
    pub path: PathBuf,
    /// Whether images of predictions are kept, encrypted.
    pub keep_images: bool,
    /// File of the master key of kept images, unless NEPHROS_STORE_KEY is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master_key_file: Option<PathBuf>,
    /// File that gets the checkpoint of the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint_file: Option<PathBuf>,
    /// Days after which `nephros store prune` erases details and images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention_days: Option<u32>,
    /// Days after which `nephros store prune` erases images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_retention_days: Option<u32>,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            path: "store/receipts.db".into(),
            keep_images: false,
            master_key_file: None,
            checkpoint_file: None,
            retention_days: None,
            image_retention_days: None,
        }
    }
}
