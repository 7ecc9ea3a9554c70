//! `POST /predict` and `POST /api/v1/predictions`.

use std::time::Instant;

use axum::{
    Json,
    body::Body,
    extract::{RawQuery, State},
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use nephros_core::{
    input_gate::{Reason, Similar, refusal},
    pixels,
};
use serde::{Serialize, Serializer};

use crate::{
    body::{self, Form},
    error::ApiError,
    state::{AppState, Classified, Classifier},
};

/// What the page shows.
#[derive(Debug, Serialize)]
pub(crate) struct Answer {
    label: String,
    probability: f32,
    /// By label, in the model's order.
    #[serde(serialize_with = "as_object")]
    probabilities: Vec<(String, f32)>,
    model: String,
    /// Why a radiologist has to look; absent where the label stands alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    refer: Option<String>,
    /// What the input gate says, with the codes; a refusal is the text of `refer`, too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<Reason>,
    /// The nearest training slices; absent where they were not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    similar: Option<Vec<Similar>>,
    /// From the whole body to the answer, waiting for a free core included.
    milliseconds: f64,
}

fn as_object<S: Serializer>(pairs: &[(String, f32)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(label, probability)| (label, probability)))
}

/// The contract of the reference: `[{"image": "Normal"}]`, byte for byte.
pub(crate) async fn predict(
    State(state): State<AppState>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let form = body::form(&headers)
        .filter(|form| *form == Form::Json)
        .ok_or_else(|| body::unsupported(&headers, "`application/json`"))?;
    let answer = answer(&state, form, body, 0).await?;
    let label = serde_json::Value::from(answer.label);
    let text = format!("[{{\"image\": {label}}}]");
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

/// The same prediction with its probabilities, and with the nearest training slices of as many
/// patients as `?similar=` says.
pub(crate) async fn predictions(
    State(state): State<AppState>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Answer>, ApiError> {
    let similar = similar(query.as_deref().unwrap_or_default())?;
    let form = body::form(&headers).ok_or_else(|| {
        body::unsupported(&headers, "`image/*`, `application/octet-stream` or `application/json`")
    })?;
    answer(&state, form, body, similar).await.map(Json)
}

/// Most patients of whom a similar slice is named.
const MOST_SIMILAR: usize = 20;

/// The number after `similar=`; 0 without one. Other parameters are not looked at.
fn similar(query: &str) -> Result<usize, ApiError> {
    let Some(value) = query.split('&').find_map(|pair| pair.strip_prefix("similar=")) else { return Ok(0) };
    let number = value.parse().ok().filter(|&number: &usize| number <= MOST_SIMILAR);
    number.ok_or_else(|| {
        // A value as long as the address may be says no more than its beginning.
        let got = value.chars().take(40).collect();
        ApiError::InvalidQuery { most: MOST_SIMILAR, got }
    })
}

async fn answer(state: &AppState, form: Form, body: Body, similar: usize) -> Result<Answer, ApiError> {
    let model = state.model().ok_or(ApiError::NoModel)?;
    let _place = state.admission().try_acquire_owned().map_err(|_| ApiError::Overloaded)?;
    let limits = *state.limits();
    let body = body::read(body, &limits).await?;
    let start = Instant::now();
    let core = state.compute().acquire_owned().await.map_err(|error| ApiError::Internal(error.into()))?;
    let work = tokio::task::spawn_blocking(move || {
        // Held by the work, not by the handler: a client that goes away frees no core that is still busy.
        let _core = core;
        classify(model.as_ref(), form, body, limits.pixels, similar)
    });
    let mut answer = work.await.map_err(|error| ApiError::Internal(error.into()))??;
    answer.milliseconds = (start.elapsed().as_secs_f64() * 1e6).round() / 1e3;
    Ok(answer)
}

fn classify(
    model: &dyn Classifier,
    form: Form,
    body: Vec<u8>,
    max_pixels: usize,
    similar: usize,
) -> Result<Answer, ApiError> {
    let bytes = body::image_bytes(form, body)?;
    let image = pixels::decode_with_limits(&bytes, pixels::Limits { max_pixels })?;
    drop(bytes);
    let asked = similar > 0;
    let Classified { probabilities, reasons, similar } =
        model.classify_gated(&image, similar).map_err(ApiError::Internal)?;
    let (top, probability) = highest(&probabilities)
        .filter(|_| probabilities.len() == model.labels().len())
        .ok_or_else(|| ApiError::Internal("the model gave no probability for each of its labels".into()))?;
    let refusal = refusal(&reasons).map(ToString::to_string);
    let named = model.labels().iter().zip(&probabilities);
    Ok(Answer {
        label: model.labels()[top].clone(),
        probability,
        probabilities: named.map(|(label, &value)| (label.clone(), value)).collect(),
        model: model.id().to_owned(),
        refer: refusal.or_else(|| model.refer(&probabilities)),
        reasons,
        similar: asked.then_some(similar),
        milliseconds: 0.0,
    })
}

/// The first of the highest values; `None` when there is none or one is not finite.
fn highest(values: &[f32]) -> Option<(usize, f32)> {
    let mut best: Option<(usize, f32)> = None;
    for (index, &value) in values.iter().enumerate() {
        if !value.is_finite() {
            return None;
        }
        if best.is_none_or(|(_, highest)| value > highest) {
            best = Some((index, value));
        }
    }
    best
}
