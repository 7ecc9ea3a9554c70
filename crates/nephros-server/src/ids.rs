//! Ids that nobody can guess.

use crate::error::ApiError;

/// 32 hexadecimal digits from the system's own source.
///
/// # Errors
/// [`ApiError::Internal`] where the system has no randomness.
pub(crate) fn new_id() -> Result<String, ApiError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| ApiError::Internal(error.to_string().into()))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}
