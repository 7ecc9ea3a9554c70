//! Runs and models as MLflow knows them, with and without a server.
//!
//! Every run is written first to a [`store::Store`]: a SQLite file of MLflow's own schema, which `mlflow ui`
//! opens. A [`server::Server`], if there is one, is fed from that record by [`sync::feed`], event by event
//! and each once, so that a server which goes down in mid-run loses nothing. Models are found and promoted
//! through [`registry::Registry`], which both of them are.
//!
//! Nothing here knows an image or a network. The environment is read by the caller and handed over as
//! [`settings::Settings`].

mod digest;
pub mod event;
pub mod models;
pub mod registry;
pub mod run;
pub mod server;
pub mod settings;
pub mod store;
pub mod sync;
