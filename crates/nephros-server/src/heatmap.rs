//! Heat maps: why a model answered as it did, drawn when somebody looks.
//!
//! A map costs some twenty forward passes, so it is drawn on request and not with every answer. For that the
//! image is kept, in memory only, where the client asked for it, for some minutes, and under an id that
//! nobody can guess.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use axum::{
    body::Bytes,
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use nephros_core::pixels;
use nephros_serving::Lane;

use crate::{
    error::{ApiError, Code},
    ids::{Id, new_id},
    state::AppState,
};

/// Images that heat maps can be drawn of.
#[derive(Debug)]
pub(crate) struct Heatmaps {
    bytes: usize,
    time: Duration,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    bytes: usize,
    /// The oldest first.
    images: VecDeque<KeptImage>,
}

#[derive(Debug)]
struct KeptImage {
    id: String,
    until: Instant,
    image: Bytes,
    /// The model that answered. It is not kept for the map's sake.
    lane: Weak<Lane>,
}

impl Heatmaps {
    pub(crate) fn new(bytes: usize, time: Duration) -> Self {
        Self { bytes, time, kept: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an image for a map by the model of `lane`; `None` where that draws none.
    pub(crate) fn keep(&self, lane: &Arc<Lane>, image: Bytes) -> Option<String> {
        if !lane.model().explains() || image.len() > self.bytes {
            return None;
        }
        let id = new_id().ok()?;
        let until = Instant::now() + self.time;
        let mut kept = self.kept();
        kept.bytes += image.len();
        kept.images.push_back(KeptImage { id: id.clone(), until, image, lane: Arc::downgrade(lane) });
        kept.forget(self.bytes);
        Some(id)
    }

    fn get(&self, id: &str) -> Option<(Bytes, Arc<Lane>)> {
        let mut kept = self.kept();
        kept.forget(self.bytes);
        let found = kept.images.iter().find(|image| image.id == id)?;
        Some((found.image.clone(), found.lane.upgrade()?))
    }
}

impl Kept {
    /// Drops what is too old or too much.
    fn forget(&mut self, most: usize) {
        let now = Instant::now();
        while self.images.front().is_some_and(|oldest| oldest.until <= now || self.bytes > most) {
            let gone = self.images.pop_front();
            self.bytes -= gone.map_or(0, |gone| gone.image.len());
        }
    }
}

/// The slice under the regions that its answer rests on, with the check of that map.
#[utoipa::path(
    get, path = "/api/v1/heatmaps/{id}", tag = "predictions",
    params(("id" = String, Path, description = "As the prediction gave it")),
    responses((status = 200, description = "The picture", body = crate::openapi::schema::File,
               content_type = "image/png")),
)]
pub(crate) async fn heatmap(State(state): State<AppState>, Id(id): Id) -> Result<Response, ApiError> {
    let gone = || ApiError::Missing(Code::NoSuchHeatmap);
    let (image, lane) = state.heatmaps().get(&id).ok_or_else(gone)?;
    // A place among the images that wait keeps maps from crowding out predictions.
    let place = lane.reserve(1)?;
    let max_pixels = state.limits().pixels;
    let work = tokio::task::spawn_blocking(move || {
        let _place = place;
        let image = pixels::decode_with_limits(&image, pixels::Limits { max_pixels })?;
        lane.model().explain(&image).transpose().map_err(ApiError::Internal)
    });
    let map = work.await.map_err(|error| ApiError::Internal(error.into()))??.ok_or_else(gone)?;
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("image/png"))], map).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(sizes: &[usize]) -> Kept {
        let image = |(number, &size): (usize, &usize)| KeptImage {
            id: number.to_string(),
            until: Instant::now() + Duration::from_mins(1),
            image: vec![0; size].into(),
            lane: Weak::new(),
        };
        Kept { bytes: sizes.iter().sum(), images: sizes.iter().enumerate().map(image).collect() }
    }

    #[test]
    fn the_oldest_go_first_and_no_more_than_must() {
        let mut images = kept(&[5, 4, 3]);
        images.forget(7);
        assert_eq!((images.bytes, images.images.len()), (7, 2));
        assert_eq!(images.images[0].id, "1");
        images.images[0].until = Instant::now();
        images.forget(7);
        assert_eq!((images.bytes, images.images.len()), (3, 1));
    }
}
