//! SLIC: patches of like grey, the parts that LIME and Kernel SHAP show and hide.
//!
//! Source: Achanta et al., "SLIC Superpixels Compared to State-of-the-Art Superpixel Methods",
//! 2012, <https://doi.org/10.1109/TPAMI.2012.120>.

/// Superpixels that a picture is cut into, about.
pub const COUNT: usize = 64;

/// Rounds of the clustering; the paper finds 10 enough for most images.
const ROUNDS: usize = 10;
/// Grey values that weigh as much as one step of the grid.
const COMPACTNESS: f64 = 20.0;

/// Which superpixel each pixel is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superpixels {
    labels: Vec<usize>,
    count: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Centre {
    row: f64,
    column: f64,
    grey: f64,
    pixels: f64,
}

impl Superpixels {
    /// Wraps the superpixel of each pixel; `None` unless every number from 0 on has a pixel.
    pub fn new(labels: Vec<usize>) -> Option<Self> {
        let count = labels.iter().max()?.checked_add(1)?;
        let mut seen = vec![false; count.min(labels.len() + 1)];
        for &label in &labels {
            *seen.get_mut(label)? = true;
        }
        seen.iter().all(|seen| *seen).then_some(Self { labels, count })
    }

    /// Cuts a picture of `[height, width]` grey values, 0 to 255, into about `target` connected
    /// superpixels; a single one where an axis is zero or the length does not fit.
    pub fn slic(grey: &[f32], height: usize, width: usize, target: usize) -> Self {
        if height == 0 || width == 0 || grey.len() != height * width {
            return Self { labels: vec![0; grey.len()], count: 1 };
        }
        let step = ((grey.len() as f64 / target.max(1) as f64).sqrt()).max(1.0);
        let mut centres = grid(grey, height, width, step);
        let mut labels = vec![0; grey.len()];
        for _ in 0..ROUNDS {
            labels = assign(grey, width, step, &centres);
            centres = means(grey, width, &labels, &centres);
        }
        connected(&labels, height, width, (step * step / 4.0) as usize)
    }

    /// Number of superpixels.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The superpixel of each pixel, row by row.
    pub fn labels(&self) -> &[usize] {
        &self.labels
    }
}

/// Centres in the middles of a grid.
fn grid(grey: &[f32], height: usize, width: usize, step: f64) -> Vec<Centre> {
    let along = |length: usize| {
        let cells = ((length as f64 / step).round() as usize).max(1);
        (0..cells).map(move |cell| ((cell as f64 + 0.5) * length as f64 / cells as f64) as usize)
    };
    let centre = |row: usize, column: usize| Centre {
        row: row as f64,
        column: column as f64,
        grey: f64::from(grey[row * width + column]),
        pixels: 1.0,
    };
    along(height).flat_map(|row| along(width).map(move |column| centre(row, column))).collect()
}

/// The nearest centre of each pixel, among those within two steps of the grid.
fn assign(grey: &[f32], width: usize, step: f64, centres: &[Centre]) -> Vec<usize> {
    let mut labels = vec![0; grey.len()];
    let mut nearest = vec![f64::INFINITY; grey.len()];
    let height = grey.len() / width;
    let window = |middle: f64, length: usize| {
        (middle - 2.0 * step).max(0.0) as usize..((middle + 2.0 * step) as usize + 1).min(length)
    };
    for (label, centre) in centres.iter().enumerate() {
        for row in window(centre.row, height) {
            for column in window(centre.column, width) {
                let pixel = row * width + column;
                let away = (row as f64 - centre.row).powi(2) + (column as f64 - centre.column).powi(2);
                let darker = (f64::from(grey[pixel]) - centre.grey) / COMPACTNESS;
                let distance = darker * darker + away / (step * step);
                if distance < nearest[pixel] {
                    (nearest[pixel], labels[pixel]) = (distance, label);
                }
            }
        }
    }
    labels
}

/// Means of the pixels of each centre; a centre without any stays.
fn means(grey: &[f32], width: usize, labels: &[usize], centres: &[Centre]) -> Vec<Centre> {
    let mut sums = vec![Centre::default(); centres.len()];
    for (pixel, (&label, &grey)) in labels.iter().zip(grey).enumerate() {
        let sum = &mut sums[label];
        sum.row += (pixel / width) as f64;
        sum.column += (pixel % width) as f64;
        sum.grey += f64::from(grey);
        sum.pixels += 1.0;
    }
    let mean = |(sum, &old): (Centre, &Centre)| {
        if sum.pixels == 0.0 {
            return old;
        }
        let Centre { row, column, grey, pixels } = sum;
        Centre { row: row / pixels, column: column / pixels, grey: grey / pixels, pixels }
    };
    sums.into_iter().zip(centres).map(mean).collect()
}

/// Connected pieces, numbered anew from the top; a piece below `least` pixels joins the one before it.
fn connected(labels: &[usize], height: usize, width: usize, least: usize) -> Superpixels {
    const NONE: usize = usize::MAX;
    let mut pieces = vec![NONE; labels.len()];
    let mut count = 0;
    for start in 0..labels.len() {
        if pieces[start] != NONE {
            continue;
        }
        // The pixel above or to the left is in a piece already, if there is one.
        let before = if start >= width { Some(start - width) } else { start.checked_sub(1) };
        let before = before.map(|pixel| pieces[pixel]);
        let mut piece = vec![start];
        pieces[start] = count;
        let mut next = 0;
        while let Some(&pixel) = piece.get(next) {
            next += 1;
            for neighbour in neighbours(pixel, height, width) {
                if pieces[neighbour] == NONE && labels[neighbour] == labels[start] {
                    pieces[neighbour] = count;
                    piece.push(neighbour);
                }
            }
        }
        match before {
            Some(before) if piece.len() < least => {
                for pixel in piece {
                    pieces[pixel] = before;
                }
            }
            _ => count += 1,
        }
    }
    Superpixels { labels: pieces, count }
}

fn neighbours(pixel: usize, height: usize, width: usize) -> impl Iterator<Item = usize> {
    let (row, column) = (pixel / width, pixel % width);
    let all = [
        (row > 0).then(|| pixel - width),
        (row + 1 < height).then(|| pixel + width),
        (column > 0).then(|| pixel - 1),
        (column + 1 < width).then(|| pixel + 1),
    ];
    all.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_pixel() {
        assert_eq!(Superpixels::new(vec![0, 2]), None);
        assert_eq!(Superpixels::new(vec![usize::MAX, 0]), None);
        assert_eq!(Superpixels::new(vec![]), None);
        assert_eq!(Superpixels::new(vec![1, 0, 1]).map(|found| found.count()), Some(2));
    }

    #[test]
    fn superpixels_keep_to_the_edge_of_a_bright_square() {
        let is_bright = |pixel: usize| (19..43).contains(&(pixel / 64)) && (11..37).contains(&(pixel % 64));
        let grey: Vec<f32> = (0..64 * 64).map(|pixel| if is_bright(pixel) { 200.0 } else { 40.0 }).collect();
        let found = Superpixels::slic(&grey, 64, 64, 36);
        assert!((20..60).contains(&found.count()), "{}", found.count());
        assert!(Superpixels::new(found.labels().to_vec()).is_some());
        for superpixel in 0..found.count() {
            let pixels: Vec<usize> = (0..grey.len()).filter(|&at| found.labels()[at] == superpixel).collect();
            let bright = pixels.iter().filter(|&&pixel| is_bright(pixel)).count() as f64;
            let share = bright / pixels.len() as f64;
            assert!(!(0.05..=0.95).contains(&share), "superpixel {superpixel} is {share} bright");
        }
    }

    #[test]
    fn odd_sizes_give_at_least_one() {
        for (height, width) in [(1, 1), (1, 50), (3, 2)] {
            let found = Superpixels::slic(&vec![9.0; height * width], height, width, COUNT);
            assert!((1..=height * width).contains(&found.count()));
        }
        assert_eq!(Superpixels::slic(&[], 0, 5, COUNT).count(), 1);
    }
}
