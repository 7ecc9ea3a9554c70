//! `demo`: everything on a drawn cohort, from images to a page in the browser.

mod samples;
mod table;

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Instant,
};

use nephros_core::explain::Explainer;
use nephros_server::{ServeError, ServeOptions, Service};
use nephros_store::{Database, StoreConfig};
use nephros_train::{
    config::{CONFIG_TEMPLATE, PARAMS_DEMO_TEMPLATE},
    controls::Checks,
    evaluate::{PatientScores, Scores},
    phantom::{Cohort, ImageFormat, write_cohort},
    progress::Progress,
    split::{Split, Subset},
    stages::{Dataset, Project},
};

use self::table::Row;
use crate::{
    cli::{DemoArgs, Global},
    errors::Status,
    init, model, output, phantom,
    progress::Display,
    serve::{self, Served, Watched},
    stages::{self, Stage},
    tracking,
};

/// Folder of the drawn cohort, below the demo project.
const COHORT: &str = "cohort";

/// Sized so that drawing, training and scoring stay below four minutes on two cores.
fn cohort() -> Cohort {
    Cohort { patients: 240, slices: 4, seed: 1, size: 128, format: ImageFormat::Png, ..Cohort::default() }
}

/// Runs the command; it serves until it is stopped, unless told not to.
pub fn run(args: &DemoArgs, global: &Global) -> anyhow::Result<Status> {
    let begun = Instant::now();
    let address = serve::resolve("127.0.0.1", args.port)?;
    if !args.no_serve {
        // Better told now than after minutes of training.
        check_free(address)?;
    }
    let progress = Display::new(global);
    let pipeline = init::pipeline(PARAMS_DEMO_TEMPLATE);
    init::write(&args.dir, &init::files(&config(), PARAMS_DEMO_TEMPLATE, &pipeline))?;
    let drawn = write_cohort(&cohort(), &args.dir.join(COHORT), &progress)?;
    output::line(&phantom::describe(&drawn))?;
    let project =
        stages::load_in(&args.dir, &args.dir.join("config/config.yaml"), &args.dir.join("params.yaml"))?;
    run_stages(&project, &progress)?;
    output::line(&format!("done in {:.0} s", begun.elapsed().as_secs_f64()))?;
    if args.no_serve {
        return Ok(Status::Done);
    }
    serve_project(project, address, global)
}

/// The configuration of a project whose images are the drawn ones.
fn config() -> String {
    let source = |line: &str| match line.trim_start().strip_prefix("source_URL:") {
        Some(_) => format!("  source_URL: {COHORT}\n"),
        None => format!("{line}\n"),
    };
    CONFIG_TEMPLATE.lines().map(source).collect()
}

/// All four stages; the scores of the last are shown as a table.
fn run_stages(project: &Project, progress: &dyn Progress) -> anyhow::Result<()> {
    for stage in [Stage::Ingest, Stage::Prepare, Stage::Train] {
        output::line(stage.run(project, progress)?.trim_end())?;
    }
    let scores = tracking::evaluate(project, Checks::default(), progress)?;
    let patients = scores.n_patients.unwrap_or_default();
    output::line(&format!("\n{} images of {patients} patients that training never saw", scores.n))?;
    output::line(&table::render(&rows(&scores)))?;
    output::line(&format!("gate: {}", scores.gate))
}

fn rows(scores: &Scores) -> Vec<Row> {
    let row = |name, value, interval| Row { name, value, interval };
    let (metrics, intervals) = (&scores.metrics, &scores.interval_95);
    let images = [
        row("accuracy", Some(metrics.accuracy), Some(intervals.accuracy)),
        row("sensitivity", Some(metrics.sensitivity), Some(intervals.sensitivity)),
        row("specificity", Some(metrics.specificity), Some(intervals.specificity)),
        row("AUROC", metrics.auroc, intervals.auroc),
        row("accuracy of naming the larger class", Some(scores.majority_accuracy), None),
    ];
    let patients = scores.by_patient.iter().flat_map(|PatientScores { metrics, interval_95, .. }| {
        [
            row("patients, all slices: accuracy", Some(metrics.accuracy), Some(interval_95.accuracy)),
            row("patients, all slices: AUROC", metrics.auroc, interval_95.auroc),
        ]
    });
    images.into_iter().chain(patients).collect()
}

fn serve_project(project: Project, address: SocketAddr, global: &Global) -> anyhow::Result<Status> {
    let dataset = Dataset::load(&project)?;
    let split = Split::read(&project.split_file())?;
    let samples = samples::choose(&dataset.root, &dataset.subset(&split, Subset::Test))?;
    let bundle = project.bundle_dir();
    let explainer = Explainer::load(&bundle, None, None)?;
    model::admit(&bundle, explainer.predictor(), false)?;
    let store = project.path(&project.config.store.path);
    let display = Display::new(global);
    let service = Service {
        model: Some(Arc::new(Served::new(explainer, &bundle)?)),
        trainer: Some(Arc::new(move |run| {
            serve::retrain(&project, false, None, &Watched::new(display, run))
        })),
        samples,
        ..Service::default()
    };
    let token = serve::token()?;
    let receipts = StoreConfig::new(Database::Sqlite(store));
    serve::serve(ServeOptions { address, token, service, ..ServeOptions::default() }, Some(receipts), global)
}

fn check_free(address: SocketAddr) -> Result<(), ServeError> {
    match TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(source) => Err(ServeError::Bind { address, source }),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use nephros_train::config::{Config, Params};

    use super::*;

    #[test]
    fn the_demo_reads_its_own_configuration() {
        let parsed = Config::parse(Path::new("config.yaml"), &config()).unwrap();
        let mut expected = Config::parse(Path::new("config.yaml"), CONFIG_TEMPLATE).unwrap();
        COHORT.clone_into(&mut expected.data_ingestion.source_url);
        assert_eq!(parsed, expected);
    }

    #[test]
    fn the_cohort_fits_the_parameters() {
        let params = Params::parse(Path::new("params.yaml"), PARAMS_DEMO_TEMPLATE).unwrap();
        let cohort = cohort();
        assert_eq!(params.classes, cohort.classes.len());
        assert_eq!(params.image_size, [cohort.size, cohort.size, 3]);
    }
}
