//! Images whose file numbers follow one another: slices are numbered in the order of the scan.

use std::collections::BTreeMap;

/// Gaps on either side that tell what step is usual at a place: a subset of a collection may keep
/// every image in one series and every twelfth in the next.
const NEIGHBOURHOOD: usize = 4;

/// Pairs of images with adjacent numbers, for each kind of name (`Tumor/Tumor- (#).jpg`) apart.
/// Adjacent is what is at most twice the usual step away.
pub fn chains(paths: &[&str]) -> Vec<Vec<(usize, usize)>> {
    let mut kinds: BTreeMap<String, Vec<(u64, usize)>> = BTreeMap::new();
    for (index, path) in paths.iter().enumerate() {
        if let Some((kind, number)) = numbered(path) {
            kinds.entry(kind).or_default().push((number, index));
        }
    }
    kinds.into_values().map(adjacent).filter(|pairs| !pairs.is_empty()).collect()
}

fn adjacent(mut images: Vec<(u64, usize)>) -> Vec<(usize, usize)> {
    images.sort_unstable();
    let gaps: Vec<u64> = images.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    let is_near = |position: usize| {
        let first = position.saturating_sub(NEIGHBOURHOOD);
        let mut around = gaps[first..(position + NEIGHBOURHOOD + 1).min(gaps.len())].to_vec();
        around.sort_unstable();
        gaps[position] <= 2 * around[around.len() / 2].max(1)
    };
    let pairs = images.windows(2).enumerate().filter(|(position, _)| is_near(*position));
    pairs.map(|(_, pair)| (pair[0].1, pair[1].1)).collect()
}

/// The last number of the file name, and the path with `#` in its place.
fn numbered(path: &str) -> Option<(String, u64)> {
    let name = path.rfind('/').map_or(0, |slash| slash + 1);
    let stem = path[name..].rfind('.').map_or(path.len(), |dot| name + dot);
    let end = name + path[name..stem].rfind(|c: char| c.is_ascii_digit())? + 1;
    let start = path[name..end].rfind(|c: char| !c.is_ascii_digit()).map_or(name, |before| {
        // One past a character of any width.
        name + before + path[name + before..].chars().next().map_or(1, char::len_utf8)
    });
    let number = path[start..end].parse().ok()?;
    Some((format!("{}#{}", &path[..start], &path[end..]), number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_number_of_a_name_counts() {
        let of = |path| numbered(path).unwrap();
        assert_eq!(of("Normal/Normal- (12).jpg"), ("Normal/Normal- (#).jpg".into(), 12));
        assert_eq!(of("2/4class-0007.png"), ("2/4class-#.png".into(), 7));
        assert_eq!(of("é3"), ("é#".into(), 3));
        assert_eq!(of("12.jpg"), ("#.jpg".into(), 12));
        assert_eq!(numbered("2/slice.jp2"), None);
        assert_eq!(numbered("99999999999999999999999.jpg"), None);
    }

    #[test]
    fn adjacent_follows_the_step_of_the_place() {
        let numbers = [10, 12, 14, 16, 18, 20, 300, 312, 324, 336, 348, 900];
        let paths: Vec<String> = numbers.iter().map(|number| format!("A/({number}).jpg")).collect();
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        let expected: Vec<(usize, usize)> =
            (0..5).chain(6..10).map(|position| (position, position + 1)).collect();
        assert_eq!(chains(&paths), [expected]);
    }

    #[test]
    fn kinds_of_names_are_counted_apart() {
        assert_eq!(chains(&["A/x1.jpg", "A/y2.jpg", "B/x2.jpg", "A/y3.jpg"]), [[(1, 3)]]);
        assert!(chains(&["A/x.jpg"]).is_empty());
    }
}
