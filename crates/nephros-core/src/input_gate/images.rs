//! What is remembered of the images trained on.

use safetensors::{
    Dtype, SafeTensorError, SafeTensors,
    tensor::{TensorView, serialize},
};

use super::{
    orientation::{SIDE, Upright},
    similar::Cases,
};

/// Features and small pictures of some training images, and a hash of each.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingImages {
    /// Mean of each channel over the images.
    mean: Vec<f32>,
    /// Standard deviation of each channel, or a floor under it.
    deviation: Vec<f32>,
    /// `[images, channels]`, less the mean and over the deviation.
    features: Vec<f32>,
    /// Hashes and names.
    pub prints: Prints,
    /// What upright slices look like; empty in bundles that do not tell it.
    pub upright: Upright,
    /// Whose the images are; `None` in bundles that do not tell it.
    cases: Option<Cases>,
}

/// Perceptual hashes of all images trained on, and what they are called.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Prints {
    hashes: Vec<u64>,
    paths: Vec<String>,
}

impl Prints {
    /// Hashes with the paths of their images in the manifest; a line break in a path becomes a
    /// space.
    pub fn new(images: impl IntoIterator<Item = (u64, String)>) -> Self {
        let (hashes, paths) = images.into_iter().map(|(hash, path)| (hash, path.replace('\n', " "))).unzip();
        Self { hashes, paths }
    }

    /// Bits in which the nearest image differs, and its path.
    pub fn nearest(&self, hash: u64) -> Option<(u32, &str)> {
        self.nearest_of(hash, |_| true)
    }

    /// As [`Self::nearest`], among the images at the positions that `counts` lets through.
    pub fn nearest_of(&self, hash: u64, counts: impl Fn(usize) -> bool) -> Option<(u32, &str)> {
        let distances = self.hashes.iter().map(|other| (other ^ hash).count_ones());
        let named = distances.zip(self.paths.iter().map(String::as_str)).enumerate();
        let counted = named.filter(|&(index, _)| counts(index)).map(|(_, near)| near);
        counted.min_by_key(|&(bits, _)| bits)
    }
}

/// Mean over the map of each channel of `features`, which are in `(y, x, channel)` order.
pub fn pooled_features(features: &[f32], channels: usize) -> Vec<f32> {
    let mut sums = vec![0.0_f64; channels];
    for place in features.chunks_exact(channels.max(1)) {
        sums.iter_mut().zip(place).for_each(|(sum, &value)| *sum += f64::from(value));
    }
    let places = (features.len() / channels.max(1)).max(1) as f64;
    sums.into_iter().map(|sum| (sum / places) as f32).collect()
}

impl TrainingImages {
    /// Of pooled features `[images, channels]`.
    pub fn new(features: &[f32], channels: usize, prints: Prints) -> Self {
        let images: Vec<&[f32]> = features.chunks_exact(channels).collect();
        let mean_of = |value: &dyn Fn(&[f32]) -> f64| {
            images.iter().map(|image| value(image)).sum::<f64>() / images.len().max(1) as f64
        };
        let mean: Vec<f64> =
            (0..channels).map(|channel| mean_of(&|image| f64::from(image[channel]))).collect();
        let spread: Vec<f64> = (0..channels)
            .map(|channel| mean_of(&|image| (f64::from(image[channel]) - mean[channel]).powi(2)).sqrt())
            .collect();
        // A channel that hardly moves in training says little, and must not drown the others.
        let floor = (0.1 * spread.iter().sum::<f64>() / channels as f64).max(1e-6);
        let deviation: Vec<f32> = spread.iter().map(|&value| value.max(floor) as f32).collect();
        let mean: Vec<f32> = mean.iter().map(|&value| value as f32).collect();
        let features = images.iter().flat_map(|image| standardised(image, &mean, &deviation)).collect();
        Self { mean, deviation, features, prints, upright: Upright::default(), cases: None }
    }

    /// The same images with what upright slices look like.
    #[must_use]
    pub fn with_upright(self, upright: Upright) -> Self {
        Self { upright, ..self }
    }

    /// The same images with whose they are; `cases` that are of other images are left out.
    #[must_use]
    pub fn with_cases(self, cases: Cases) -> Self {
        let fit = cases.fit(self.prints.paths.len(), self.rows());
        Self { cases: fit.then_some(cases), ..self }
    }

    /// Whose the images are, where that is known.
    pub fn cases(&self) -> Option<&Cases> {
        self.cases.as_ref()
    }

    /// Images whose features are kept.
    fn rows(&self) -> usize {
        self.features.len() / self.channels().max(1)
    }

    /// Path and label of the nearest image of each of the `count` nearest patients, with the patient's
    /// number and the distance, the nearest first; none where it is not known whose the images are.
    pub fn similar(&self, pooled: &[f32], count: usize) -> Vec<(&str, u32, u32, f64)> {
        let Some(cases) = &self.cases else { return Vec::new() };
        let nearest = cases.nearest(&self.distances(pooled), count).into_iter();
        let named = |(image, distance): (usize, f64)| {
            (self.prints.paths[image].as_str(), cases.labels[image], cases.groups[image], distance)
        };
        nearest.map(named).collect()
    }

    /// Channels of the last feature map.
    pub fn channels(&self) -> usize {
        self.mean.len()
    }

    /// Distance from pooled features to the `neighbour`-th nearest image, or the farthest where there
    /// are fewer; infinite where there is none.
    pub fn distance(&self, pooled: &[f32], neighbour: usize) -> f64 {
        let mut distances = self.distances(pooled);
        distances.sort_by(f64::total_cmp);
        let position = neighbour.clamp(1, distances.len().max(1)) - 1;
        distances.get(position).copied().unwrap_or(f64::INFINITY)
    }

    /// Root mean square over channels of the distance from pooled features to each image.
    fn distances(&self, pooled: &[f32]) -> Vec<f64> {
        let point = standardised(pooled, &self.mean, &self.deviation);
        let squared =
            |image: &[f32]| image.iter().zip(&point).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
        let length = point.len().max(1);
        let images = self.features.chunks_exact(self.channels().max(1));
        images.map(|image| (squared(image) / length as f64).sqrt()).collect()
    }

    /// The bytes of a safetensors file: `mean` and `deviation` F32 `[channels]`, `features` F32
    /// `[rows, channels]`, `hashes` U8 `[images, 8]` in little endian, and `paths`, U8, a path a
    /// line. Where they are known, `labels` and `groups`, U32 `[images]`, `rows`, U32 `[rows]`, the
    /// image of each row of features, and `upright`, U8 `[pictures, 16, 16]`.
    ///
    /// # Errors
    /// What the writer says.
    pub fn to_bytes(&self) -> Result<Vec<u8>, SafeTensorError> {
        let floats =
            |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let channels = self.channels();
        let [mean, deviation, features] =
            [&self.mean, &self.deviation, &self.features].map(|values| floats(values));
        let hashes: Vec<u8> = self.prints.hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect();
        let paths = self.prints.paths.join("\n").into_bytes();
        let float = |shape: Vec<usize>, bytes| TensorView::new(Dtype::F32, shape, bytes);
        let mut tensors = vec![
            ("mean", float(vec![channels], &mean)?),
            ("deviation", float(vec![channels], &deviation)?),
            ("features", float(vec![self.rows(), channels], &features)?),
            ("hashes", TensorView::new(Dtype::U8, vec![self.prints.hashes.len(), 8], &hashes)?),
            ("paths", TensorView::new(Dtype::U8, vec![paths.len()], &paths)?),
        ];
        let pictures = self.upright.pictures().as_flattened();
        let shape = vec![pictures.len() / (SIDE * SIDE), SIDE, SIDE];
        tensors.push(("upright", TensorView::new(Dtype::U8, shape, pictures)?));
        let whole = |values: &[u32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let cases = self.cases.as_ref().map(|cases| {
            [("labels", &cases.labels), ("groups", &cases.groups), ("rows", &cases.rows)]
                .map(|(name, values)| (name, values.len(), whole(values)))
        });
        for (name, length, bytes) in cases.iter().flatten() {
            tensors.push((name, TensorView::new(Dtype::U32, vec![*length], bytes)?));
        }
        serialize(tensors, None)
    }

    /// Reads what [`Self::to_bytes`] writes, for a network with so many channels.
    ///
    /// # Errors
    /// What does not fit, in words.
    pub fn from_bytes(bytes: &[u8], channels: usize) -> Result<Self, String> {
        let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
        let mean = floats(&file, "mean")?;
        let deviation = floats(&file, "deviation")?;
        let features = floats(&file, "features")?;
        let fits =
            mean.len() == channels && deviation.len() == channels && features.len() % channels.max(1) == 0;
        if !fits || deviation.iter().any(|&value| value <= 0.0) {
            let got = [mean.len(), deviation.len(), features.len()];
            return Err(format!("expected features of {channels} channels, got arrays of {got:?} values"));
        }
        let hashes =
            bytes_of(&file, "hashes")?.as_chunks::<8>().0.iter().map(|&bytes| u64::from_le_bytes(bytes));
        let paths = std::str::from_utf8(bytes_of(&file, "paths")?).map_err(|error| error.to_string())?;
        let prints = Prints { hashes: hashes.collect(), paths: paths.lines().map(str::to_owned).collect() };
        if prints.hashes.len() != prints.paths.len() {
            let (hashes, paths) = (prints.hashes.len(), prints.paths.len());
            return Err(format!("expected a path for each of {hashes} hashes, got {paths}"));
        }
        let images = Self { mean, deviation, features, prints, upright: upright(&file)?, cases: None };
        let Some(cases) = cases(&file)? else { return Ok(images) };
        let (count, rows) = (images.prints.paths.len(), images.rows());
        if !cases.fit(count, rows) {
            let got = [cases.labels.len(), cases.groups.len(), cases.rows.len()];
            return Err(format!(
                "expected labels and groups of {count} images and images of {rows} rows, got {got:?}"
            ));
        }
        Ok(Self { cases: Some(cases), ..images })
    }
}

/// None in a file of an earlier version.
fn upright(file: &SafeTensors) -> Result<Upright, String> {
    let Ok(tensor) = file.tensor("upright") else { return Ok(Upright::default()) };
    match tensor.data().as_chunks::<{ SIDE * SIDE }>() {
        (pictures, []) => Ok(Upright::new(pictures.to_vec())),
        (_, rest) => Err(format!("expected pictures of {SIDE}x{SIDE} in `upright`, got {} more", rest.len())),
    }
}

/// None in a file of an earlier version.
fn cases(file: &SafeTensors) -> Result<Option<Cases>, String> {
    if file.tensor("labels").is_err() {
        return Ok(None);
    }
    let [labels, groups, rows] = ["labels", "groups", "rows"].map(|name| whole(file, name));
    Ok(Some(Cases { labels: labels?, groups: groups?, rows: rows? }))
}

fn whole(file: &SafeTensors, name: &str) -> Result<Vec<u32>, String> {
    let tensor = file.tensor(name).map_err(|error| error.to_string())?;
    if tensor.dtype() != Dtype::U32 {
        return Err(format!("expected `{name}` as U32, got {}", tensor.dtype()));
    }
    Ok(tensor.data().as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect())
}

fn standardised(pooled: &[f32], mean: &[f32], deviation: &[f32]) -> Vec<f32> {
    let moments = mean.iter().zip(deviation);
    pooled.iter().zip(moments).map(|(value, (mean, deviation))| (value - mean) / deviation).collect()
}

fn bytes_of<'a>(file: &SafeTensors<'a>, name: &str) -> Result<&'a [u8], String> {
    let tensor = file.tensor(name).map_err(|error| error.to_string())?;
    Ok(tensor.data())
}

fn floats(file: &SafeTensors, name: &str) -> Result<Vec<f32>, String> {
    let tensor = file.tensor(name).map_err(|error| error.to_string())?;
    if tensor.dtype() != Dtype::F32 {
        return Err(format!("expected `{name}` as F32, got {}", tensor.dtype()));
    }
    let values: Vec<f32> =
        tensor.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    let finite = values.iter().all(|value| value.is_finite());
    if finite { Ok(values) } else { Err(format!("expected finite values in `{name}`")) }
}
