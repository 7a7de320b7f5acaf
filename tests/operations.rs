//! What an operator needs of the running program: figures, health, reloads, commands. One file of `operations/` for each.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod support;

#[path = "slixmpp/python.rs"]
mod python;

#[path = "operations"]
mod operations {
    mod ad_hoc;
    mod commands;
    mod documented_commands;
    mod metrics;
    mod readiness;
    mod reload;
    mod service_manager;
}
