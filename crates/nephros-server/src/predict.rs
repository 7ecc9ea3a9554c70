//! `POST /predict` and `POST /api/v1/predictions`.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use axum::{
    Extension, Json,
    body::{Body, Bytes},
    extract::{RawQuery, State},
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use nephros_core::{
    input_gate::{Reason, Similar, refusal},
    patient,
};
use nephros_serving::{Answered, Ask, Classified, Classifier, Lane, Place, Timings};
use serde::{Serialize, Serializer};
use tokio::task::JoinSet;
use utoipa::ToSchema;

use crate::{
    body::{self, Form, Images},
    error::{ApiError, ErrorDetail},
    ledger::{LedgerError, PredictionRecord},
    observe::RequestId,
    openapi::schema,
    query::Query,
    state::AppState,
    trace::RequestSpan,
};

/// What a model says about one image.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Prediction)]
pub(crate) struct Answer {
    /// The most probable class.
    label: String,
    /// Its probability, calibrated where the model is.
    #[schema(minimum = 0, maximum = 1)]
    probability: f32,
    /// By label, in the model's order.
    #[serde(serialize_with = "as_object")]
    #[schema(value_type = std::collections::BTreeMap<String, f32>)]
    probabilities: Vec<(String, f32)>,
    /// What the model is called.
    model: String,
    /// Why a radiologist has to look; absent where the label stands alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    refer: Option<String>,
    /// The calibrated probability of the label, or `refer`; absent where the model is not calibrated and
    /// refers to nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<schema::Confidence>)]
    confidence: Option<Confidence>,
    /// What the input gate says, with the codes; a refusal is the text of `refer`, too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false, value_type = Vec<schema::Reason>)]
    reasons: Vec<Reason>,
    /// The nearest training slices; absent where they were not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<Vec<schema::Similar>>)]
    similar: Option<Vec<Similar>>,
    /// Address of the heat map, for some minutes; absent where none was asked for or the model draws none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    heatmap: Option<String>,
    /// Name of the record that was stored of this prediction; absent where this server stores none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    receipt: Option<String>,
    /// Where the time went.
    timings: TimingsMs,
    /// From the whole body to the answer, waiting included.
    milliseconds: f64,
}

impl Answer {
    /// As the columns of a table: label, probability, those of all labels, refer, codes of the reasons, model,
    /// receipt, and no error.
    pub(crate) fn columns(&self) -> Vec<String> {
        let mut columns = vec![self.label.clone(), self.probability.to_string()];
        columns.extend(self.probabilities.iter().map(|(_, probability)| probability.to_string()));
        let codes: Vec<&str> = self.reasons.iter().map(|reason| reason.code.name()).collect();
        let [refer, receipt] = [&self.refer, &self.receipt].map(|text| text.clone().unwrap_or_default());
        columns.extend([refer, codes.join(" "), self.model.clone(), receipt, String::new()]);
        columns
    }
}

/// How sure the label is.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Confidence {
    Calibrated(f32),
    Refer(&'static str),
}

/// Where the time of an answer went, in milliseconds.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Timings)]
struct TimingsMs {
    /// Decoding and preparing, with the wait for a free core.
    prepare_ms: f64,
    /// Waiting for the network.
    queue_ms: f64,
    /// The forward pass of the whole batch.
    compute_ms: f64,
    /// Images of the batch.
    batch: usize,
}

impl From<Timings> for TimingsMs {
    fn from(Timings { prepare, queue, compute, batch }: Timings) -> Self {
        let ms = |time: std::time::Duration| thousandths(time.as_secs_f64() * 1e3);
        Self { prepare_ms: ms(prepare), queue_ms: ms(queue), compute_ms: ms(compute), batch }
    }
}

/// Answers for the images of one request, in its order.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Predictions)]
pub(crate) struct Answers {
    predictions: Vec<OneOfMany>,
    /// One answer from all of them; absent where it was not asked for, null where none of them gets a label.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<PatientAnswer>)]
    patient: Option<Together>,
    /// From the whole body to the last answer.
    milliseconds: f64,
}

/// What came of one image of several.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum OneOfMany {
    /// An answer.
    Answer(Box<Answer>),
    /// Why there is none, as for an image that is sent alone.
    Error {
        /// The error.
        error: ErrorDetail,
    },
}

/// What a model says about a patient, from all images of one request that get a label.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PatientPrediction)]
pub(crate) struct PatientAnswer {
    /// The most probable class.
    label: String,
    /// Its probability: the mean over the images, corrected where the model knows how.
    #[schema(minimum = 0, maximum = 1)]
    probability: f32,
    /// By label, in the model's order.
    #[serde(serialize_with = "as_object")]
    #[schema(value_type = std::collections::BTreeMap<String, f32>)]
    probabilities: Vec<(String, f32)>,
    /// What the model is called.
    model: String,
    /// Images that the answer is from.
    images: usize,
    /// Images that get no label, or cannot be used.
    left_out: usize,
    /// Why a radiologist has to look; absent where the label stands alone, or the model knows no error rate for
    /// patients.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    refer: Option<String>,
}

/// What all images of a request come to.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Together {
    Answer(PatientAnswer),
    /// Null: none of them gets a label.
    Nothing(()),
}

impl PatientAnswer {
    /// `None` where none of the images gets a label.
    fn of(model: &dyn Classifier, images: &[OneOfMany]) -> Option<Self> {
        let counted = images.iter().filter_map(|image| match image {
            OneOfMany::Answer(answer) if refusal(&answer.reasons).is_none() => Some(answer),
            _ => None,
        });
        let probabilities: Vec<Vec<f32>> =
            counted.map(|answer| answer.probabilities.iter().map(|(_, value)| *value).collect()).collect();
        let counted: Vec<&[f32]> = probabilities.iter().map(Vec::as_slice).collect();
        let patient::PatientAnswer { prediction, answer } = model.patient(&counted)?;
        let (top, labels) = (prediction.top(), model.labels());
        Some(Self {
            label: labels[top].clone(),
            probability: prediction.probabilities[top],
            probabilities: labels.iter().cloned().zip(prediction.probabilities).collect(),
            model: model.id().to_owned(),
            images: counted.len(),
            left_out: images.len() - counted.len(),
            refer: answer.and_then(|answer| answer.reason),
        })
    }
}

fn as_object<S: Serializer>(pairs: &[(String, f32)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(label, probability)| (label, probability)))
}

fn thousandths(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// The contract of the reference: `[{"image": "Normal"}]`, byte for byte.
#[utoipa::path(
    post, path = "/predict", tag = "reference",
    request_body(content = inline(schema::ReferenceImage), content_type = "application/json"),
    responses((status = 200, description = "`[{\"image\": \"Normal\"}]`", body = Vec<schema::ReferenceLabel>)),
)]
pub(crate) async fn predict(
    State(state): State<AppState>,
    Extension(id): Extension<RequestId>,
    span: Option<Extension<RequestSpan>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let form = body::form(&headers).filter(|form| *form == Form::Json);
    form.ok_or_else(|| body::unsupported(&headers, "`application/json`"))?;
    let span = span.map(|Extension(span)| span);
    let desk = Desk { span, ..Desk::open(&state, id, Wishes::default())? };
    let body = body::read(&headers, body, &state).await?;
    let (image, _share) = body::image_in_json(body, state.limits()).await?;
    let answer = desk.one(image).await?;
    let label = serde_json::Value::from(answer.label);
    let text = format!("[{{\"image\": {label}}}]");
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

/// Most patients of whom a similar slice is named.
pub(crate) const MOST_SIMILAR: usize = 20;

/// Predictions with all that is known about them.
///
/// One image, as the body or as `image` in JSON, gives one prediction. Several, as `images` in JSON or as
/// files of a form, give a list in their order; there an image that cannot be used has its error in its place.
/// With `patient=true` several images are also answered for together, as slices of one patient.
#[utoipa::path(
    post, path = "/api/v1/predictions", tag = "predictions",
    params(
        ("similar" = Option<usize>, Query, minimum = 0, maximum = 20,
         description = "Patients of whom the nearest training slice is named"),
        ("heatmap" = Option<bool>, Query,
         description = "Keep the image in memory for some minutes, so that its heat map can be fetched"),
        ("patient" = Option<bool>, Query,
         description = "Several images, as `images` or as files of a form, are of one patient: answer for all of \
                        them together, too. A single image that is no list gets no such answer"),
        ("x-nephros-subject" = Option<String>, Header, min_length = 1, max_length = 200,
         description = "Whose images they are: a pseudonym, by which what is recorded can be erased or exported"),
    ),
    request_body(
        content(
            (schema::Images = "application/json"),
            (schema::File = "application/octet-stream"),
            (schema::File = "image/*"),
            (schema::Form = "multipart/form-data"),
        ),
    ),
    responses((status = 200, description = "What the model says", body = schema::OneOrMany)),
)]
pub(crate) async fn predictions(
    State(state): State<AppState>,
    Extension(id): Extension<RequestId>,
    span: Option<Extension<RequestSpan>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let query = Query::new(query.as_deref());
    let similar = query.number("similar", [0, MOST_SIMILAR], 0)?;
    let wishes = Wishes { similar, heatmap: query.flag("heatmap")? };
    let patient = query.flag("patient")?;
    let subject = subject(&headers)?;
    let form = body::form(&headers).ok_or_else(|| {
        let expected =
            "`image/*`, `application/octet-stream`, `application/json` or `multipart/form-data` with a boundary";
        body::unsupported(&headers, expected)
    })?;
    let span = span.map(|Extension(span)| span);
    let desk = Desk { subject, span, ..Desk::open(&state, id, wishes)? };
    let body = body::read(&headers, body, &state).await?;
    let begun = Instant::now();
    let (images, _share) = body::images(form, body, state.limits()).await?;
    match images {
        Images::One(image) => Ok(Json(desk.one(image).await?).into_response()),
        Images::Many(images) => {
            let predictions = desk.many(images).await?;
            let patient = patient.then(|| {
                let answer = PatientAnswer::of(desk.model(), &predictions);
                answer.map_or(Together::Nothing(()), Together::Answer)
            });
            let milliseconds = thousandths(begun.elapsed().as_secs_f64() * 1e3);
            Ok(Json(Answers { predictions, patient, milliseconds }).into_response())
        }
    }
}

/// Header that says whose image it is.
const SUBJECT: &str = "x-nephros-subject";
/// Longest subject, in bytes.
const LONGEST_SUBJECT: usize = 200;

/// Whose images a request brings. It stands in a header, because proxies log addresses.
fn subject(headers: &HeaderMap) -> Result<Option<Arc<str>>, ApiError> {
    let Some(value) = headers.get(SUBJECT) else { return Ok(None) };
    let text = value.to_str().ok().filter(|text| (1..=LONGEST_SUBJECT).contains(&text.len()));
    let expected = "1 to 200 visible ASCII characters";
    text.map(|text| Some(text.into())).ok_or(ApiError::InvalidHeader { name: SUBJECT, expected })
}

/// What is asked for beside the label.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wishes {
    pub(crate) similar: usize,
    pub(crate) heatmap: bool,
}

/// Where one request is answered, by the model that was current when it came.
#[derive(Clone)]
pub(crate) struct Desk {
    state: AppState,
    lane: Arc<Lane>,
    id: RequestId,
    wishes: Wishes,
    subject: Option<Arc<str>>,
    /// Where spans are made.
    span: Option<RequestSpan>,
    /// Given back when the request ends; a batch is none that is limited by it.
    _place: Option<Arc<tokio::sync::OwnedSemaphorePermit>>,
}

impl Desk {
    fn open(state: &AppState, id: RequestId, wishes: Wishes) -> Result<Self, ApiError> {
        let lane = state.lane().ok_or(ApiError::NoModel)?;
        let place = state.admission().try_acquire_owned().map_err(|_| {
            let waiting = lane.taken().max(1) as f64;
            let retry_after = std::time::Duration::from_secs_f64(waiting * lane.seconds_an_image());
            ApiError::Overloaded { retry_after }
        })?;
        let place = Some(Arc::new(place));
        Ok(Self { state: state.clone(), lane, id, wishes, subject: None, span: None, _place: place })
    }

    /// Where a batch is answered: as many requests as it takes, by the model that is current at its begin.
    ///
    /// # Errors
    /// [`ApiError::NoModel`].
    pub(crate) fn of_batch(state: &AppState, id: RequestId) -> Result<Self, ApiError> {
        let lane = state.lane().ok_or(ApiError::NoModel)?;
        let wishes = Wishes::default();
        Ok(Self { state: state.clone(), lane, id, wishes, subject: None, span: None, _place: None })
    }

    pub(crate) fn model(&self) -> &dyn Classifier {
        self.lane.model().as_ref()
    }

    pub(crate) async fn one(&self, image: Bytes) -> Result<Answer, ApiError> {
        let place = self.lane.reserve(1)?.pop();
        let place = place.ok_or_else(|| ApiError::Internal("a place was given and is not there".into()))?;
        self.answer(place, image).await
    }

    /// All of them, or an error that has nothing to do with a single image.
    async fn many(
        &self,
        images: Vec<Result<Bytes, base64::DecodeError>>,
    ) -> Result<Vec<OneOfMany>, ApiError> {
        let places = self.lane.reserve(images.len())?;
        let mut work = JoinSet::new();
        for (index, (image, place)) in images.into_iter().zip(places).enumerate() {
            let desk = self.clone();
            // Dropping the set, as a client that leaves does, gives up what has not begun.
            work.spawn(async move {
                let answer = match image {
                    Ok(image) => desk.answer(place, image).await,
                    Err(error) => Err(ApiError::InvalidBase64(error)),
                };
                (index, answer)
            });
        }
        let mut answers = Vec::new();
        while let Some(finished) = work.join_next().await {
            let (index, answer) = finished.map_err(|error| ApiError::Internal(error.into()))?;
            let answer = match answer {
                Ok(answer) => OneOfMany::Answer(Box::new(answer)),
                Err(error) if is_of_the_image(&error) => OneOfMany::Error { error: error.detail() },
                Err(error) => return Err(error),
            };
            answers.push((index, answer));
        }
        answers.sort_by_key(|(index, _)| *index);
        Ok(answers.into_iter().map(|(_, answer)| answer).collect())
    }

    async fn answer(&self, place: Place, image: Bytes) -> Result<Answer, ApiError> {
        // One that could not be recorded is not made.
        self.state.recording().check_known()?;
        let (begun, began) = (Instant::now(), SystemTime::now());
        let ask = Ask { image: image.clone(), similar: self.wishes.similar };
        let answered = self.lane.answer(place, ask).await?;
        self.state.metrics().predicted(&self.lane, &answered);
        if let Some(span) = &self.span {
            span.answered(began, answered.timings, self.lane.model().id());
        }
        let read = Read::of(&self.lane, &answered.classified);
        let receipt = self.record(&answered, &read, &image).await?;
        let heatmap = self.wishes.heatmap.then(|| self.state.heatmaps().keep(&self.lane, image)).flatten();
        let mut answer = finish(&self.lane, answered, read, self.wishes);
        answer.receipt = receipt;
        answer.heatmap = heatmap.map(|id| format!("/api/v1/heatmaps/{id}"));
        answer.milliseconds = thousandths(begun.elapsed().as_secs_f64() * 1e3);
        Ok(answer)
    }

    /// Stores the prediction where predictions are stored. One that is not stored is not sent.
    async fn record(
        &self,
        answered: &Answered,
        read: &Read,
        image: &Bytes,
    ) -> Result<Option<String>, ApiError> {
        let Some(ledger) = self.state.ledger() else { return Ok(None) };
        let model = self.lane.model();
        let record = PredictionRecord {
            time: SystemTime::now(),
            request: self.id.to_string(),
            subject: self.subject.as_deref().map(str::to_owned),
            image_sha256: answered.sha256.clone(),
            image: image.clone(),
            model: model.id().to_owned(),
            provenance: model.provenance(),
            labels: model.labels().to_vec(),
            probabilities: answered.classified.probabilities.clone(),
            top: answered.top,
            refer: read.refer.clone(),
            reasons: answered.classified.reasons.clone(),
        };
        // It may be known by now.
        self.state.recording().check_known()?;
        let begun = Instant::now();
        let recorded = ledger.record(&record).await;
        self.state.recording().note(ledger, begun, &recorded);
        if let Some(span) = &self.span {
            span.recorded(record.time, begun.elapsed(), recorded.is_ok());
        }
        match recorded {
            Ok(receipt) => Ok(Some(receipt)),
            Err(LedgerError::Unavailable(source)) => Err(ApiError::StoreUnavailable(Some(source))),
            Err(error @ LedgerError::NoSuchReceipt) => Err(ApiError::Internal(error.into())),
        }
    }
}

/// Whether an error is about the image alone, so that the others of its request are answered.
fn is_of_the_image(error: &ApiError) -> bool {
    matches!(error, ApiError::InvalidBase64(_) | ApiError::Image(_))
}

/// How probabilities are to be read.
pub(crate) struct Read {
    pub(crate) refer: Option<String>,
    calibrated: bool,
}

impl Read {
    pub(crate) fn of(lane: &Lane, classified: &Classified) -> Self {
        let refusal = refusal(&classified.reasons).map(ToString::to_string);
        let refer = refusal.or_else(|| lane.model().refer(&classified.probabilities));
        Self { refer, calibrated: lane.model().calibrated() }
    }
}

fn finish(lane: &Lane, answered: Answered, read: Read, wishes: Wishes) -> Answer {
    let Answered { classified: Classified { probabilities, reasons, similar }, top, timings, .. } = answered;
    let model = lane.model();
    let probability = probabilities[top];
    let confidence = match (&read.refer, read.calibrated) {
        (Some(_), _) => Some(Confidence::Refer("refer")),
        (None, true) => Some(Confidence::Calibrated(probability)),
        (None, false) => None,
    };
    Answer {
        label: model.labels()[top].clone(),
        probability,
        probabilities: model.labels().iter().cloned().zip(probabilities).collect(),
        model: model.id().to_owned(),
        refer: read.refer,
        confidence,
        reasons,
        similar: (wishes.similar > 0).then_some(similar),
        heatmap: None,
        receipt: None,
        timings: timings.into(),
        milliseconds: 0.0,
    }
}
