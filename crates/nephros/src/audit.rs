//! `audit`: which images are likely one patient's, and what a random split would leak.

use nephros_core::predictor::Predictor;
use nephros_train::audit::audit;

use crate::{
    cli::{AuditArgs, Global},
    errors::Status,
    model, output,
    progress::Display,
};

/// Runs the command.
pub fn run(args: &AuditArgs, global: &Global) -> anyhow::Result<Status> {
    let path = args.model.as_deref().map(|named| model::find(Some(named), global)).transpose()?;
    let model = path.map(|path| Predictor::load(&path, None)).transpose()?;
    if let Some(assumption) = model.as_ref().and_then(Predictor::assumption) {
        output::note(&format!("note: {assumption}"));
    }
    let audit = audit(&args.path, model.as_ref(), &Display::new(global))?;
    audit.write_groups(&args.out)?;
    if args.json {
        output::line(&serde_json::to_string(&audit.summary(&args.out))?)?;
    } else {
        output::line(&format!("{audit}\ngroups written to `{}`", args.out.display()))?;
    }
    Ok(Status::Done)
}
