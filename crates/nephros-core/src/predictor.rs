//! A loaded model that answers for images.
