//! The link against a server that does what no good server does: huge stanzas, bytes in single pieces, stream errors,
//! silence, and connections that break.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

#[path = "link_fake_server/breaks.rs"]
mod breaks;
#[path = "link_fake_server/bytes.rs"]
mod bytes;
#[path = "link_fake_server/server.rs"]
mod server;
#[path = "link_fake_server/shutdown.rs"]
mod shutdown;
