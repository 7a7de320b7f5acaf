//! The delegation door on real servers that have nothing but stock modules: Prosody 0.12, which delegates by
//! `urn:xmpp:delegation:2`, and ejabberd 23.01, which does by `urn:xmpp:delegation:1` (docs/delegation.md).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

#[path = "delegation/access.rs"]
mod access;
#[path = "delegation/archive.rs"]
mod archive;
#[path = "delegation/documents.rs"]
mod documents;
#[path = "delegation/failures.rs"]
mod failures;
#[path = "delegation/order.rs"]
mod order;
#[allow(unused)]
mod profanity;
#[path = "slixmpp/python.rs"]
mod python;
#[path = "delegation/stock.rs"]
mod stock;
mod support;
