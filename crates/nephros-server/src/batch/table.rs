//! Results of a batch as text.

use super::Row;
use crate::predict::OneOfMany;

/// One JSON object a line.
///
/// # Errors
/// A row that is no JSON, which is a bug.
pub(super) fn jsonl(rows: &[Row]) -> serde_json::Result<String> {
    let mut lines = String::new();
    for row in rows {
        lines += &serde_json::to_string(row)?;
        lines.push('\n');
    }
    Ok(lines)
}

/// A header and a line a row; an image without an answer has its error's code in the last column.
///
/// # Errors
/// A line that cannot be written, which is a bug.
pub(super) fn csv(labels: &[String], rows: &[Row]) -> csv::Result<Vec<u8>> {
    let mut table = csv::Writer::from_writer(Vec::new());
    let fixed = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let named = labels.iter().map(|label| format!("probability_{label}")).collect();
    let head = [
        fixed(&["path", "label", "probability"]),
        named,
        fixed(&["refer", "reasons", "model", "receipt", "error"]),
    ];
    table.write_record(head.concat())?;
    for Row { path, outcome, .. } in rows {
        let mut line = vec![path.clone()];
        match outcome {
            OneOfMany::Answer(answer) => line.extend(answer.columns()),
            OneOfMany::Error { error } => {
                line.extend(vec![String::new(); 2 + labels.len() + 4]);
                line.push(error.code.to_owned());
            }
        }
        table.write_record(line)?;
    }
    table.into_inner().map_err(|error| csv::Error::from(error.into_error()))
}
