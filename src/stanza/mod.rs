//! Typed payloads, one file per XEP, over bounded raw slices.

pub mod tree;
