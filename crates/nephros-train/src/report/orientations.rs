//! Figures by the plane of the slice.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{evaluate::metrics::Predictions, manifest::Record, orientation::Plane};

/// Test images of one plane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OrientationRow {
    /// `axial`, `coronal` or what the CSV says; `unknown` where nothing tells.
    pub orientation: String,
    /// Whether the CSV of patients says it; it is estimated from the outline otherwise.
    pub told: bool,
    /// Images.
    pub images: usize,
    /// Known patients.
    pub patients: usize,
    /// Images of each class, in label order.
    pub images_of_label: Vec<usize>,
    /// Share of images called rightly.
    pub accuracy: f64,
    /// `None` where a class is absent.
    pub auroc: Option<f64>,
    /// `None` where a class that it is about is absent.
    pub sensitivity: Option<f64>,
    /// As `sensitivity`.
    pub specificity: Option<f64>,
}

/// Rows by name, those told before those estimated.
pub(super) fn orientations(
    members: &[(&Record, usize)],
    planes: &[Option<Plane>],
    predictions: &Predictions,
    classes: usize,
) -> Vec<OrientationRow> {
    let name = |(record, _): &(&Record, usize), plane: &Option<Plane>| match record.orientation.as_str() {
        "" => (true, plane.map_or("unknown".to_owned(), |plane| plane.to_string())),
        told => (false, told.to_owned()),
    };
    let mut positions: BTreeMap<(bool, String), Vec<usize>> = BTreeMap::new();
    for (position, (member, plane)) in members.iter().zip(planes).enumerate() {
        positions.entry(name(member, plane)).or_default().push(position);
    }
    let row = |((estimated, orientation), positions): ((bool, String), Vec<usize>)| {
        let records = positions.iter().map(|&position| members[position].0);
        let patients: BTreeSet<&str> = records.map(|record| record.patient.as_str()).collect();
        let own = predictions.select(positions.iter().copied());
        let metrics = own.metrics(classes);
        let of_label = |label| own.labels.iter().filter(|&&of| of == label).count();
        let images_of_label: Vec<usize> = (0..classes).map(of_label).collect();
        // Of two classes the sensitivity is of the second, the specificity of the first.
        let has = |label: usize| match classes {
            2 => images_of_label[label] > 0,
            _ => images_of_label.iter().all(|&images| images > 0),
        };
        OrientationRow {
            orientation,
            told: !estimated,
            images: own.len(),
            patients: patients.iter().filter(|patient| !patient.is_empty()).count(),
            accuracy: metrics.accuracy,
            auroc: metrics.auroc,
            sensitivity: has(1).then_some(metrics.sensitivity),
            specificity: has(0).then_some(metrics.specificity),
            images_of_label,
        }
    };
    positions.into_iter().map(row).collect()
}
