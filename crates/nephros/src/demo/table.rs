//! Figures with their intervals, aligned.

/// A figure of the table.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// What it is.
    pub name: &'static str,
    /// The figure; `None` when it is not defined for these images.
    pub value: Option<f64>,
    /// Lower and upper end of its 95 % interval, where it has one.
    pub interval: Option<[f64; 2]>,
}

/// The rows under a head line.
pub fn render(rows: &[Row]) -> String {
    let widest = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or_default();
    let mut lines = vec![format!("{:<widest$}  {:>6}  95 % interval", "", "value")];
    for row in rows {
        let value = row.value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
        let interval = row.interval.map(|[low, high]| format!("  {low:.3} to {high:.3}")).unwrap_or_default();
        lines.push(format!("{:<widest$}  {value:>6}{interval}", row.name));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [
            Row { name: "accuracy", value: Some(0.91), interval: Some([0.85, 0.9625]) },
            Row { name: "AUROC", value: None, interval: None },
            Row { name: "accuracy of the larger class", value: Some(0.5), interval: None },
        ];
        insta::assert_snapshot!(render(&rows), @r"
                                       value  95 % interval
        accuracy                       0.910  0.850 to 0.963
        AUROC                              -
        accuracy of the larger class   0.500
        ");
    }
}
