//! Long-running work for operators: purge.

pub mod purge;
