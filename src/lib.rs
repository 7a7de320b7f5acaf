//! multiend, the server: a device directory and an encrypted-aware archive for XMPP, as an XEP-0114 component beside
//! Prosody or ejabberd.
//!
//! The layers, each importing only what stands below it (`docs/architecture.md` has the tour):
//!
//! ```text
//! serve, check, ops, admin      wiring, metrics, health, logging; long-running work for operators
//! door                   how a request reaches us and names its owner
//! link                   the XEP-0114 stream; on its own, imports nothing of ours
//! directory, archive     the rules; no XML streams, no SQL
//! stanza                 typed payloads, one file per XEP
//! store                  durable state; PostgreSQL and SQLite
//! model                  the words of the design as types
//! ```
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod admin;
pub mod archive;
pub mod check;
pub mod config;
pub mod directory;
pub mod door;
pub mod link;
pub mod model;
pub mod ops;
pub mod serve;
pub mod stanza;
pub mod store;
