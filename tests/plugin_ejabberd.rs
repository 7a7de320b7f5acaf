//! The plugin in a real ejabberd: clients that know nothing of multiend use it at their own addresses (docs/ejabberd.md).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

#[path = "plugin/ejabberd/documents.rs"]
mod documents;
#[path = "plugin/mod.rs"]
mod plugin;
mod support;

use plugin::*;

/// The server of all scenarios here.
type Server = support::ejabberd::Ejabberd;
