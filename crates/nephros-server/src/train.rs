//! `POST /train`: the whole pipeline, one run at a time.

use axum::extract::State;

use crate::{
    error::ApiError,
    state::{AppState, TrainFailure, Trained},
};

/// Runs the pipeline and makes its model the current one.
///
/// The run and the change of model belong to a task of their own: a client that goes away stops
/// neither. A failure leaves the current model as it is, and so does a model that is refused: the
/// training is done then all the same, and `/health` and the page say why it is not served.
pub(crate) async fn train(State(state): State<AppState>) -> Result<&'static str, ApiError> {
    let trainer = state.trainer().ok_or(ApiError::TrainingUnavailable)?;
    let guard = state.begin_training().ok_or(ApiError::TrainingRunning)?;
    let run = tokio::task::spawn_blocking(move || {
        let _guard = guard;
        tracing::info!("training started");
        match trainer().inspect_err(|failure| tracing::warn!(%failure, "training failed"))? {
            Trained::Serve { model, notice } => {
                tracing::info!(model = model.id(), "training done, model replaced");
                if let Some(notice) = &notice {
                    tracing::warn!(model = model.id(), "{notice}");
                }
                state.replace_model(model, notice);
            }
            Trained::Refused { model, reason } => {
                tracing::warn!(model, "training done, model not served: {reason}");
                state.refuse_model(reason);
            }
        }
        Ok(())
    });
    run.await.map_err(|error| ApiError::Internal(error.into()))?.map_err(failed)?;
    Ok("Training done successfully!")
}

fn failed(failure: TrainFailure) -> ApiError {
    let TrainFailure { message, hint, source } = failure;
    ApiError::TrainingFailed { message, hint, source }
}
