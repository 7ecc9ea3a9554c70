//! Scores on images that training never saw.
