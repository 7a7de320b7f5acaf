//! Typed payloads, one file per XEP.
