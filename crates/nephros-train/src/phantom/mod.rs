//! Drawn abdominal CT cohorts.
