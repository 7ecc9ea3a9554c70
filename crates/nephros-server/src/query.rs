//! What stands after the `?` of an address.

use crate::error::ApiError;

/// Longest beginning of a value that an error repeats.
const SHOWN: usize = 40;

/// Parameters of an address. Those that an address does not know are not looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    pub(crate) fn new(query: Option<&'a str>) -> Self {
        Self(query.unwrap_or_default())
    }

    /// The first value of a parameter, as it was sent.
    pub(crate) fn get(self, name: &str) -> Option<&'a str> {
        let pairs = self.0.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.into_iter().find_map(|(key, value)| (key == name).then_some(value))
    }

    /// A whole number from `least` to `most`, or `default` without the parameter.
    ///
    /// # Errors
    /// [`ApiError::InvalidQuery`].
    pub(crate) fn number(
        self,
        name: &'static str,
        [least, most]: [usize; 2],
        default: usize,
    ) -> Result<usize, ApiError> {
        let Some(value) = self.get(name) else { return Ok(default) };
        let number = value.parse().ok().filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| invalid(name, format!("a whole number from {least} to {most}"), value))
    }

    /// `true` or `false`, which it is without the parameter.
    ///
    /// # Errors
    /// [`ApiError::InvalidQuery`].
    pub(crate) fn flag(self, name: &'static str) -> Result<bool, ApiError> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(value) => Err(invalid(name, "`true` or `false`".to_owned(), value)),
        }
    }
}

fn invalid(name: &'static str, expected: String, value: &str) -> ApiError {
    // A value as long as the address may be says no more than its beginning.
    ApiError::InvalidQuery { name, expected, got: value.chars().take(SHOWN).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_flags() {
        let query = Query::new(Some("similar=3&heatmap=true&x&similar=4"));
        assert_eq!(query.number("similar", [0, 20], 0).unwrap(), 3);
        assert_eq!(query.number("limit", [1, 20], 7).unwrap(), 7);
        assert!(query.flag("heatmap").unwrap());
        assert!(!query.flag("other").unwrap());
        assert!(query.flag("x").is_err());
        let refused = query.number("similar", [0, 2], 0).unwrap_err().to_string();
        assert_eq!(refused, "`similar`: expected a whole number from 0 to 2, got `3`");
        assert!(!Query::new(None).flag("heatmap").unwrap());
    }
}
