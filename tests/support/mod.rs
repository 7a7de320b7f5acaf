//! What the integration tests stand on: private, real servers and a raw XMPP client.
//!
//! Every server gets its own random loopback ports and its own temporary directory, is stopped by process id when it is
//! dropped, and dies with the test binary in any case. Nothing here sleeps to wait for a state: everything polls, with a
//! deadline. All of it works as root and as an ordinary user.
//!
//! Use it from an integration test with `mod support;`.
#![allow(dead_code, unreachable_pub)]

pub mod archive;
pub mod component;
pub mod document;
pub mod ejabberd;
pub mod ejabberd_plugin;
pub mod multiend;
pub mod omemo;
pub mod plugin;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod prometheus;
pub mod prosody;
pub mod typed;
pub mod xmpp;

/// The root of the repository, for the tests of every package and for the demo.
pub fn repository() -> &'static std::path::Path {
    let package = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().find(|path| path.join("plugins").is_dir()).expect("the plugins are in the root")
}

/// The domain whose users the tests' servers serve, unless a test says otherwise.
pub const DOMAIN: &str = "example.org";
/// The component JID that the tests' servers know, unless a test says otherwise.
pub const COMPONENT: &str = "multiend.example.org";
/// The secret of [`COMPONENT`].
pub const SECRET: &str = "component-secret-of-the-tests";
