//! As much of SVG as the plots need. All text is escaped here.

use std::fmt::Write as _;

/// A point in pixels, or in the units of a [`Frame`].
pub(super) type Point = (f64, f64);

/// Text and axes.
pub(super) const INK: &str = "#1a1a1a";
/// Lines of the grid, and the diagonal.
pub(super) const FAINT: &str = "#d0d0d0";
/// Of curves, told apart also without red or green.
///
/// Source: Okabe and Ito, Color Universal Design, 2008; without the yellow, which white swallows.
pub(super) const COLORS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#000000"];

/// Text as it may stand in HTML and SVG, in an attribute as well.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // XML has no way to write these at all.
            control if control.is_control() && !matches!(control, '\n' | '\t') => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

/// At most `most` characters, the rest as an ellipsis.
pub(super) fn shorten(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// Where a text's point lies in it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A picture that is being drawn.
#[derive(Debug)]
pub(super) struct Svg {
    head: String,
    body: String,
}

impl Svg {
    /// `description` says in words what the picture shows.
    pub fn new(width: f64, height: f64, title: &str, description: &str) -> Self {
        let (title, description) = (escape(title), escape(description));
        let head = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" role=\"img\" aria-label=\"{title}: {description}\" \
             font-family=\"system-ui, sans-serif\" font-size=\"13\">\n<title>{title}</title>\n\
             <desc>{description}</desc>\n<rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
        );
        Self { head, body: String::new() }
    }

    pub fn finish(self) -> String {
        format!("{}{}</svg>\n", self.head, self.body)
    }

    fn push(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.body.write_fmt(element);
        self.body.push('\n');
    }

    pub fn text(&mut self, (x, y): Point, anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escape(text);
        self.push(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{INK}\">{text}</text>"
        ));
    }

    /// Reads from below to above.
    pub fn upright_text(&mut self, (x, y): Point, text: &str) {
        let text = escape(text);
        self.push(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\" fill=\"{INK}\" \
             transform=\"rotate(-90 {x:.1} {y:.1})\">{text}</text>"
        ));
    }

    pub fn rectangle(&mut self, (x, y): Point, width: f64, height: f64, fill: &str, opacity: f64) {
        self.push(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{fill}\" \
             fill-opacity=\"{opacity:.3}\" stroke=\"{FAINT}\"/>"
        ));
    }

    pub fn circle(&mut self, (x, y): Point, radius: f64, fill: &str) {
        self.push(format_args!(
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius:.1}\" fill=\"{fill}\" stroke=\"#ffffff\"/>"
        ));
    }

    /// A line through points that moves by half a pixel at least.
    pub fn line(&mut self, points: impl IntoIterator<Item = Point>, color: &str, dashed: bool) {
        let mut kept: Vec<Point> = Vec::new();
        let mut skipped = None;
        for point in points {
            match kept.last() {
                Some(last) if (last.0 - point.0).hypot(last.1 - point.1) < 0.5 => skipped = Some(point),
                _ => {
                    kept.push(point);
                    skipped = None;
                }
            }
        }
        kept.extend(skipped);
        let points: Vec<String> = kept.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let (points, dash) = (points.join(" "), if dashed { " stroke-dasharray=\"5 4\"" } else { "" });
        let width = if color == FAINT { 1 } else { 2 };
        self.push(format_args!(
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"{width}\"{dash}/>"
        ));
    }
}

/// The box that curves are drawn in, with its axes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    /// Corner in pixels.
    pub left: f64,
    /// Corner in pixels.
    pub top: f64,
    /// In pixels.
    pub width: f64,
    /// In pixels.
    pub height: f64,
    /// Values at the left and the right end.
    pub x: [f64; 2],
    /// Values at the lower and the upper end.
    pub y: [f64; 2],
    /// Whether there is nothing between whole numbers on the x axis.
    pub whole_x: bool,
}

impl Frame {
    /// Pixels of a point in the units of the axes, held inside the frame.
    pub fn place(&self, (x, y): Point) -> Point {
        let share = |value: f64, [from, to]: [f64; 2]| ((value - from) / (to - from)).clamp(0.0, 1.0);
        (self.left + self.width * share(x, self.x), self.top + self.height * (1.0 - share(y, self.y)))
    }

    /// Grid, ticks and the names of the axes.
    pub fn draw(&self, svg: &mut Svg, x_name: &str, y_name: &str) {
        let (right, bottom) = (self.left + self.width, self.top + self.height);
        let is_shown = |tick: &f64| !self.whole_x || (tick - tick.round()).abs() < 1e-6;
        for tick in ticks(self.x).into_iter().filter(is_shown) {
            let (x, _) = self.place((tick, self.y[0]));
            svg.line([(x, self.top), (x, bottom)], FAINT, false);
            svg.text((x, bottom + 17.0), Anchor::Middle, &tick_text(tick));
        }
        for tick in ticks(self.y) {
            let (_, y) = self.place((self.x[0], tick));
            svg.line([(self.left, y), (right, y)], FAINT, false);
            svg.text((self.left - 7.0, y + 4.0), Anchor::End, &tick_text(tick));
        }
        svg.text((self.left + self.width / 2.0, bottom + 36.0), Anchor::Middle, x_name);
        svg.upright_text((self.left - 42.0, self.top + self.height / 2.0), y_name);
    }
}

/// Round values of a range, about five.
fn ticks([from, to]: [f64; 2]) -> Vec<f64> {
    let rough = (to - from) / 5.0;
    let power = 10.0_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|round| round * power);
    let step = step.into_iter().find(|step| *step >= rough * 0.999).unwrap_or(rough);
    let (first, last) = ((from / step - 1e-6).ceil() as i64, (to / step + 1e-6).floor() as i64);
    (first..=last).map(|index| index as f64 * step).collect()
}

/// Without the digits that are rounding alone.
fn tick_text(value: f64) -> String {
    format!("{}", (value * 1e6).round() / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        let text = |range| ticks(range).into_iter().map(tick_text).collect::<Vec<_>>().join(" ");
        assert_eq!(text([0.0, 1.0]), "0 0.2 0.4 0.6 0.8 1");
        assert_eq!(text([1.0, 30.0]), "10 20 30");
        assert_eq!(text([0.0, 0.07]), "0 0.02 0.04 0.06");
    }

    #[test]
    fn a_line_ends_where_its_points_end() {
        let mut svg = Svg::new(10.0, 10.0, "t", "d");
        svg.line([(0.0, 0.0), (0.1, 0.0), (0.2, 0.0), (5.0, 0.0), (5.2, 0.0)], INK, false);
        assert!(svg.finish().contains("points=\"0.0,0.0 5.0,0.0 5.2,0.0\""));
    }

    #[test]
    fn text_is_escaped_and_shortened() {
        assert_eq!(escape("<b>&\"'\u{0}"), "&lt;b&gt;&amp;&quot;&#39;\u{fffd}");
        assert_eq!((shorten("Normal", 6), shorten("Normals", 6)), ("Normal".into(), "Norma…".into()));
    }
}
