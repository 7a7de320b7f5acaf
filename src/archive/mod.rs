//! The rules of the archive.
