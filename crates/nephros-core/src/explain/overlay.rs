//! A picture for a reader: the slice, the map laid over it, a colour bar, and the verdict.

use std::io;

use image::{ExtendedColorType, ImageEncoder as _, codecs::png::PngEncoder};

use super::{Explanation, faithfulness::HOT_SHARE, font};
use crate::pixels::{Frame, RgbImage, resize};

/// A larger picture is drawn smaller.
const MAX_SIDE: usize = 2048;
/// Opacity of the hottest place: the tissue stays to be seen.
const OPACITY: f32 = 0.7;
const GAP: usize = 12;
const BAR_WIDTH: usize = 18;
/// Shortest side of the colour bar's panel that takes all ticks.
const MIN_HEIGHT: usize = 64;
/// Letters of the longest tick label, such as `-12.3`.
const TICK_LETTERS: usize = 6;
const TICKS: usize = 4;
const BACKGROUND: [u8; 3] = [18, 18, 18];
const INK: [u8; 3] = [225, 225, 225];
const OUTLINE: [u8; 3] = [0, 220, 255];

/// Polynomial in `t` for red, green and blue of matplotlib's perceptually uniform inferno, constant
/// term first; a fit by Matt Zucker, <https://www.shadertoy.com/view/WlfXRN>, public domain.
const INFERNO: [[f32; 3]; 7] = [
    [0.000_218_94, 0.001_651_0, -0.019_480_9],
    [0.106_513_4, 0.563_956_4, 3.932_712_4],
    [11.602_493, -3.972_854, -15.942_394],
    [-41.703_996, 17.436_4, 44.354_145],
    [77.162_94, -33.402_36, -81.807_31],
    [-71.319_43, 32.626_064, 73.209_52],
    [25.131_126, -12.242_669, -23.070_325],
];

/// Rows and columns of colours that can be drawn on.
struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<[u8; 3]>,
}

/// Draws an explanation of `image`; `label` names the class that is explained.
///
/// From the left: the slice at its own size, the same under the map's positive values with the
/// hottest tenth outlined, and the colour bar. What was explained and whether the map stood its
/// check is written below. A slice of more than 2048 pixels a side is drawn smaller.
pub fn draw(image: &RgbImage, explanation: &Explanation, label: &str) -> RgbImage {
    let (shown, frame) = fit(image, explanation.frame);
    let (height, width) = (shown.height(), shown.width());
    let scale = if width >= 384 { 2 } else { 1 };
    let bar = 2 * GAP + BAR_WIDTH + TICK_LETTERS * font::ADVANCE * scale;
    let total = (2 * width + 3 * GAP + bar).max(44 * font::ADVANCE * scale);
    let letters = (total - 2 * GAP) / (font::ADVANCE * scale);
    let lines: Vec<String> =
        caption(explanation, label).iter().flat_map(|sentence| wrapped(sentence, letters)).collect();
    let line_height = (font::HEIGHT + 4) * scale;
    let below = GAP + height.max(MIN_HEIGHT) + GAP;
    let mut canvas = Canvas::new(total, below + lines.len() * line_height + GAP);
    let slice = shown.pixels().as_chunks::<3>().0;
    canvas.panel(GAP, width, slice);
    canvas.panel(2 * GAP + width, width, &blended(slice, explanation, frame, width));
    canvas.colour_bar(4 * GAP + 2 * width, height.max(MIN_HEIGHT), explanation.map.peak(), scale);
    for (index, line) in lines.iter().enumerate() {
        canvas.text(below + index * line_height, GAP, scale, line);
    }
    canvas.into_image(image)
}

/// The slice under the map alone, as the second panel of [`draw`].
pub fn heated(image: &RgbImage, explanation: &Explanation) -> RgbImage {
    let (shown, frame) = fit(image, explanation.frame);
    let (height, width) = (shown.height(), shown.width());
    let mut canvas = Canvas::new(width, height);
    canvas.pixels = blended(shown.pixels().as_chunks::<3>().0, explanation, frame, width);
    canvas.into_image(image)
}

/// A picture as the bytes of a PNG file.
///
/// # Errors
/// The encoder's own.
pub fn png(image: &RgbImage) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes)
        .write_image(image.pixels(), image.width() as u32, image.height() as u32, ExtendedColorType::Rgb8)
        .map_err(io::Error::other)?;
    Ok(bytes)
}

/// The picture and its frame, both smaller where the picture is larger than is drawn.
fn fit(image: &RgbImage, frame: Frame) -> (RgbImage, Frame) {
    let longer = image.width().max(image.height());
    if longer <= MAX_SIDE {
        return (image.clone(), frame);
    }
    let scale = MAX_SIDE as f64 / longer as f64;
    let length = |pixels: usize| ((pixels as f64 * scale).round() as usize).max(1);
    let offset = |pixels: isize| (pixels as f64 * scale).round() as isize;
    let shown =
        resize(image, length(image.width()), length(image.height()), crate::pixels::Resample::Bilinear);
    let (top, left) = (offset(frame.top), offset(frame.left));
    (shown, Frame { top, left, height: length(frame.height), width: length(frame.width) })
}

/// The slice under the map's positive values, with the hot region's outline.
fn blended(slice: &[[u8; 3]], explanation: &Explanation, frame: Frame, width: usize) -> Vec<[u8; 3]> {
    let map = &explanation.map;
    let height = slice.len() / width;
    let placed = map.placed(frame, height, width);
    let peak = map.peak().max(f32::MIN_POSITIVE);
    let hot = map.hottest(HOT_SHARE);
    let is_hot = |row: usize, column: usize| {
        frame.relative(row, column).is_some_and(|(y, x)| {
            hot[(y * map.height() as f32) as usize * map.width() + (x * map.width() as f32) as usize]
        })
    };
    let on_outline = |row: usize, column: usize| {
        let inner = row > 0 && column > 0 && row + 1 < height && column + 1 < width;
        is_hot(row, column)
            && !(inner
                && is_hot(row - 1, column)
                && is_hot(row + 1, column)
                && is_hot(row, column - 1)
                && is_hot(row, column + 1))
    };
    let pixel = |(at, (below, &value)): (usize, (&[u8; 3], &f32))| {
        if on_outline(at / width, at % width) {
            return OUTLINE;
        }
        let t = (value / peak).clamp(0.0, 1.0);
        mixed(*below, colour(t), OPACITY * t)
    };
    slice.iter().zip(placed.values()).enumerate().map(pixel).collect()
}

/// What is written below: what was explained, the verdict, and how to read the picture.
fn caption(explanation: &Explanation, label: &str) -> [String; 3] {
    let probability = explanation.prediction.probabilities[explanation.class];
    let first = format!(
        "{} for {label}: probability {:.1} %, log-odds {:+.2}.",
        explanation.method.title(),
        100.0 * probability,
        explanation.score
    );
    let unit = explanation.method.unit();
    let last = format!("Colour: what speaks for {label} ({unit}). Outline: the hottest 10 %.");
    [first, verdict(explanation), last]
}

/// Whether the map stood its check, with the numbers.
pub fn verdict(explanation: &Explanation) -> String {
    let Some(check) = &explanation.faithfulness else {
        return "Not checked: the map has no hot region, or no other place in the body takes it.".to_owned();
    };
    let verdict = if check.is_faithful() { "Faithful" } else { "NOT FAITHFUL" };
    let below = (check.share_below * check.regions as f64).round();
    format!(
        "{verdict}: hiding the outlined region lowers the log-odds by {:.2}, a random one of its size and shape \
         by {:.2} on average; {below} of {} random ones lower it less.",
        check.drop_hot, check.drop_random, check.regions
    )
}

/// Lines of at most `letters` letters, broken at spaces where that can be.
fn wrapped(text: &str, letters: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        loop {
            let line = lines.last().map_or(0, |line| line.chars().count());
            let space = usize::from(line > 0);
            if line + space + word.len() <= letters {
                let text: String = word.iter().collect();
                lines.last_mut().into_iter().for_each(|line| *line += &(" ".repeat(space) + &text));
                break;
            }
            if line == 0 {
                // Longer than a line: a label may be.
                let rest = word.split_off(letters.max(1).min(word.len()));
                lines.last_mut().into_iter().for_each(|line| *line = word.iter().collect());
                word = rest;
            }
            lines.push(String::new());
        }
    }
    lines
}

/// The colour of a share of the peak. The darkest quarter of inferno is left out: over the black
/// of a slice it could not be told from nothing.
fn colour(share: f32) -> [u8; 3] {
    let t = 0.25 + 0.75 * share;
    let channel = |channel: usize| INFERNO.iter().rev().fold(0.0, |sum, term| sum * t + term[channel]);
    [0, 1, 2].map(|index| (255.0 * channel(index).clamp(0.0, 1.0)).round() as u8)
}

fn mixed(below: [u8; 3], above: [u8; 3], opacity: f32) -> [u8; 3] {
    let mix = |channel: usize| {
        let (below, above) = (f32::from(below[channel]), f32::from(above[channel]));
        (below + (above - below) * opacity).round() as u8
    };
    [mix(0), mix(1), mix(2)]
}

/// Three figures, and a plain 0.
fn tick_label(value: f32) -> String {
    match value {
        value if value <= 0.0 => "0".to_owned(),
        value if (0.01..10.0).contains(&value) => format!("{value:.2}"),
        value if (10.0..1000.0).contains(&value) => format!("{value:.1}"),
        value => format!("{value:.0e}"),
    }
}

impl Canvas {
    fn new(width: usize, height: usize) -> Self {
        Self { width, height, pixels: vec![BACKGROUND; width * height] }
    }

    /// Sets a pixel; what lies outside is dropped.
    fn set(&mut self, row: usize, column: usize, colour: [u8; 3]) {
        if row < self.height && column < self.width {
            self.pixels[row * self.width + column] = colour;
        }
    }

    /// A picture of `width` columns in the upper row of panels.
    fn panel(&mut self, left: usize, width: usize, pixels: &[[u8; 3]]) {
        for (at, colour) in pixels.iter().enumerate() {
            self.set(GAP + at / width, left + at % width, *colour);
        }
    }

    /// The bar, hot at the top, with ticks from 0 to `peak`.
    fn colour_bar(&mut self, left: usize, height: usize, peak: f32, scale: usize) {
        for row in 0..height {
            let colour = colour(1.0 - row as f32 / (height - 1).max(1) as f32);
            (0..BAR_WIDTH).for_each(|column| self.set(GAP + row, left + column, colour));
        }
        for tick in 0..=TICKS {
            let share = tick as f32 / TICKS as f32;
            let row = ((1.0 - share) * (height - 1) as f32).round() as usize;
            (0..4).for_each(|column| self.set(GAP + row, left + BAR_WIDTH + column, INK));
            // The first and last label stay within the bar's ends.
            let letters = 7 * scale;
            let top = (GAP + row).saturating_sub(letters / 2).clamp(GAP, GAP + height - letters.min(height));
            self.text(top, left + BAR_WIDTH + 7, scale, &tick_label(peak * share));
        }
    }

    fn text(&mut self, top: usize, left: usize, scale: usize, text: &str) {
        for (index, letter) in text.chars().enumerate() {
            let left = left + index * font::ADVANCE * scale;
            for (row, column) in
                (0..font::HEIGHT * scale).flat_map(|row| (0..5 * scale).map(move |c| (row, c)))
            {
                if font::is_set(letter, row / scale, column / scale) {
                    self.set(top + row, left + column, INK);
                }
            }
        }
    }

    /// The drawn picture; an empty one cannot be, and the slice stands in for it.
    fn into_image(self, slice: &RgbImage) -> RgbImage {
        RgbImage::new(self.width, self.height, self.pixels.concat()).unwrap_or_else(|| slice.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        explain::{Faithfulness, HeatMap, Method},
        pixels::decode,
        predictor::Prediction,
    };

    fn explanation(map: HeatMap, frame: Frame, drop_hot: f64) -> Explanation {
        let faithfulness = Faithfulness { drop_hot, drop_random: 0.4, share_below: 1.0, regions: 20 };
        Explanation {
            prediction: Prediction { probabilities: vec![0.07, 0.93] },
            class: 1,
            method: Method::Occlusion,
            score: 2.59,
            map,
            frame,
            faithfulness: Some(faithfulness),
        }
    }

    fn grey(width: usize, height: usize) -> RgbImage {
        RgbImage::new(width, height, vec![90; width * height * 3]).unwrap()
    }

    fn pixel(image: &RgbImage, row: usize, column: usize) -> [u8; 3] {
        let at = 3 * (row * image.width() + column);
        [image.pixels()[at], image.pixels()[at + 1], image.pixels()[at + 2]]
    }

    #[test]
    fn the_slice_the_map_and_the_bar_stand_side_by_side() {
        let image = grey(100, 80);
        let mut values = vec![0.0; 400];
        values[10 * 20 + 15] = 4.0;
        let explained = explanation(HeatMap::new(20, 20, values).unwrap(), Frame::whole(&image), 3.2);
        let drawn = decode(&png(&draw(&image, &explained, "Tumor")).unwrap()).unwrap();
        // 2 panels of 100, 3 gaps and the bar: 24 + 18 + 6 letters of 6.
        assert_eq!(drawn.width(), 2 * 100 + 3 * GAP + 24 + 18 + 36);
        let right = 2 * GAP + 100;
        for (row, column) in [(0, 0), (79, 99), (42, 77)] {
            assert_eq!(pixel(&drawn, GAP + row, GAP + column), [90; 3], "the slice is left as it is");
        }
        // The hot cell's middle: column (15 + 0.5) · 5 = 77.5, that of column 77, and row 42, half a
        // pixel or an eighth of a cell above that of row 42: 1 − 1/8.
        let expected = mixed([90; 3], colour(0.875), OPACITY * 0.875);
        for (got, expected) in pixel(&drawn, GAP + 42, right + 77).into_iter().zip(expected) {
            assert!(got.abs_diff(expected) <= 1, "{got}, expected {expected}");
        }
        assert_eq!(pixel(&drawn, GAP + 40, right + 77), OUTLINE);
        assert_eq!(pixel(&drawn, GAP + 5, right + 5), [90; 3], "nothing there");
        let bar = 4 * GAP + 200;
        assert_eq!(pixel(&drawn, GAP, bar + 3), colour(1.0));
        assert_eq!(pixel(&drawn, GAP + 79, bar + 3), colour(0.0));
        assert_eq!(pixel(&drawn, GAP, bar + BAR_WIDTH + 2), INK, "a tick");
    }

    #[test]
    fn what_lies_outside_of_the_frame_is_not_coloured() {
        let image = grey(60, 40);
        let frame = Frame { top: 10, left: 20, height: 20, width: 20 };
        let map = HeatMap::new(4, 4, vec![1.0; 16]).unwrap();
        let drawn = draw(&image, &explanation(map, frame, 3.2), "Tumor");
        let right = 2 * GAP + 60;
        assert_eq!(pixel(&drawn, GAP + 9, right + 30), [90; 3]);
        assert_ne!(pixel(&drawn, GAP + 20, right + 30), [90; 3]);
    }

    #[test]
    fn the_verdict_gives_its_numbers() {
        let map = || HeatMap::new(1, 1, vec![1.0]).unwrap();
        let image = grey(1, 1);
        let frame = Frame::whole(&image);
        assert_eq!(
            verdict(&explanation(map(), frame, 3.2)),
            "Faithful: hiding the outlined region lowers the log-odds by 3.20, a random one of its size and \
             shape by 0.40 on average; 20 of 20 random ones lower it less."
        );
        assert!(verdict(&explanation(map(), frame, -0.1)).starts_with("NOT FAITHFUL"));
        let unchecked = Explanation { faithfulness: None, ..explanation(map(), frame, 0.0) };
        assert!(verdict(&unchecked).starts_with("Not checked"));
    }

    #[test]
    fn pictures_of_any_size_and_labels_of_any_length_are_drawn() {
        for (width, height) in [(1, 1), (1, 300), (4000, 3), (513, 90)] {
            let image = grey(width, height);
            let map = HeatMap::new(2, 2, vec![0.0, 1.0, -1.0, 0.5]).unwrap();
            let drawn = draw(&image, &explanation(map, Frame::whole(&image), 1.0), &"é".repeat(300));
            assert!(drawn.width() > 2 * width.min(MAX_SIDE) && drawn.height() > MIN_HEIGHT.min(height));
        }
    }

    #[test]
    fn text_is_broken_at_spaces_and_long_words_anywhere() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("a abcdefgh b", 3), ["a", "abc", "def", "gh", "b"]);
        assert_eq!(tick_label(0.0), "0");
        assert_eq!([0.125, 12.34, 0.001].map(tick_label), ["0.12", "12.3", "1e-3"]);
    }

    #[test]
    fn colours_grow_brighter_with_the_value() {
        let brightness = |share: f32| colour(share).iter().map(|&value| u32::from(value)).sum::<u32>();
        let steps: Vec<u32> = (0..=10).map(|step| brightness(step as f32 / 10.0)).collect();
        assert!(steps.windows(2).all(|pair| pair[0] < pair[1]), "{steps:?}");
    }
}
