//! Neutral signalling vocabulary.
