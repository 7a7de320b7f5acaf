//! Metrics, health and logging.
