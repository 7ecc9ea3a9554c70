//! The chapters of the page.

use nephros_core::{bundle::Finding, input_gate::FalseAlarms};

use super::{
    curves::ClassCurves,
    html::{paragraph, section, table},
    model::Report,
    svg::escape,
    thumbnails::{HeatPicture, Thumbnail},
};
use crate::{
    evaluate::{AbstentionScores, PatientScores, Scores, interval::Interval, metrics::Metrics},
    split::{Subset, Unit},
};

/// Rows of the table of patients; the JSON has all.
const MOST_ROWS: usize = 200;
/// Stands where there is no value.
pub(super) const NONE: &str = "–";

pub(super) fn figure(value: f64) -> String {
    format!("{value:.3}")
}

pub(super) fn known(value: Option<f64>) -> String {
    value.map_or("undefined".into(), figure)
}

pub(super) fn range(interval: Option<Interval>) -> String {
    interval.map_or(NONE.into(), |[low, high]| format!("{low:.3} to {high:.3}"))
}

/// `104 images of 52 patients`.
fn tested(scores: &Scores) -> String {
    match scores.n_patients {
        Some(patients) => format!("{} test images of {patients} patients", scores.n),
        None => format!("{} test images, patients unknown", scores.n),
    }
}

/// What the intervals are drawn over.
fn resampled(report: &Report) -> &'static str {
    match (report.scores.n_patients, report.split.unit) {
        (Some(_), _) => "patients",
        (None, Unit::Group) => "the groups that were found, because no patient is known",
        (None, _) => "groups or images, because no patient is known",
    }
}

/// The verdict of the gate, and what makes the figures optimistic.
pub(super) fn verdict(report: &Report) -> String {
    let gate = &report.scores.gate;
    let (class, text) = if gate.refuses() {
        (
            "refused",
            "The gate refuses this model: do not rely on its figures. It is not served, unless by force.",
        )
    } else {
        ("passed", "The gate passed this model: no check speaks against believing its figures.")
    };
    let item = |finding: &Finding| format!("<li>{}</li>\n", escape(&finding.text));
    let findings = gate.findings.iter().map(item).collect::<Vec<_>>().concat();
    let findings = if findings.is_empty() {
        findings
    } else {
        format!("<p>What was found:</p>\n<ul>\n{findings}</ul>\n")
    };
    let scores = &report.scores;
    let suspicious = scores.controls.iter().filter_map(|control| control.warning.as_ref());
    let item = |warning: &String| {
        format!("<p class=\"warning\"><strong>Warning:</strong> {}</p>\n", escape(warning))
    };
    let warnings = scores.warning.iter().chain(suspicious).map(item).collect::<Vec<_>>().concat();
    let body = format!(
        "<div class=\"verdict {class}\"><p><strong>{text}</strong></p>\n{findings}</div>\n{warnings}{}{}",
        headline(report),
        paragraph(&format!(
            "Measured on {} that training never saw. Always naming the larger class is right for {:.3} of them.",
            tested(scores),
            scores.majority_accuracy
        ))
    );
    section("verdict", "Can the figures be believed?", &body)
}

fn headline(report: &Report) -> String {
    let (metrics, intervals) = (&report.scores.metrics, &report.scores.interval_95);
    let rows = [
        ("Sensitivity", Some(metrics.sensitivity), Some(intervals.sensitivity)),
        ("Specificity", Some(metrics.specificity), Some(intervals.specificity)),
        ("Accuracy", Some(metrics.accuracy), Some(intervals.accuracy)),
        ("AUROC", metrics.auroc, intervals.auroc),
    ];
    let item = |(name, value, interval): (&str, Option<f64>, Option<Interval>)| {
        let (value, interval) = (known(value), range(interval));
        format!(
            "<li><span>{name}</span><strong>{value}</strong><span class=\"small\">95 % interval</span>\
             <span class=\"small\">{interval}</span></li>\n"
        )
    };
    format!("<ul class=\"headline\">\n{}</ul>\n", rows.map(item).concat())
}

/// All figures, by image and by patient, and the pictures of them.
pub(super) fn figures(report: &Report, plots: &str) -> String {
    let scores = &report.scores;
    let caption = format!("Figures on {}", tested(scores));
    let positive = match &scores.positive_class {
        Some(class) => format!("Sensitivity, precision, F1 and AUROC are of {class}."),
        None => "Sensitivity, specificity, precision, F1 and AUROC are means over the classes.".into(),
    };
    let how = match report.scores.by_patient {
        Some(_) => "A patient is answered for by the mean of its images.",
        None => "Patients are unknown, or not all known, so there are no figures by patient.",
    };
    let text = format!("{positive} The 95 % intervals are by bootstrap over {}. {how}", resampled(report));
    let columns = ["Figure", "By image", "95 % interval", "By patient"];
    let figures = table(&caption, &columns, &rows_of_figures(report));
    let body = format!("{}{figures}<div class=\"plots\">\n{plots}</div>\n", paragraph(&text));
    section("figures", "Figures", &body)
}

/// Name, by image, interval, by patient.
fn rows_of_figures(report: &Report) -> Vec<Vec<String>> {
    type Value = fn(&Metrics) -> Option<f64>;
    let (scores, intervals) = (&report.scores, &report.scores.interval_95);
    let metrics: [(&str, Value, Option<Interval>); 8] = [
        ("Accuracy", |m| Some(m.accuracy), Some(intervals.accuracy)),
        ("AUROC", |m| m.auroc, intervals.auroc),
        ("Sensitivity", |m| Some(m.sensitivity), Some(intervals.sensitivity)),
        ("Specificity", |m| Some(m.specificity), Some(intervals.specificity)),
        ("Sensitivity at specificity 0.9", |m| m.sensitivity_at_90_specificity, None),
        ("Precision", |m| Some(m.precision), None),
        ("F1", |m| Some(m.f1), None),
        ("Loss (nats)", |m| Some(m.loss), None),
    ];
    let row = |(name, value, interval): (&str, Value, Option<Interval>)| {
        let patient =
            scores.by_patient.as_ref().map_or(NONE.into(), |patients| known(value(&patients.metrics)));
        vec![name.to_owned(), known(value(&scores.metrics)), range(interval), patient]
    };
    let average = |curves: &ClassCurves| {
        let name = format!("Average precision, {}", curves.class);
        let interval = range(curves.average_precision_interval_95);
        vec![name, figure(curves.average_precision), interval, NONE.into()]
    };
    let name = "Accuracy of always naming the larger class".to_owned();
    let larger = vec![name, figure(scores.majority_accuracy), NONE.into(), NONE.into()];
    metrics.into_iter().map(row).chain(report.curves.iter().map(average)).chain([larger]).collect()
}

/// What was trained on, what tested on, and what they share.
pub(super) fn data(report: &Report) -> String {
    let (split, labels) = (&report.split, &report.scores.labels);
    let purpose = |subset| match subset {
        Subset::Train => "Training",
        Subset::Validation => "Validation",
        Subset::Test => "Test",
    };
    let rows: Vec<Vec<String>> = split
        .subsets
        .iter()
        .map(|subset| {
            let counts =
                [subset.images, subset.patients].into_iter().chain(subset.images_of_label.iter().copied());
            std::iter::once(purpose(subset.subset).to_owned()).chain(counts.map(|n| n.to_string())).collect()
        })
        .collect();
    let columns: Vec<&str> =
        ["Part", "Images", "Known patients"].into_iter().chain(labels.iter().map(String::as_str)).collect();
    let patients_are_known = split.subsets.iter().any(|subset| subset.patients > 0);
    let leaks = [
        ("Patients", patients_are_known.then_some(split.shared_patients), "unknown"),
        ("Images", Some(split.shared_images), NONE),
        ("Groups of like images that the audit found", split.shared_groups, "not looked for"),
    ]
    .map(|(what, n, none)| vec![what.to_owned(), n.map_or(none.to_owned(), |n| n.to_string())]);
    let unit = match split.unit {
        Unit::Patient => "All images of a patient are in the same part.",
        Unit::Group => "No patient is known. Images that look like one patient's are in the same part.",
        Unit::Run => "No patient is known. Images with adjacent file numbers are in the same part.",
        Unit::Image => "Each image was put into a part on its own: slices of one patient may be in several.",
    };
    let unknown = match split.unknown_patients {
        0 => "The patient of every image is known.".to_owned(),
        n => format!("The patient of {n} images is not known, so patients in common cannot all be counted."),
    };
    let random = match split.random_split_leaks {
        Some(share) => format!(
            "Had the same images been put into the parts one by one, {:.1} % of the test images would have found \
             images of their own patient or group among those trained on.",
            100.0 * share
        ),
        None => {
            "Neither patients nor groups of like images are known, so it cannot be said what a random split \
                 would have leaked."
                .into()
        }
    };
    let body = [
        paragraph(unit),
        table("Images of each part", &columns, &rows),
        table("In the test set and also in training or validation", &["What", "Number"], &leaks),
        paragraph(&unknown),
        paragraph(&random),
    ]
    .concat();
    section("data", "Data", &body)
}

/// Whether probabilities mean what they say.
pub(super) fn calibration(report: &Report, plot: &str) -> String {
    let calibration = &report.scores.calibration;
    let text = match calibration.temperature {
        Some(temperature) => format!(
            "A probability of 0.8 should be right 8 times in 10. Training fitted a temperature of {temperature:.3}; \
             it changes no label."
        ),
        None => {
            "A probability of 0.8 should be right 8 times in 10. The bundle has no calibration: the figures \
                 before and after are the same."
                .to_owned()
        }
    };
    let before = &calibration.before;
    let brier = range(calibration.brier_interval_95);
    let loss = report.scores.metrics.loss;
    let rows = [
        vec![
            format!("Calibration error (ECE, {} bins)", calibration.ece_bins),
            figure(before.ece),
            figure(calibration.ece),
            NONE.into(),
        ],
        vec!["Brier score".into(), figure(before.brier), figure(calibration.brier), brier],
        vec!["Loss (nats)".into(), figure(before.loss), figure(loss), NONE.into()],
    ];
    let caption = format!("Calibration on {}", tested(&report.scores));
    let columns = ["Figure, smaller is better", "Before", "After", "95 % interval"];
    section(
        "calibration",
        "Calibration",
        &[paragraph(&text), table(&caption, &columns, &rows), plot.into()].concat(),
    )
}

/// How often the model refers to a radiologist, and what that brings.
pub(super) fn abstention(report: &Report, plot: &str) -> String {
    let Some(abstention) = &report.scores.abstention else {
        let text = "The bundle has no error rate at which it abstains: it answers every image.";
        let body = [paragraph(text), plot.into(), input_gate(&report.scores)].concat();
        return section("abstention", "Abstention", &body);
    };
    let rate = abstention.error_rate;
    let text = format!(
        "At an error rate of {rate} the model answers an image only where one label alone is possible, and refers \
         all others to a radiologist. {}",
        if report.scores.n_patients.is_some() { "Every patient counts equally." } else { "" }
    );
    let shortage = abstention
        .shortage
        .as_ref()
        .map_or(String::new(), |why| paragraph(&format!("Every image is referred: {why}.")));
    let caption = format!("Abstention on {}", tested(&report.scores));
    let figures = table(&caption, &["Share", "Value", "95 % interval"], &rows_of_abstention(abstention));
    let body = [paragraph(&text), shortage, figures, plot.into(), input_gate(&report.scores)];
    section("abstention", "Abstention", &body.concat())
}

/// How many test images the input gate takes for no slice.
fn input_gate(scores: &Scores) -> String {
    let Some(alarms @ FalseAlarms { images, refused, share, .. }) = &scores.input_gate else {
        return String::new();
    };
    let codes = alarms.codes();
    let codes = if codes.is_empty() { String::new() } else { format!(" Reasons given: {codes}.") };
    paragraph(&format!(
        "The input gate gives {refused} of the {images} test images no label ({share:.3}). They are slices, so each of \
         them is a false alarm; its limits were set on validation images.{codes} The figures above count these \
         images as all others."
    ))
}

/// Share, value, interval.
fn rows_of_abstention(abstention: &AbstentionScores) -> Vec<Vec<String>> {
    let row = |name: &str, value, interval| vec![name.to_owned(), figure(value), range(interval)];
    let referred = "Images referred to a radiologist";
    let covered = format!("True label among the possible ones (goal {:.3})", 1.0 - abstention.error_rate);
    let wrong = vec![
        "Wrong labels among the answers".to_owned(),
        abstention.error_rate_answered.map_or("none answered".into(), figure),
        range(abstention.error_rate_answered_interval_95),
    ];
    let mut rows = vec![
        row(referred, abstention.abstention_rate, abstention.abstention_rate_interval_95),
        wrong,
        row(&covered, abstention.coverage, abstention.coverage_interval_95),
    ];
    let labels = abstention.coverage_of_label.iter();
    rows.extend(labels.map(|(label, share)| row(&format!("The same, of {label}"), *share, None)));
    rows
}

/// Each test patient, the worst first.
pub(super) fn patients(report: &Report) -> String {
    let patients = &report.patients;
    if patients.is_empty() {
        let text = "Patients are unknown, or not all known, so there is no table of them.";
        return section("patients", "Patients", &paragraph(text));
    }
    let row = |row: &super::PatientRow| {
        vec![
            row.patient.clone(),
            row.class.clone(),
            row.named.clone(),
            if row.is_right() { "right" } else { "wrong" }.to_owned(),
            format!("{:.3}", row.probability),
            format!("{} of {}", row.images_right, row.images),
        ]
    };
    let rows: Vec<Vec<String>> = patients.iter().take(MOST_ROWS).map(row).collect();
    let wrong = patients.iter().filter(|row| !row.is_right()).count();
    let shown = match patients.len() {
        n if n > MOST_ROWS => format!(" The first {MOST_ROWS} are shown; report.json has all."),
        _ => String::new(),
    };
    let text = format!(
        "{wrong} of {} test patients are called wrongly. The probability is that of the true class. Patients are \
         named as in the CSV that came with the data. One with images of two classes has two rows.{shown}",
        patients.len()
    );
    let read = report.scores.by_patient.as_ref().map_or(String::new(), |scores| paragraph(&read(scores)));
    let columns = ["Patient", "True class", "Model says", "Result", "Probability", "Images right"];
    section(
        "patients",
        "Patients",
        &[paragraph(&text), read, table("Test patients, the worst first", &columns, &rows)].concat(),
    )
}

/// What the probability of a patient is worth, and when one is referred.
fn read(scores: &PatientScores) -> String {
    let PatientScores { calibration, abstention, .. } = scores;
    let how = match calibration.temperature {
        Some(temperature) => format!(
            "A patient's probability is the mean of its images' with a temperature of {temperature:.3}, fitted to \
             validation patients."
        ),
        None => "A patient's probability is the mean of its images'.".to_owned(),
    };
    let ece = format!(
        "Its calibration error is {:.3} ({:.3} as the mean alone).",
        calibration.ece, calibration.before.ece
    );
    let referred = match abstention {
        Some(AbstentionScores { shortage: Some(why), .. }) => format!("Every patient is referred: {why}."),
        Some(abstention) => format!(
            "At an error rate of {} a share of {:.3} of the patients is referred to a radiologist; the true label is \
             among the possible ones for {:.3}.",
            abstention.error_rate, abstention.abstention_rate, abstention.coverage
        ),
        None => String::new(),
    };
    format!("{how} {ece} {referred}").trim_end().to_owned()
}

/// Pictures of the errors of which the model was surest.
const HEAT_MAPS: &str = ", each beside its Grad-CAM: what spoke for the class that was named, bright where it \
    spoke most, and outlined in its hottest tenth. A map is faithful when hiding that tenth lowers the answer more \
    than hiding 19 of 20 random regions of its size does; one that is not says little.";

pub(super) fn errors(report: &Report, thumbnails: &[Thumbnail]) -> String {
    let (wrong, n) = (report.n_wrong, report.scores.n);
    if wrong == 0 {
        return section(
            "errors",
            "Worst errors",
            &paragraph(&format!("All {n} test images are called rightly.")),
        );
    }
    let shown = report.worst_errors.len();
    let text = format!(
        "{wrong} of {n} test images are called wrongly. These are the {shown} of which the model was surest{}",
        if thumbnails.iter().any(|thumbnail| thumbnail.heat_map.is_some()) { HEAT_MAPS } else { "." }
    );
    let pictures = report.worst_errors.iter().zip(thumbnails).map(|(image, thumbnail)| {
        let (class, named, path) = (escape(&image.class), escape(&image.named), escape(&image.path));
        let Thumbnail { width, height, data_uri, heat_map, .. } = thumbnail;
        let similar = similar(thumbnail);
        let (map, check) = heat_map.as_ref().map_or_else(Default::default, |map| heat(map, *width, *height));
        let patient = match image.patient.as_str() {
            "" => String::new(),
            patient => format!("patient {}, ", escape(patient)),
        };
        format!(
            "<figure><img src=\"{data_uri}\" width=\"{width}\" height=\"{height}\" alt=\"CT slice of class {class}, \
             called {named}\">{map}<figcaption><strong>{class}, called {named}</strong> ({:.3}){check}<br>\
             {patient}{path}{similar}</figcaption></figure>\n",
            image.probability
        )
    });
    let body =
        format!("{}<div class=\"errors\">\n{}</div>\n", paragraph(&text), pictures.collect::<String>());
    section("errors", "Worst errors", &body)
}

/// The training slices that the model takes for the nearest, where it knows any.
fn similar(thumbnail: &Thumbnail) -> String {
    let named = thumbnail.similar.iter().map(|slice| {
        let (class, path) = (escape(&slice.class), escape(&slice.path));
        format!("<br>like {class} {path} (distance {:.2})", slice.distance)
    });
    named.collect()
}

/// The picture of a heat map, and what its check says.
fn heat(map: &HeatPicture, width: usize, height: usize) -> (String, &'static str) {
    let check = match map.faithful {
        Some(true) => "<br>map: faithful",
        Some(false) => "<br>map: not faithful",
        None => "<br>map: not checked",
    };
    let uri = &map.data_uri;
    let alt = "the same slice under its heat map";
    (format!("<img src=\"{uri}\" width=\"{width}\" height=\"{height}\" alt=\"{alt}\">"), check)
}

/// How the model was made.
pub(super) fn model(report: &Report) -> String {
    let model = &report.model;
    let text = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let hidden = match model.hidden_units {
        0 => "no hidden layer in the head".to_owned(),
        units => format!("{units} hidden units in the head"),
    };
    let preprocessing =
        serde_json::to_value(&model.preprocessing).map(|value| text(&value)).unwrap_or_default();
    let rows = [
        ("Model", model.id.clone()),
        ("Architecture", format!("{}, {hidden}", model.architecture)),
        ("Labels, in order", report.scores.labels.join(", ")),
        ("Weights it started from", model.weights.clone()),
        ("Preprocessing", preprocessing),
        ("SHA-256 of the weights", model.weights_sha256.clone()),
        ("SHA-256 of the recorded answers", model.golden_sha256.clone()),
        ("Digest of the dataset", model.dataset_digest.clone()),
        ("Digest of the split", model.split_digest.clone()),
        ("Trained by nephros", model.trained_by.clone()),
        ("Evaluated by nephros", model.evaluated_by.clone()),
    ]
    .map(|(name, value)| vec![name.to_owned(), value]);
    let params: Vec<Vec<String>> = model
        .params
        .as_object()
        .map(|params| params.iter().map(|(key, value)| vec![key.clone(), text(value)]).collect())
        .unwrap_or_default();
    let body = [
        table("The model", &["What", "Value"], &rows),
        table("params.yaml of its training", &["Key", "Value"], &params),
    ]
    .concat();
    section("model", "Model card", &body)
}
