//! Published weights: found, downloaded, verified, read.
