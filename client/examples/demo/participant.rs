//! A device of the story: on the reference client, or on slixmpp with slixmpp-omemo.

use std::path::PathBuf;
use std::time::Duration;

use multiend_client::{Event, Protocol, SendOptions, Via};
use tokio::task::block_in_place;

use crate::devices::{DEADLINE, Device, World, account};
use crate::options::Clients;
use crate::slixmpp::Peer;
use crate::support::process::poll_async;

/// One device of one user.
pub enum Participant {
    Reference(Device),
    Slixmpp(Slixmpp),
}

/// A device on slixmpp; its state is in a file while it is away.
pub struct Slixmpp {
    c2s_port: u16,
    user: String,
    name: String,
    state: PathBuf,
    peer: Option<Peer>,
}

/// What came of a message that a device should read.
pub struct Reading {
    pub via: Via,
    /// Whom it was exchanged with.
    pub conversation: String,
    /// What the device's archive calls it.
    pub place: Option<String>,
}

/// What a device was told and the story did not wait for.
pub enum Leftover {
    /// A message once more, or one that nobody spoke of.
    Read(String),
    /// The archive has a place with nothing in it.
    Expired(String),
    /// Something that should not be.
    Surprise(String),
}

impl Participant {
    /// A device that publishes itself and goes online.
    pub async fn join(clients: Clients, world: &World, user: &str, name: &str) -> Self {
        match clients {
            Clients::Multiend => Self::Reference(world.device(user, name).await),
            Clients::Slixmpp => {
                let settings = world.settings(user, name);
                let device = Slixmpp {
                    c2s_port: settings.server.port(),
                    user: user.to_owned(),
                    name: name.to_owned(),
                    state: settings.state_file,
                    peer: None,
                };
                let mut participant = Self::Slixmpp(device);
                participant.comes_back(world).await;
                participant
            }
        }
    }

    /// Its name for people.
    pub fn name(&self) -> String {
        match self {
            Self::Reference(device) => device.name(),
            Self::Slixmpp(device) => format!("{}/{}", device.user, device.name),
        }
    }

    /// Its account.
    pub fn account(&self) -> String {
        match self {
            Self::Reference(device) => device.jid().to_string(),
            Self::Slixmpp(device) => account(&device.user).to_string(),
        }
    }

    /// Its device id and fingerprint.
    pub async fn identity(&mut self) -> (String, String) {
        match self {
            Self::Reference(device) => {
                (device.client().device_id().await.to_string(), device.client().fingerprint().await)
            }
            Self::Slixmpp(device) => {
                let peer = device.peer();
                (peer.device_id().to_string(), peer.fingerprint().to_owned())
            }
        }
    }

    /// Waits until it has been told of another device of its account: devices that have just joined are announced, and
    /// what is sent before the announcement comes is not for them.
    pub async fn meets_its_sibling(&mut self) {
        let what = format!("what {} knows of its sibling", self.name());
        poll_async(&what, DEADLINE, async || {
            let known = match self {
                Self::Reference(device) => {
                    let listed = device.client().devices_of(device.client().account(), Protocol::Omemo2).await;
                    listed.is_some_and(|devices| devices.len() > 1)
                }
                Self::Slixmpp(device) => block_in_place(|| device.peer().siblings()) > 0,
            };
            known.then_some(())
        })
        .await;
    }

    /// Sends a text, and waits for its acknowledgement where the door gives one.
    pub async fn says(&mut self, to: &str, text: &str, protocol: Protocol) {
        self.says_for(to, text, protocol, None).await;
    }

    /// The same; the archive hides the message after a time.
    pub async fn says_for(&mut self, to: &str, text: &str, protocol: Protocol, life: Option<Duration>) {
        match self {
            // It chooses the protocol by itself.
            Self::Reference(device) => {
                device.says_with(to, text, SendOptions { expire_after: life }).await;
            }
            Self::Slixmpp(device) => block_in_place(|| device.peer().says_for(to, protocol, text, life)),
        }
    }

    /// Waits until it has decrypted a text.
    pub async fn reads(&mut self, from: &str, text: &str, protocol: Protocol) -> Reading {
        match self {
            Self::Reference(device) => {
                let received = device.reads(from, text).await;
                Reading {
                    via: received.via,
                    conversation: received.conversation.to_string(),
                    place: received.archive_id,
                }
            }
            Self::Slixmpp(device) => {
                let told = block_in_place(|| device.peer().reads(from, protocol, text));
                let via = match told["via"].as_str() {
                    Some("archive") => Via::Archive,
                    Some("carbon") => Via::Carbon,
                    _ => Via::Live,
                };
                Reading {
                    via,
                    conversation: told["conversation"].as_str().unwrap_or_default().to_owned(),
                    place: told["place"].as_str().map(str::to_owned),
                }
            }
        }
    }

    /// Closes in good order.
    pub async fn goes_away(&mut self) {
        match self {
            Self::Reference(device) => device.goes_away().await,
            Self::Slixmpp(device) => {
                let peer = device.peer.take().expect("the device is online");
                block_in_place(|| peer.goes_away());
            }
        }
    }

    /// Connects again.
    pub async fn comes_back(&mut self, world: &World) {
        match self {
            Self::Reference(device) => device.comes_back(world).await,
            Self::Slixmpp(device) => {
                let peer = block_in_place(|| Peer::start(device.c2s_port, &device.user, &device.state));
                device.peer = Some(peer);
            }
        }
    }

    /// Reads the archive to its end; says in how many pages.
    pub async fn catches_up(&mut self) -> usize {
        match self {
            Self::Reference(device) => device.catches_up().await.pages,
            Self::Slixmpp(device) => block_in_place(|| device.peer().catches_up()),
        }
    }

    /// Everything that it was told and that nobody has waited for.
    pub fn leftovers(&mut self) -> Vec<Leftover> {
        match self {
            Self::Reference(device) => device.rest().into_iter().filter_map(leftover).collect(),
            Self::Slixmpp(device) => device
                .peer()
                .take_rest()
                .into_iter()
                .map(|told| match (told["event"].as_str(), told["place"].as_str()) {
                    (Some("received"), _) => Leftover::Read(told["text"].as_str().unwrap_or_default().to_owned()),
                    (Some("expired"), Some(place)) => Leftover::Expired(place.to_owned()),
                    _ => Leftover::Surprise(told.to_string()),
                })
                .collect(),
        }
    }
}

impl Slixmpp {
    fn peer(&mut self) -> &mut Peer {
        self.peer.as_mut().expect("the device is online")
    }
}

fn leftover(event: Event) -> Option<Leftover> {
    match event {
        Event::Received(message) => Some(Leftover::Read(message.body)),
        Event::Expired { archive_id, .. } => Some(Leftover::Expired(archive_id)),
        Event::DeviceListChanged { .. } => None,
        Event::Undecryptable { .. }
        | Event::Failed { .. }
        | Event::DeviceSkipped { .. }
        | Event::HistoryBroken { .. }
        | Event::ArchiveRestarted => Some(Leftover::Surprise(format!("{event:?}"))),
    }
}
