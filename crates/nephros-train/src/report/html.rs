//! The page: one file that needs no other, no script and no network.

use super::{checks, model::Report, plots, sections, svg::escape, thumbnails::Thumbnail};

const STYLE: &str = include_str!("style.css");

/// The whole page, most important first.
pub(super) fn page(report: &Report, thumbnails: &[Thumbnail]) -> String {
    let plots = plots::all(report);
    let [roc, precision_recall, confusion, reliability, abstention, training] = plots.each_ref().map(figure);
    let title = escape(&format!("Evaluation of {}", report.scores.model));
    let sections = [
        sections::verdict(report),
        sections::figures(report, &[roc, precision_recall, confusion].concat()),
        sections::data(report),
        sections::calibration(report, &reliability),
        sections::abstention(report, &abstention),
        checks::orientations(report),
        sections::patients(report),
        checks::gap(report),
        checks::controls(report),
        sections::errors(report, thumbnails),
        section("training", "Training", &training),
        sections::model(report),
    ]
    .concat();
    let intended = escape(&report.intended_use);
    let note = "This page names patients as the user's CSV does and shows pictures of them. Keep it where the \
                scans may be kept.";
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<header>\n<h1>{title}</h1>\n\
         <p class=\"intended\"><strong>Intended use:</strong> {intended}</p>\n</header>\n\
         <main>\n{sections}</main>\n<footer><p>{note}</p></footer>\n</body>\n</html>\n"
    )
}

fn figure(plot: &plots::Plot) -> String {
    let caption = escape(&plot.caption);
    format!("<figure>\n{}<figcaption>{caption}</figcaption>\n</figure>\n", plot.svg)
}

/// A chapter; `body` is HTML already.
pub(super) fn section(id: &str, title: &str, body: &str) -> String {
    let title = escape(title);
    format!("<section aria-labelledby=\"{id}\">\n<h2 id=\"{id}\">{title}</h2>\n{body}</section>\n")
}

/// A paragraph of plain text.
pub(super) fn paragraph(text: &str) -> String {
    format!("<p>{}</p>\n", escape(text))
}

/// A table of plain text, the first column as headings of the rows.
pub(super) fn table(caption: &str, columns: &[&str], rows: &[Vec<String>]) -> String {
    let head = |name: &&str| format!("<th scope=\"col\">{}</th>", escape(name));
    let head = columns.iter().map(head).collect::<Vec<_>>().concat();
    let row = |cells: &Vec<String>| {
        let cells: String = cells
            .iter()
            .enumerate()
            .map(|(index, text)| match index {
                0 => format!("<th scope=\"row\">{}</th>", escape(text)),
                _ => format!("<td>{}</td>", escape(text)),
            })
            .collect();
        format!("<tr>{cells}</tr>\n")
    };
    let body: String = rows.iter().map(row).collect();
    let caption = escape(caption);
    // What scrolls sideways on a phone must do so by keyboard too.
    format!(
        "<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"{caption}\"><table>\n\
         <caption>{caption}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table></div>\n"
    )
}
