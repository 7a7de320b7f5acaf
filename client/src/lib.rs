//! Reference client.
