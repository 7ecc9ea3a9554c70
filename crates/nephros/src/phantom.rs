//! `phantom`: a drawn cohort in a folder.

use nephros_train::phantom::{Cohort, CohortSummary, write_cohort};

use crate::{
    cli::{Global, PhantomArgs},
    errors::Status,
    output,
    progress::Display,
};

/// Runs the command.
pub fn run(args: &PhantomArgs, global: &Global) -> anyhow::Result<Status> {
    let cohort = Cohort {
        patients: args.patients as usize,
        slices: args.slices as usize,
        seed: args.seed,
        classes: args.classes.iter().map(|&class| class.into()).collect(),
        format: args.format.into(),
        size: args.size as usize,
        masks: args.masks,
    };
    let summary = write_cohort(&cohort, &args.out, &Display::new(global))?;
    if !global.quiet {
        output::line(&describe(&summary))?;
    }
    Ok(Status::Done)
}

/// `480 slices of 48 patients in `cohort` (240 Normal, 240 Tumor)`.
pub fn describe(summary: &CohortSummary) -> String {
    let total: usize = summary.images.values().sum();
    let classes: Vec<String> =
        summary.images.iter().map(|(class, images)| format!("{images} {}", class.name())).collect();
    let (patients, root) = (summary.patients, summary.root.display());
    format!("{total} slices of {patients} patients in `{root}` ({})", classes.join(", "))
}
