//! The archive through the alias door of a real Prosody, asked by a client that shares no code with the product
//! (DESIGN: "Archive: what must always hold").
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

#[path = "alias_archive/asking.rs"]
mod asking;
#[path = "alias_archive/messages.rs"]
mod messages;
#[path = "alias_archive/queries.rs"]
mod queries;
mod support;
#[path = "alias_archive/views.rs"]
mod views;
