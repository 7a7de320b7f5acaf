//! Reference client for multiend: an OMEMO device on `multiend-crypto` and tokio-xmpp.
//!
//! A [`Client`] is one device of one account. It registers itself in the directory, keeps sessions with every device of
//! its peers and with its own siblings, sends, receives live and by carbons, and catches up from the archive. Its state
//! is one file; a device survives restarts and crashes with it.
//!
//! It takes part in OMEMO 2, in legacy OMEMO, or in both ([`Protocols`]), under one id and one identity: each device that
//! it writes to gets its header in a protocol that it reads, all in one message.
//!
//! It reaches directory and archive through a [`Door`]: through a multiend component (XEP-0114), or directly at the
//! accounts' own addresses, which works with any server that has PEP and XEP-0313.
//!
//! It exists for tests, for the demo and as an example. What it leaves out: TLS (it is for loopback), rooms, and asking a
//! person whom to trust. Trust goes to the first identity that a device shows.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use multiend_client::{Client, Door, Event, SendOptions, Settings};
//!
//! let door = Door::Alias { component: "multiend.example.org".parse()? };
//! let settings = Settings::new(
//!     "alice@example.org".parse()?, "phone", "secret", "127.0.0.1:5222".parse()?, door, "alice-phone.json",
//! );
//! let alice = Client::connect(settings).await?;
//! alice.catch_up().await?;
//! alice.send(&"bob@example.org".parse()?, "Hello", SendOptions::default()).await?;
//! if let Event::Received(message) = alice.next_event().await {
//!     println!("{}: {}", message.from, message.body);
//! }
//! # Ok(())
//! # }
//! ```

mod archive;
mod catch_up;
mod cipher;
mod client;
mod connection;
mod device_list;
mod digest;
mod directory;
mod door;
mod error;
mod escape;
mod event;
mod events;
mod extension;
pub mod history;
mod keys;
mod login;
mod memory;
mod protocol;
mod random;
mod receiving;
mod registration;
mod seen;
mod sending;
mod sessions;
mod settings;
mod stanza;
mod state;
mod upkeep;
mod xml;

pub use catch_up::CaughtUp;
pub use client::Client;
pub use door::Door;
pub use error::{ClientError, Refusal};
pub use event::{Event, Received, Via};
pub use protocol::{Protocol, Protocols};
pub use sending::{SendOptions, Sent};
pub use settings::{Patience, Settings};
pub use state::StateError;
