//! What every test needs: an empty database of either kind, and predictions to store.

use std::{path::PathBuf, sync::Arc};

use nephros_store::{Database, MasterKey, Model, NewPrediction, Reason, Store, StoreConfig};
use sqlx::{AnyPool, any::AnyPoolOptions};

use crate::postgres::{Cluster, stands_in};

/// An empty database.
pub struct Bed {
    url: String,
    pub folder: tempfile::TempDir,
    pub cluster: Option<Arc<Cluster>>,
}

impl Bed {
    pub fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // A path that an address has to write otherwise.
        let path = folder.path().join("a store?").join("receipts.db");
        Self { url: path.to_str().unwrap().to_owned(), folder, cluster: None }
    }

    /// `None` where there is no PostgreSQL.
    pub fn postgres() -> Option<Self> {
        let cluster = Cluster::shared()?;
        let url = cluster.url(&cluster.create());
        Some(Self { url, folder: tempfile::tempdir().unwrap(), cluster: Some(cluster) })
    }

    /// Another empty database beside it.
    pub fn another(&self) -> Database {
        match &self.cluster {
            Some(cluster) => cluster.url(&cluster.create()).parse().unwrap(),
            None => Database::Sqlite(self.folder.path().join("restored.db")),
        }
    }

    pub fn database(&self) -> Database {
        self.url.parse().unwrap()
    }

    pub fn config(&self) -> StoreConfig {
        StoreConfig::new(self.database())
    }

    pub async fn open(&self) -> Store {
        Store::open(self.config()).await.unwrap()
    }

    /// A store that keeps images.
    pub async fn open_with(&self, key: &MasterKey) -> Store {
        let config = StoreConfig { keep_images: true, master_key: Some(key.clone()), ..self.config() };
        Store::open(config).await.unwrap()
    }

    /// The database without the store, as someone with a client has it.
    pub async fn by_hand(&self) -> AnyPool {
        sqlx::any::install_default_drivers();
        let url = match self.database() {
            Database::Sqlite(path) => {
                format!("sqlite://{}?mode=rw", path.to_str().unwrap().replace(' ', "%20").replace('?', "%3F"))
            }
            Database::Postgres(url) => url.to_string(),
        };
        AnyPoolOptions::new().max_connections(1).connect(&url).await.unwrap()
    }

    /// Whether a text stands in the files of the database.
    pub fn stands_in_files(&self, text: &[u8]) -> bool {
        let folder: PathBuf = match &self.cluster {
            Some(cluster) => cluster.files(),
            None => self.folder.path().into(),
        };
        stands_in(&folder, text)
    }
}

pub fn master(digit: char) -> MasterKey {
    MasterKey::from_hex(&digit.to_string().repeat(64), "a test").unwrap()
}

pub fn prediction(subject: Option<&str>, number: u32) -> NewPrediction {
    let tumor = 1.0 / (2.0 + number as f32);
    NewPrediction {
        subject: subject.map(str::to_owned),
        image: format!("the pixels of image {number}").into_bytes(),
        model: Model {
            id: "compact-1a2b3c4d".into(),
            bundle_sha256: "ab".repeat(32),
            preprocessing: r#"{"image_size":[224,224,3]}"#.into(),
            engine: "nephros 0.1.0 avx2".into(),
            labels: vec!["Normal".into(), "Tumor".into()],
        },
        probabilities: vec![1.0 - tumor, tumor],
        label: "Normal".into(),
        refer: (number % 2 == 1).then(|| "two labels are likely".into()),
        reasons: vec![Reason { code: "near_copy".into(), sentence: "a near copy of `Tumor/7.jpg`".into() }],
    }
}
