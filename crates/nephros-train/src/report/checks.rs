//! The chapters that say how far the figures carry: leakage, controls and orientation.

use super::{
    html::{paragraph, section, table},
    model::Report,
    orientations::OrientationRow,
    sections::{NONE, figure, known, range},
};
use crate::{
    controls::{Control, ControlKind, Figures, Gap},
    split::Unit,
};

/// What a random split of the same images would have claimed.
pub(super) fn gap(report: &Report) -> String {
    let body = match &report.scores.gap {
        Some(gap) => gap_body(gap),
        None => paragraph(
            "It was not measured what a random split of the same images would have claimed: nephros evaluate --gap does.",
        ),
    };
    section("gap", "The leakage gap", &body)
}

fn gap_body(gap: &Gap) -> String {
    let kept = match gap.split_by {
        Unit::Patient => "By patient",
        Unit::Group => "By found group",
        Unit::Run => "By run of file numbers",
        Unit::Image => "By image",
    };
    let text = "The same training was repeated on a random split of the same images, with parts of the same sizes: \
                slices of one patient are then trained on and tested on. What the random split claims beyond the \
                other one is leakage, not skill. No figure elsewhere on this page comes from the random split.";
    let Gap { by_split, random_split, difference, .. } = gap;
    let row = |name: &str, value: fn(&Figures) -> Option<f64>, difference: Option<f64>| {
        let difference = difference.map_or("undefined".into(), |difference| format!("{difference:+.3}"));
        vec![name.to_owned(), known(value(by_split)), known(value(random_split)), difference]
    };
    let rows = [
        row("AUROC", |figures| figures.auroc, difference.auroc),
        row("Accuracy", |figures| Some(figures.accuracy), Some(difference.accuracy)),
        row("Sensitivity", |figures| Some(figures.sensitivity), Some(difference.sensitivity)),
        row("Specificity", |figures| Some(figures.specificity), Some(difference.specificity)),
    ];
    let caption = format!("The same recipe on {} test images", random_split.n);
    paragraph(text) + &table(&caption, &["Figure", kept, "Random split", "Difference"], &rows)
}

/// What models score that cannot know.
pub(super) fn controls(report: &Report) -> String {
    let controls = &report.scores.controls;
    let text = "A control is a question that a model which looks at kidneys cannot answer. By chance it scores AUROC \
                0.5; the range beside it is that of 95 % of answers of no worth on these patients, and it is wide \
                where they are few. A control above its range is a warning.";
    let row = |control: &Control| {
        let Control { figures, chance_auroc_95, warning, .. } = control;
        vec![
            description(control.control).to_owned(),
            known(figures.auroc),
            range(*chance_auroc_95),
            if warning.is_some() { "above chance" } else { "as by chance" }.to_owned(),
            figure(figures.accuracy),
            range(Some(figures.interval_95.accuracy)),
            figure(figures.majority_accuracy),
        ]
    };
    let mut rows: Vec<Vec<String>> = controls.iter().map(row).collect();
    let random = controls.iter().filter_map(|control| Some((control, control.random_split.as_ref()?)));
    rows.extend(random.map(|(control, figures)| {
        vec![
            format!("{}, on the random split", description(control.control)),
            known(figures.auroc),
            NONE.into(),
            NONE.into(),
            figure(figures.accuracy),
            range(Some(figures.interval_95.accuracy)),
            figure(figures.majority_accuracy),
        ]
    }));
    let trained = controls.iter().any(|control| control.control != ControlKind::NearestPixels);
    let missing = "The controls that take a training each (shuffled labels, border only, centre masked) were not run: \
                   nephros evaluate --controls does.";
    let columns =
        ["Control", "AUROC", "By chance (95 %)", "Result", "Accuracy", "95 % interval", "Larger class"];
    let body = [
        paragraph(text),
        table("Controls", &columns, &rows),
        if trained { String::new() } else { paragraph(missing) },
    ]
    .concat();
    section("controls", "Controls", &body)
}

fn description(kind: ControlKind) -> &'static str {
    match kind {
        ControlKind::NearestPixels => "Five nearest neighbours on 64×64 raw pixels",
        ControlKind::ShuffledLabels => "Trained on labels shuffled among patients",
        ControlKind::BorderOnly => "Border only: the whole body hidden",
        ControlKind::CentreMasked => "Centre masked: the middle 85 % of the body hidden",
    }
}

/// Figures by the plane of the slice.
pub(super) fn orientations(report: &Report) -> String {
    let rows = &report.orientations;
    let mut text = vec!["The plane of a slice changes what a kidney looks like."];
    if rows.iter().any(|row| row.told) {
        text.push("Planes marked CSV are those of the CSV that came with the data.");
    }
    if rows.iter().any(|row| !row.told) {
        text.push(
            "Planes marked outline are estimated, because the data does not name them: what is wider than high is \
             taken for axial, what is higher than wide for coronal.",
        );
    }
    if let [_] = rows.as_slice() {
        text.push("All test images are of one plane: nothing is known of others.");
    }
    let labels = report.scores.labels.iter().map(String::as_str);
    let columns: Vec<&str> = ["Plane", "From", "Images", "Known patients"]
        .into_iter()
        .chain(labels)
        .chain(["Accuracy", "AUROC", "Sensitivity", "Specificity"])
        .collect();
    let rows: Vec<Vec<String>> = rows.iter().map(row_of_plane).collect();
    let body = paragraph(&text.join(" ")) + &table("Test images by plane", &columns, &rows);
    section("orientation", "Orientation", &body)
}

fn row_of_plane(row: &OrientationRow) -> Vec<String> {
    let value = |value: Option<f64>| value.map_or(NONE.into(), figure);
    let name = [row.orientation.clone(), if row.told { "CSV" } else { "outline" }.to_owned()];
    let counts = [row.images, row.patients].into_iter().chain(row.images_of_label.iter().copied());
    let figures = [Some(row.accuracy), row.auroc, row.sensitivity, row.specificity].map(value);
    name.into_iter().chain(counts.map(|count| count.to_string())).chain(figures).collect()
}
