//! Long-running work for operators: purge.
