//! The plugin in a real Prosody: clients that know nothing of multiend use it at their own addresses (docs/prosody.md).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

#[path = "plugin/prosody/documents.rs"]
mod documents;
#[path = "plugin/mod.rs"]
mod plugin;
#[path = "plugin/prosody/protocol.rs"]
mod protocol;
mod support;
#[path = "plugin/prosody/text.rs"]
mod text;

use plugin::*;

/// The server of all scenarios here.
type Server = support::prosody::Prosody;
