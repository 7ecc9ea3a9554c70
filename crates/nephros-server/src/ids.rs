//! Ids that nobody can guess, and ids that clients name.

use std::convert::Infallible;

use axum::{
    extract::{FromRequestParts, Path},
    http::request::Parts,
};

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

/// What an address names. Nothing has an empty id, which stands for one that is no UTF-8: such an address
/// gets the answer of any other that names nothing.
#[derive(Debug)]
pub(crate) struct Id(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let named = Path::<String>::from_request_parts(parts, state).await;
        Ok(Self(named.map(|Path(id)| id).unwrap_or_default()))
    }
}
