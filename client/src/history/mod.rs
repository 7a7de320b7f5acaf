//! Holding the server to the history of each owner's devices: whatever it hands out has to stand there, and the history has
//! to go on from where this device has seen it.
//!
//! Checking is [`chain`]'s, which any client may use; this module asks for what follows the known head, keeps the head, and
//! tells the caller when something does not fit ([`Event::HistoryBroken`]). It holds nothing up: a list or a key is used
//! when it comes, and held to the history as soon as there is time.

pub mod chain;
mod wire;

use minidom::Element;
use xmpp_parsers::jid::BareJid;

use self::chain::{Change, Deceit, Entry, HistoryProtocol, Ledger};
use crate::client::Inner;
use crate::connection::Kind;
use crate::device_list;
use crate::error::ClientError;
use crate::event::Event;
use crate::protocol::{Protocol, RemoteDevice};

/// Most pages that are asked for at once.
const MAX_PAGES: usize = 1_000;

/// Something that the server has handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HandedOut {
    /// A device list, or the answer that there is none.
    List(Protocol, Option<Vec<u32>>),
    /// The identity key of a device.
    Identity(Protocol, u32, Vec<u8>),
}

impl From<Protocol> for HistoryProtocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Legacy => Self::Legacy,
            Protocol::Omemo2 => Self::Omemo2,
        }
    }
}

impl HandedOut {
    /// What there is to hold to the history in a bundle.
    pub(crate) fn bundle(remote: &RemoteDevice, bundle: &Element) -> Option<Self> {
        Some(Self::Identity(remote.protocol, remote.device, wire::identity_in(bundle)?))
    }

    fn check(&self, ledger: &Ledger) -> Result<(), Deceit> {
        match self {
            Self::List(protocol, devices) => ledger.check_list((*protocol).into(), devices.as_deref()),
            Self::Identity(protocol, device, key) => ledger.check_identity((*protocol).into(), *device, key),
        }
    }

    /// Whether an entry says just this.
    fn is_in(&self, entry: &Entry) -> bool {
        match (self, &entry.change) {
            (Self::List(protocol, Some(handed)), Change::List { devices, .. }) => {
                (HistoryProtocol::from(*protocol), handed) == (entry.protocol, devices)
            }
            (Self::List(protocol, None), Change::NoList) => HistoryProtocol::from(*protocol) == entry.protocol,
            (Self::Identity(protocol, handed, key), Change::Identity { device, key: recorded }) => {
                (HistoryProtocol::from(*protocol), handed, key) == (entry.protocol, device, recorded)
            }
            _ => false,
        }
    }
}

/// What came of asking for a history.
enum Asked {
    /// The server keeps none.
    NotOffered,
    /// It goes on as it should: what was known, what followed, and what is known now.
    Honest { before: Ledger, followed: Vec<Entry>, after: Ledger },
    /// It does not.
    Broken(Deceit),
}

impl Inner {
    /// Holds what was handed out for `owner` to its history. What does not stand there may have been overtaken by a change:
    /// then what is handed out now has to.
    pub(crate) async fn hold_to_history(&self, owner: &BareJid, handed: HandedOut) -> Result<(), ClientError> {
        let Some(first) = self.deceit(owner, &handed).await? else { return Ok(()) };
        let deceit = match self.handed_out_now(owner, handed).await? {
            Some(now) => self.deceit(owner, &now).await?,
            None => Some(first),
        };
        if let Some(deceit) = deceit {
            tracing::warn!(%owner, %deceit, "the history of an account's devices does not fit");
            self.events.push([(None, Event::HistoryBroken { owner: owner.clone(), deceit })]);
        }
        Ok(())
    }

    /// The same thing as it is handed out at present.
    async fn handed_out_now(&self, owner: &BareJid, handed: HandedOut) -> Result<Option<HandedOut>, ClientError> {
        match handed {
            HandedOut::List(protocol, _) => {
                let list = self.fetch_list(owner, protocol).await?;
                Ok(Some(HandedOut::List(protocol, list.and_then(|list| device_list::read_ids(protocol, &list)))))
            }
            HandedOut::Identity(protocol, device, _) => {
                let remote = RemoteDevice { account: owner.clone(), protocol, device };
                let bundle = self.fetch_bundle(&remote).await?;
                Ok(bundle.and_then(|bundle| HandedOut::bundle(&remote, &bundle)))
            }
        }
    }

    /// What does not fit, if anything.
    async fn deceit(&self, owner: &BareJid, handed: &HandedOut) -> Result<Option<Deceit>, ClientError> {
        let (before, followed, after) = match self.ask_for_history(owner).await? {
            Asked::NotOffered => return Ok(None),
            Asked::Broken(deceit) => return Ok(Some(deceit)),
            Asked::Honest { before, followed, after } => (before, followed, after),
        };
        let mut memory = self.memory.lock().await;
        let known = memory.state.histories.entry(owner.clone()).or_default();
        if known.head().index < after.head().index {
            *known = after.clone();
            self.save(&mut memory).await?;
        }
        // It may have been handed out before what followed.
        let was_so = !followed.is_empty() && handed.check(&before).is_ok();
        let fits = was_so || followed.iter().any(|entry| handed.is_in(entry));
        Ok(if fits { None } else { handed.check(&after).err() })
    }

    async fn ask_for_history(&self, owner: &BareJid) -> Result<Asked, ClientError> {
        let before = self.memory.lock().await.state.histories.get(owner).cloned().unwrap_or_default();
        let mut after = before.clone();
        let mut followed = Vec::new();
        let address = self.settings.door.address_of(owner);
        let what = "the history of an account's devices";
        for _ in 0..MAX_PAGES {
            let answer = self.connection.request(what, &address, Kind::Get, wire::request(&after.head()), None).await;
            let answer = match answer {
                Err(ClientError::Refused { refusal, .. }) if !refusal.temporary => {
                    let known = before.head().index;
                    return Ok(if known == 0 { Asked::NotOffered } else { Asked::Broken(Deceit::NotOnChain(known)) });
                }
                answer => answer?.payload,
            };
            let (head, entries) = answer.as_ref().and_then(wire::read).ok_or(ClientError::Malformed(what))?;
            if let Err(deceit) = after.extend(owner.as_str(), &entries, &head) {
                return Ok(Asked::Broken(deceit));
            }
            followed.extend(entries);
            if after.head() == head {
                return Ok(Asked::Honest { before, followed, after });
            }
        }
        Err(ClientError::Malformed(what))
    }
}
