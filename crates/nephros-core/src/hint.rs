//! What to do about an error.

/// An error that may know what its reader should do.
pub trait Hint: std::error::Error {
    /// One sentence of advice, without a final period; printed on its own `hint:` line.
    fn hint(&self) -> Option<String>;
}
