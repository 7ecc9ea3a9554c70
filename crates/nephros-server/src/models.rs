//! Which model is served, and which others could be.

use std::sync::Arc;

use axum::{Json, body::Body, extract::State, http::HeaderMap};
use nephros_serving::{BoxError, Classifier, Lane};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    body,
    error::{ApiError, Code},
    state::AppState,
};

/// A model that can be loaded.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Model)]
pub struct ModelEntry {
    /// What it is loaded by.
    pub name: String,
    /// Where it comes from: `bundle` for the bundle of the last training, `registry` for a version.
    pub kind: ModelKind,
    /// Name of the registered model.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub registered: Option<String>,
    /// Number of the version.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub version: Option<u32>,
    /// Aliases that name this version, such as `champion`.
    pub aliases: Vec<String>,
    /// What its evaluation said: `passed`, `refused`, `forced` or `not evaluated`, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub gate: Option<String>,
    /// When it was made or registered, RFC 3339, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub created: Option<String>,
}

/// Where a model comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModelKind {
    /// The bundle of the last training.
    Bundle,
    /// A version in the registry.
    Registry,
}

/// Why a model cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ModelsError {
    /// No model has this name.
    #[error("no model has this name")]
    NoSuchModel,
    /// The gate of its evaluation refuses it.
    #[error("the model failed the gate of its evaluation: {reason}")]
    Refused {
        /// What the gate says.
        reason: String,
    },
    /// It is broken, or cannot be reached.
    #[error("{reason}")]
    Unusable {
        /// A sentence that a client may read: no path, no value.
        reason: String,
        /// The whole story, for the log.
        #[source]
        source: BoxError,
    },
}

impl From<ModelsError> for ApiError {
    fn from(error: ModelsError) -> Self {
        match error {
            ModelsError::NoSuchModel => Self::Missing(Code::NoSuchModel),
            ModelsError::Refused { reason } => Self::ModelRefused { reason },
            ModelsError::Unusable { reason, source } => Self::UnusableModel { reason, source },
        }
    }
}

/// Where models come from. All of it blocks.
pub trait ModelStore: Send + Sync {
    /// Models that can be loaded.
    ///
    /// # Errors
    /// [`ModelsError::Unusable`].
    fn list(&self) -> Result<Vec<ModelEntry>, ModelsError>;

    /// Loads a model by the name that [`Self::list`] gives; `force` lets one pass that the gate refuses.
    ///
    /// # Errors
    /// See [`ModelsError`].
    fn load(&self, name: &str, force: bool) -> Result<Arc<dyn Classifier>, ModelsError>;

    /// Makes a version of a registered model its champion, by the name that [`Self::list`] gives.
    ///
    /// # Errors
    /// See [`ModelsError`].
    fn promote(&self, name: &str, force: bool) -> Result<ModelEntry, ModelsError>;
}

/// The model that answers now.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CurrentModel {
    /// What it is called in answers.
    id: String,
    /// Labels in its order.
    labels: Vec<String>,
    /// Whether its probabilities are calibrated.
    calibrated: bool,
    /// Whether it draws heat maps.
    explains: bool,
    /// Milliseconds an image, as measured.
    milliseconds_an_image: f64,
    /// In what it is not as the one before.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    notice: Option<String>,
    /// Why the model trained last is not the current one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    refused: Option<String>,
    /// The model before it, to which `rollback` goes back.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    previous: Option<String>,
}

impl CurrentModel {
    fn of(state: &AppState, lane: &Lane) -> Self {
        let model = lane.model();
        Self {
            id: model.id().to_owned(),
            labels: model.labels().to_vec(),
            calibrated: model.calibrated(),
            explains: model.explains(),
            milliseconds_an_image: (lane.seconds_an_image() * 1e6).round() / 1e3,
            notice: lane.notice().map(str::to_owned),
            refused: state.refused(),
            previous: state.previous(),
        }
    }
}

/// A model that is asked for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModelRequest {
    /// Its name in the list of models.
    #[schema(max_length = 200)]
    model: String,
    /// Whether it may have failed the gate of its evaluation; its bundle records that.
    #[serde(default)]
    force: bool,
}

fn current_model(state: &AppState) -> Result<Json<CurrentModel>, ApiError> {
    let lane = state.lane().ok_or(ApiError::NoModel)?;
    Ok(Json(CurrentModel::of(state, &lane)))
}

/// Work on the store of models, which blocks.
async fn with_store<T: Send + 'static>(
    state: &AppState,
    work: impl FnOnce(&AppState, &dyn ModelStore) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let store = Arc::clone(state.models().ok_or(ApiError::Missing(Code::NoModels))?);
    let state = state.clone();
    let work = tokio::task::spawn_blocking(move || work(&state, store.as_ref()));
    work.await.map_err(|error| ApiError::Internal(error.into()))?
}

/// Serves a model from now on. What the one before took, it finishes.
fn serve(state: &AppState, store: &dyn ModelStore, name: &str, force: bool) -> Result<(), ApiError> {
    let model = store.load(name, force)?;
    let id = model.id().to_owned();
    state.replace_model(model, None).map_err(|error| ApiError::UnusableModel {
        reason: "it fails on a plain picture".to_owned(),
        source: error.into(),
    })?;
    tracing::info!(model = id, force, "model replaced");
    Ok(())
}

/// Models that can be loaded.
#[utoipa::path(
    get, path = "/api/v1/models", tag = "models",
    responses((status = 200, description = "The models", body = Vec<ModelEntry>)),
)]
pub(crate) async fn list(State(state): State<AppState>) -> Result<Json<Vec<ModelEntry>>, ApiError> {
    with_store(&state, |_, store| Ok(Json(store.list()?))).await
}

/// The model that answers now.
#[utoipa::path(
    get, path = "/api/v1/models/current", tag = "models",
    responses((status = 200, description = "The model", body = CurrentModel)),
)]
pub(crate) async fn current(State(state): State<AppState>) -> Result<Json<CurrentModel>, ApiError> {
    current_model(&state)
}

/// Loads a model, checks it, and serves it in place of the current one.
#[utoipa::path(
    post, path = "/api/v1/models/load", tag = "models", request_body = ModelRequest,
    responses((status = 200, description = "It is the current model now", body = CurrentModel)),
)]
pub(crate) async fn load(
    State(state): State<AppState>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<CurrentModel>, ApiError> {
    let ModelRequest { model, force } = body::json(&headers, body, &state).await?;
    with_store(&state, move |state, store| serve(state, store, &model, force)).await?;
    current_model(&state)
}

/// Makes a registered version the champion of its model, and serves it.
#[utoipa::path(
    post, path = "/api/v1/models/promote", tag = "models", request_body = ModelRequest,
    responses((status = 200, description = "It is champion, and the current model now", body = CurrentModel)),
)]
pub(crate) async fn promote(
    State(state): State<AppState>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<CurrentModel>, ApiError> {
    let ModelRequest { model, force } = body::json(&headers, body, &state).await?;
    let work = move |state: &AppState, store: &dyn ModelStore| {
        // Served first: what cannot be served does not become champion.
        serve(state, store, &model, force)?;
        match store.promote(&model, force) {
            Ok(entry) => {
                tracing::info!(version = entry.version, "model promoted");
                Ok(())
            }
            Err(error) => {
                state.roll_back();
                Err(error.into())
            }
        }
    };
    with_store(&state, work).await?;
    current_model(&state)
}

/// Serves the model before the current one again. Doing it twice changes nothing.
#[utoipa::path(
    post, path = "/api/v1/models/rollback", tag = "models",
    responses((status = 200, description = "The model before is the current one now", body = CurrentModel)),
)]
pub(crate) async fn rollback(State(state): State<AppState>) -> Result<Json<CurrentModel>, ApiError> {
    let lane = state.roll_back().ok_or(ApiError::Conflict(Code::NoPrevious))?;
    tracing::info!(model = lane.model().id(), "model rolled back");
    current_model(&state)
}
