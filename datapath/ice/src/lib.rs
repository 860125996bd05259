//! Candidates, pairs, checks, nomination, consent.
