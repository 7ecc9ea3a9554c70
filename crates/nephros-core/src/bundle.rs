//! The model bundle: everything that a prediction needs, with its checks.
