//! Sets of positions, as an entry of an erasure names them: `1-5,9`.

/// Positions in ascending order, as first and last of each run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ranges(Vec<(i64, i64)>);

impl Ranges {
    /// Positions in any order.
    pub(crate) fn of(mut positions: Vec<i64>) -> Self {
        positions.sort_unstable();
        Self::merged(positions.into_iter().map(|position| (position, position)))
    }

    /// Runs in the order of their first positions.
    fn merged(runs: impl Iterator<Item = (i64, i64)>) -> Self {
        let mut merged: Vec<(i64, i64)> = Vec::new();
        for (first, last) in runs {
            match merged.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| text.parse::<i64>().ok().filter(|number| *number > 0);
        let run = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some((first, last))
        };
        text.split(',').map(run).collect::<Option<Vec<_>>>().map(Self)
    }

    /// The positions of both.
    pub(crate) fn join(&mut self, other: Self) {
        let mut runs = [std::mem::take(&mut self.0), other.0].concat();
        runs.sort_unstable();
        *self = Self::merged(runs.into_iter());
    }

    /// Those before `position`.
    pub(crate) fn before(self, position: i64) -> Self {
        let runs = self.0.into_iter().filter(|run| run.0 < position);
        Self(runs.map(|(first, last)| (first, last.min(position - 1))).collect())
    }

    pub(crate) fn contains(&self, position: i64) -> bool {
        let after = self.0.partition_point(|run| run.0 <= position);
        after > 0 && self.0[after - 1].1 >= position
    }
}

impl std::fmt::Display for Ranges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (first, last)) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            if first == last { write!(f, "{comma}{first}") } else { write!(f, "{comma}{first}-{last}") }?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn runs_are_written_by_their_ends() {
        assert_eq!(Ranges::of(vec![9, 1, 3, 2, 4, 5]).to_string(), "1-5,9");
        assert_eq!(Ranges::parse("1-5,9").unwrap(), Ranges(vec![(1, 5), (9, 9)]));
        for text in ["", "0", "5-1", "1-", "a", "1,,2"] {
            assert_eq!(Ranges::parse(text), None, "{text}");
        }
        assert_eq!(Ranges::parse("1-5,9").unwrap().before(4).to_string(), "1-3");
    }

    proptest! {
        #[test]
        fn a_set_holds_what_it_was_made_of(a in prop::collection::vec(1_i64..40, 1..20), b in prop::collection::vec(1_i64..40, 1..20)) {
            let mut set = Ranges::parse(&Ranges::of(a.clone()).to_string()).unwrap();
            set.join(Ranges::of(b.clone()));
            for position in 0..42 {
                prop_assert_eq!(set.contains(position), a.contains(&position) || b.contains(&position));
            }
        }
    }
}
