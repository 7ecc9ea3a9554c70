//! A project with a small model that keeps what it predicts, and how to ask its server.

use std::process::Command;

use serde_json::Value;

use crate::{
    common::{Folder, Run, model::save_bundle, server::Server},
    postgres::Cluster,
};

/// Of the user of PostgreSQL.
pub const PASSWORD: &str = "opensesame";
const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A project, and the database of its receipts.
pub struct Bed {
    pub folder: Folder,
    /// Address of a PostgreSQL; without one it is SQLite.
    database: Option<String>,
    cluster: Option<Cluster>,
}

impl Bed {
    /// Images are kept, so that a lost byte of one is found, too.
    pub fn sqlite() -> Self {
        let folder = Folder::project();
        save_bundle(&folder.path("artifacts/training/bundle"));
        let config = folder.read("config/config.yaml");
        folder.write("config/config.yaml", config.replace("keep_images: False", "keep_images: True"));
        Self { folder, database: None, cluster: None }
    }

    /// On a server of its own; `None` where there is no PostgreSQL.
    pub fn postgres() -> Option<Self> {
        let cluster = Cluster::start()?;
        // It asks for no password, and whoever reads a log should not find one.
        let database =
            Some(cluster.url(&cluster.create()).replace("postgres@", &format!("postgres:{PASSWORD}@")));
        Some(Self { database, cluster: Some(cluster), ..Self::sqlite() })
    }

    /// The server of the database.
    pub fn cluster(&self) -> &Cluster {
        self.cluster.as_ref().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.folder.command(arguments);
        command.env("NEPHROS_STORE_KEY", KEY);
        if let Some(database) = &self.database {
            command.env("DATABASE_URL", database);
        }
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Run {
        Run::from(self.command(arguments).output().unwrap())
    }

    pub fn serve(&self) -> Server {
        Server::spawn(self.command(&["serve", "--port", "0"]))
    }

    /// What `verify` finds; nothing may be wrong. The log has to continue the one that it was asked about
    /// before.
    pub fn verify(&self) -> Value {
        let mut arguments = vec!["verify", "--json"];
        if self.folder.path("kept.checkpoint").exists() {
            arguments.extend(["--checkpoint", "kept.checkpoint"]);
        }
        let run = self.run(&arguments);
        assert_eq!(run.code, 0, "{run:?}");
        let found: Value = serde_json::from_str(&run.stdout).unwrap();
        self.folder.write("kept.checkpoint", found["checkpoint"].as_str().unwrap());
        found
    }
}

/// All predictions that a server lists.
pub fn history(server: &Server) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    loop {
        let before = all.last().map_or_else(String::new, |entry| {
            let receipt = entry["receipt"].as_str().unwrap();
            format!("&before={receipt}")
        });
        let page = server.get(&format!("/api/v1/history?limit=1000{before}"));
        let page = page.as_array().unwrap_or_else(|| panic!("{page}"));
        if page.is_empty() {
            return all;
        }
        all.extend_from_slice(page);
    }
}
