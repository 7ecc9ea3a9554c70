//! What was predicted, and what readers say about it; kept by a ledger.

use std::time::Instant;

use axum::{
    Json,
    body::Body,
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode},
};

use serde::de::Error as _;

use crate::{
    body,
    error::{ApiError, Code},
    ids::Id,
    ledger::{Feedback, HistoryEntry, HistoryPage, LedgerError, Verdict},
    query::Query,
    state::AppState,
};

/// Entries of a page, at most.
const LONGEST_PAGE: usize = 1000;
/// Entries of a page where nobody says otherwise.
const PAGE: usize = 100;
/// Longest comment, in characters; the schema says so too.
const LONGEST_COMMENT: usize = 2000;
const LONGEST_LABEL: usize = 200;
const LONGEST_READER: usize = 200;

impl From<LedgerError> for ApiError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Unavailable(source) => Self::StoreUnavailable(Some(source)),
            LedgerError::NoSuchReceipt => Self::Missing(Code::NoSuchReceipt),
        }
    }
}

/// Predictions that were recorded, the newest first.
#[utoipa::path(
    get, path = "/api/v1/history", tag = "history",
    params(
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 1000, description = "Entries, at most"),
        ("before" = Option<String>, Query, description = "Receipt before which they were made"),
    ),
    responses((status = 200, description = "The predictions", body = Vec<HistoryEntry>)),
)]
pub(crate) async fn history(
    State(state): State<AppState>,
    RawQuery(query): RawQuery,
) -> Result<Json<Vec<HistoryEntry>>, ApiError> {
    let query = Query::new(query.as_deref());
    let limit = query.number("limit", [1, LONGEST_PAGE], PAGE)?;
    let ledger = state.ledger().ok_or(ApiError::Missing(Code::NoHistory))?;
    let page = HistoryPage { limit, before: query.get("before").map(str::to_owned) };
    Ok(Json(ledger.history(&page).await?))
}

/// Stores what a reader says about a prediction.
#[utoipa::path(
    post, path = "/api/v1/history/{receipt}/feedback", tag = "history", request_body = Feedback,
    params(("receipt" = String, Path, description = "As the prediction gave it")),
    responses((status = 204, description = "It is stored")),
)]
pub(crate) async fn feedback(
    State(state): State<AppState>,
    Id(receipt): Id,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let feedback: Feedback = body::json(&headers, body, &state).await?;
    check(&feedback)?;
    let ledger = state.ledger().ok_or(ApiError::Missing(Code::NoHistory))?;
    state.recording().check_known()?;
    let begun = Instant::now();
    let stored = ledger.feedback(&receipt, &feedback).await;
    state.recording().note(ledger, begun, &stored);
    stored?;
    Ok(StatusCode::NO_CONTENT)
}

/// A correction says to what, and nothing is longer than the schema says.
fn check(feedback: &Feedback) -> Result<(), ApiError> {
    let refuse = |text: &str| Err(ApiError::InvalidField(serde_json::Error::custom(text)));
    let longer = |text: &Option<String>, most| text.as_ref().is_some_and(|text| text.chars().count() > most);
    if feedback.verdict == Verdict::Corrects && feedback.label.is_none() {
        return refuse("`corrects` needs a `label`");
    }
    if feedback.verdict != Verdict::Corrects && feedback.label.is_some() {
        return refuse("`label` is for `corrects` only");
    }
    if [&feedback.label, &feedback.comment]
        .iter()
        .any(|text| text.as_ref().is_some_and(|text| text.contains('\0')))
    {
        return refuse("`label` or `comment` has a zero byte");
    }
    if feedback.reader.as_ref().is_some_and(|reader| reader.trim().is_empty()) {
        return refuse("`reader` is blank");
    }
    if feedback.reader.as_ref().is_some_and(|reader| reader.contains(char::is_control)) {
        return refuse("`reader` has a control character");
    }
    if longer(&feedback.reader, LONGEST_READER) {
        return refuse("`reader` is too long");
    }
    if longer(&feedback.label, LONGEST_LABEL) || longer(&feedback.comment, LONGEST_COMMENT) {
        return refuse("`label` or `comment` is too long");
    }
    Ok(())
}
